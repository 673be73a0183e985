"""How docstrings read as reStructuredText."""

import re

_ENTRY = re.compile(r"(\w+(?:, \w+)*): |(\w+\(.*?\))[: ]")


def endings(lines: list[str]) -> list[str]:
    """Return a docstring in which code may have an ending, as in `option`s."""
    return [re.sub(r"(?<!`)(`[^`\s]+`)(?=\w)", r"\1\\ ", line) for line in lines]


def as_list(lines: list[str]) -> list[str]:
    """Return a class's docstring with its fields as a list.

    Args:
      lines: where `name: meaning`, or `name(arguments) -> result`, begins an
        entry, which goes on to the next one or to an empty line.
    """
    result: list[str] = []
    within = False
    for line in lines:
        entry = _ENTRY.match(line)
        if entry:
            name = entry[1] or entry[2]
            result += ["", f"- `{name}`{line[len(name) :]}"]
            within = True
        elif not line.strip():
            result.append("")
            within = False
        else:
            result.append(f"  {line.strip()}" if within else line)
    return result

"""What the site makes of a page of docs/ that is also read as plain Markdown.

Two kinds of comment, which nobody sees elsewhere, say what only the site has:

- `<!-- site ... -->`: what is within is part of the page (tables of contents, styles);
  a line `NAME*`, a pattern of pages, is left out where there are none.
- `<!-- insert: KIND ARGUMENT -->`: text from where it is kept, so that it has no twin.
  `section FILE#anchor`, `code FILE TEXT` (the block after that text), `file FILE` (it
  becomes the whole page), `help MODULE` (what --help prints), `config` (all fields).

Links to files of the repository outside docs/ lead to the repository where CITATION.cff
names its address; otherwise they become the file's path.
"""

import contextlib
import importlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import config_reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

PAGES = {
    "README.md": "index.md",
    "README.md#results": "results.md",
    "README.md#gpu-tpu-several-machines": "devices.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository -> the page that is made of them."""

_SITE = re.compile(r"<!-- site\n(.*?)-->", re.S)
_OPTIONAL = re.compile(r"^\w+\*\n", re.M)
_INSERT = re.compile(r"<!-- insert: (\w+) ?(.*?) -->")
# No space: an address has none, and `](` in a formula is followed by some.
_LINK = re.compile(r"(!?)\[([^\]\[]*)\]\(([^)\s:]+)\)")


def for_site(text: str, name: str = "") -> str:
    """Return a page as Sphinx shall read it.

    Args:
      text: of the file in docs/.
      name: its path there, for messages.

    Raises:
      ValueError: a comment, an anchor or a link that leads nowhere.
    """
    try:
        text = _SITE.sub(lambda found: _OPTIONAL.sub(_if_any, found[1]), text)
        whole = re.search(r"<!-- insert: file (\S+) -->", text)
        if whole:
            text = _rebased(_read(whole[1]), Path(whole[1]).parent)
        text = _INSERT.sub(lambda found: _KINDS[found[1]](found[2]), text)
        return _LINK.sub(_link, text)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"docs/{name}: {error}") from error


def repository_url() -> str | None:
    """Return the address of the repository's files, without a slash at the end."""
    found = re.search(
        r"^repository-code: [\"']?([^\s\"']+)", _read("CITATION.cff"), re.M
    )
    return found and found[1].rstrip("/")


def section(file: str, anchor: str) -> str:
    """Return what stands below a heading of a file, links seen from docs/.

    Args:
      file: its path in the repository.
      anchor: as GitHub makes it of the heading's text.

    Raises:
      ValueError: there is no such heading.
    """
    parts = re.split(r"^(#+ .*)$", _read(file), flags=re.M)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if slug(title.lstrip("# ")) == anchor:
            return _rebased(body.strip() + "\n", Path(file).parent)
    raise ValueError(f"{file} has no heading #{anchor}")


def slug(title: str) -> str:
    """Return the anchor of a heading: lower case, hyphens, no punctuation."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def help_of(module: str) -> str:
    """Return what `python -m MODULE --help` prints."""
    try:
        entry = importlib.import_module(f"{module}.__main__")
    except ModuleNotFoundError:
        entry = importlib.import_module(module)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        entry.main([module, "--help"])
    return printed.getvalue().rstrip()


def _if_any(found: re.Match) -> str:
    # Sphinx warns of a pattern without pages, and nothing silences it.
    return found[0] if any(DOCS.glob(f"{found[0].strip()}.md")) else ""


def _help(module: str) -> str:
    return f"```text\n{help_of(module)}\n```"


def _section(place: str) -> str:
    return section(*place.split("#"))


def _code(place: str) -> str:
    file, _, text = place.partition(" ")
    found = re.search(rf"{re.escape(text)}\n\n(```.*?\n```)", _read(file), re.S)
    if not found:
        raise ValueError(f"{file} has no code after '{text}'")
    return found[1]


def _config(_: str) -> str:
    return config_reference.markdown()


_KINDS: dict[str, Callable[[str], str]] = {
    "code": _code,
    "config": _config,
    "help": _help,
    "section": _section,
}


def _read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def _rebased(text: str, folder: Path) -> str:
    """Return a text whose relative links were written in `folder`, for docs/."""

    def link(found: re.Match) -> str:
        image, shown, target = found.groups()
        if target.startswith("#"):
            target = f"README.md{target}"
        path = (folder / target).as_posix()
        path = path[5:] if path.startswith("docs/") else f"../{path}"
        return f"{image}[{shown}]({path})"

    return _LINK.sub(link, text)


def _link(found: re.Match) -> str:
    image, shown, target = found.groups()
    if not target.startswith("../"):
        return found[0]
    path = target[3:]
    file, _, anchor = path.partition("#")
    if not (ROOT / file).exists():
        raise ValueError(f"the link to {target} leads nowhere")
    page = PAGES.get(path) or PAGES.get(file)
    if page:
        return f"{image}[{shown}]({page})"
    url = repository_url()
    if url:
        return f"{image}[{shown}]({url}/blob/main/{file}{anchor and '#' + anchor})"
    same = shown.strip("`") in (file, Path(file).name)
    return f"`{file}`" if same else f"{shown} (`{file}`)"

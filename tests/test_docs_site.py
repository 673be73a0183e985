"""What the documentation site generates; that it builds is a check of `.ci/run`."""

import re

import config_reference
import docstrings
import pages
import pictures
import pytest

from spaced_kd import main
from spaced_kd.config import base_config, from_config_dict, student

DOCS = pages.DOCS


@pytest.fixture(scope="module")
def tables():
    """Section title -> rows of its table, of the generated reference."""
    sections = re.split(r"^## (.*)$", config_reference.markdown(), flags=re.M)
    rows = [re.findall(r"^\| (`.*) \|$", body, re.M) for body in sections[2::2]]
    split = [[re.split(r" (?<!\\)\| ", row) for row in body] for body in rows]
    return dict(zip(sections[1::2], split, strict=True))


def _leaves(fields, path="config"):
    for name, value in fields.items():
        yield path, name, value
        if hasattr(value, "items"):
            yield from _leaves(value, f"{path}.{name}")


def test_every_field_that_a_config_has_stands_once_with_its_default(tables):
    """A field that a reader can set would be missing, or have a wrong default."""
    expected = list(_leaves(base_config()))
    assert len(expected) > 200
    for path, name, value in expected:
        found = [
            cells[1]
            for title, rows in tables.items()
            for cells in rows
            if f"`{path}`" in title and cells[0] == f"`{name}`"
        ]
        if (path, name) == ("config.teacher", "method"):  # declared anew
            assert found == ["`hard`", "`kd`"]
            continue
        assert len(found) == 1, (path, name, found)
        shown = re.sub(r"\]\(.*", "", found[0].lstrip("[")).strip("`")
        if hasattr(value, "items"):
            assert shown == ""
        elif value is not None:  # left open: the default depends on the method
            assert shown == (str(value) or '""')


def test_no_field_stands_there_that_a_config_does_not_have(tables):
    """A renamed field would live on."""
    known = {(path, name) for path, name, _ in _leaves(base_config())}
    *groups, auto = tables
    assert auto == "What auto becomes"
    for title in groups:
        for path in re.findall(r"`(config[\w.]*)`", title):
            for cells in tables[title]:
                assert (path, cells[0].strip("`")) in known


ARMS = [
    ("kd", "online"), ("kd", "spaced"), ("kd", "offline"), ("kd", "critical_period"),
    ("pld", "spaced"), ("hard", "spaced"), ("self_kd", "spaced"), ("dml", "online"),
    ("dlb", "offline"),
]  # fmt: skip


@pytest.mark.parametrize("compat", ["recommended", "paper", "released"])
@pytest.mark.parametrize(("method", "plan"), ARMS)
def test_what_auto_becomes_is_what_a_config_becomes(tables, compat, method, plan):
    """The lowest row about a student says what its field is in a resolved config."""
    config = base_config()
    config.compat = compat
    config.students.one = student(method=method, plan=plan, window_stop_epochs=80.0)
    resolved = vars(from_config_dict(config).students["one"])
    column = 2 + ["recommended", "paper", "released"].index(compat)
    said = {}
    for cells in tables["What auto becomes"]:
        about = re.split(", ", cells[1].replace("`", ""))
        if {"any", f"method={method}", f"plan={plan}"} & set(about):
            said[cells[0].strip("`")] = cells[column].strip("`")
    assert said == {name: str(resolved[name]) for name in said}
    assert len(said) == 11


def test_text_of_fields_is_shown_as_it_is():
    shown = config_reference.escaped(
        "a|b * [c] <d>, `e`, docs/performance.md docs/x.md"
    )
    assert (
        shown == r"a\|b \* \[c] \<d>, `e`, [performance.md](performance.md) docs/x.md"
    )


def test_links_lead_to_pages_and_else_to_files(monkeypatch):
    """Relative links into the repository lead nowhere on a site of docs/ alone."""
    text = "[a](../README.md), [b](../README.md#results) [c](methods.md#kd) "
    files = "[`digits.py`](../configs/digits.py) [the loop](../spaced_kd/train.py)"
    monkeypatch.setattr(pages, "repository_url", lambda: None)
    pages_alone = "[a](index.md), [b](results.md) [c](methods.md#kd) "
    paths = "`configs/digits.py` the loop (`spaced_kd/train.py`)"
    assert pages.for_site(text + files) == pages_alone + paths
    monkeypatch.setattr(pages, "repository_url", lambda: "https://x.org/y")
    assert "[the loop](https://x.org/y/blob/main/spaced_kd/train.py)" in pages.for_site(
        files
    )
    with pytest.raises(ValueError, match=r"docs/here: the link to \.\./nothing\.py"):
        pages.for_site("[a](../nothing.py)", "here")


def test_a_section_ends_at_the_next_heading_and_its_links_are_seen_from_docs(
    tmp_path, monkeypatch
):
    """Text of the README would be cut, go on too long, or link to itself."""
    (tmp_path / "R.md").write_text(
        "# T\n\n## One, two\n\n[x](docs/a.md#b) ![y](docs/p.svg) [z](C.md)\n\n## Next\n"
    )
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    found = pages.section("R.md", "one-two")
    assert found == "[x](a.md#b) ![y](p.svg) [z](../C.md)\n"
    with pytest.raises(ValueError, match="R.md has no heading #three"):
        pages.section("R.md", "three")


def test_patterns_without_pages_are_left_out():
    """A page that another change brings would be an error until it is there."""
    text = "<!-- site\nadd_a_m*\nno_such_page*\nstart\n-->\n"
    assert pages.for_site(text) == "add_a_m*\nstart\n\n"


def test_usage_is_what_the_command_prints():
    assert pages.help_of("spaced_kd.main") == main.USAGE.rstrip()
    assert pages.help_of("spaced_kd.grid").startswith("Do the runs of a grid")


def test_docstrings_of_classes_become_lists():
    """Hanging indents would be block quotes, and Sphinx would warn of them."""
    found = docstrings.as_list(
        [
            "About.",
            "",
            "f(a, b) -> c: text",
            "    goes on: here.",
            "x, y: z",
            "",
            "End.",
        ]
    )
    assert [line for line in found if line] == [
        "About.", "- `f(a, b)` -> c: text", "  goes on: here.", "- `x, y`: z", "End.",
    ]  # fmt: skip
    assert docstrings.endings(["`a`s and `b c` `d`"]) == [r"`a`\ s and `b c` `d`"]


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_those_of_the_plans(name):
    """A plan that changed would be drawn as it was; docs/_site/pictures.py draws."""
    committed = (pictures.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert pictures.PICTURES[name]() == committed


def test_pictures_show_what_the_text_beside_them_says():
    """Interval 4 of 12 batches, worked out by hand; a batch costs 3 + 4 K."""
    plan = pictures.plan_of(pictures._named(pictures.SEEN))
    shown = {n: list(pictures.teacher_updates(plan, n).values()) for n in pictures.SEEN}
    assert shown == {
        "online": list(range(12)),
        "lagged": [0] * 4 + [4] * 4 + [8] * 4,
        "spaced": [4] * 4 + [8] * 4 + [12] * 4,
        "constant_ahead": list(range(4, 12)),
        "offline": [12] * 12,
    }
    assert pictures.passes(2) == (3, 4)


def _shell_lines(text):
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return {" ".join(line.split("#")[0].split()) for line in lines} - {""}


def test_commands_of_the_start_page_are_those_of_the_readme():
    """The two would diverge, and one of them would be wrong."""
    text = (DOCS / "start.md").read_text()
    readme = _shell_lines((pages.ROOT / "README.md").read_text())
    assert len(_shell_lines(text)) > 5
    assert _shell_lines(text) <= readme
    assert _shell_lines((DOCS / "index.md").read_text()) <= readme


def test_the_config_of_the_start_page_is_one():
    code = re.search(r"```python\n(.*?)```", (DOCS / "start.md").read_text(), re.S)
    assert code
    scope: dict = {}
    exec(code[1], scope)
    config = from_config_dict(scope["get_config"]())
    assert list(config.students) == ["online", "spaced_1_5"]

"""What the documents tell a reader to type must work as printed."""

import pathlib
import re
import shlex

import pytest

from spaced_kd import analyze, flags, main, schedule
from spaced_kd.analysis import ANALYSES
from spaced_kd.config import base_config, from_config_dict, student
from spaced_kd.grid import __main__ as grid_command
from spaced_kd.grid import cells
from spaced_kd.reproduce import __main__ as reproduce_command
from spaced_kd.reproduce import budgets, items
from spaced_kd.schedule import Clock

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").glob("**/*.py")),
]


def _commands(module: str = "main") -> list[str]:
    found = []
    for path in DOCUMENTS:
        if path.name == "chains.md":
            continue  # its commands name its own examples: test_chain_documents.py
        text = path.read_text().replace("\\\n", " ")
        found += re.findall(rf"python -m spaced_kd\.{module} [^\n#`]+", text)
    return sorted(set(found))


def test_there_are_commands():
    assert len(_commands()) >= 4


@pytest.mark.parametrize("command", _commands())
def test_commands_parse_and_their_config_validates(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)[2:]
    config, workdir, _ = main._parse(arguments)
    assert workdir
    from_config_dict(config)


def test_there_are_commands_of_grids():
    assert len(_commands("grid")) >= 4


@pytest.mark.parametrize("command", _commands("grid"))
def test_commands_of_grids_parse_and_their_cells_validate(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    define = grid_command._define
    config, values = flags.parse_config(shlex.split(command)[2:], define)
    assert values.workdir
    assert cells.read(config)


@pytest.mark.parametrize("command", _commands("analyze"))
def test_commands_of_analyses_parse(command):
    arguments = shlex.split(command)[2:]
    if "--help" in arguments:
        return
    values = analyze._parse(arguments)
    for name in analyze._named(values.analyses):
        assert name in ANALYSES


@pytest.mark.parametrize("command", _commands("reproduce"))
def test_commands_of_the_papers_tables_parse(command):
    values, names = flags.parse_with_arguments(
        shlex.split(command)[2:], reproduce_command._define
    )
    assert values.workdir and names
    assert budgets.find(values.budget)
    assert all(name == "all" or items.lookup(name) for name in names)


def test_scripts_named_in_the_documents_exist_and_are_executable():
    names = set()
    for path in DOCUMENTS:
        names |= set(re.findall(r"(?:\./)?(launch/\w+\.sh)", path.read_text()))
    assert {"launch/quickstart.sh", "launch/test.sh"} <= names
    for name in names:
        assert (ROOT / name).stat().st_mode & 0o111, name


def test_links_between_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), (path.name, target)


def test_the_notebook_example_in_the_readme_runs(tmp_path, monkeypatch):
    """As printed."""
    text = (ROOT / "README.md").read_text()
    code = re.search(r"In a notebook:\n\n```python\n(.*?)```", text, re.S)
    assert code
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code[1], scope)
    assert scope["results"].complete
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_the_self_kd_example_in_the_readme_is_what_the_text_says():
    """As printed: one network alone, and the arms with the updates named there."""
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(config\.teacher\.model = .*?)```", text, re.S)
    scope = {"config": base_config(), "student": student}
    exec(code, scope)
    config = from_config_dict(scope["config"])
    plan = schedule.make_plan(config.students, Clock(10, 80), teacher=False)
    once, twice = 800, 1600
    assert schedule.updates(plan) == {
        "baseline": once, "self_kd": once, "self_kd_double": twice,
        "interleaved": twice, "spaced": twice, "spaced_half": once,
    }  # fmt: skip


def test_no_placeholder_is_left():
    for path in DOCUMENTS:
        lines = path.read_text().splitlines()
        assert not [x for x in lines if re.fullmatch(r"[A-Z_]{4,}", x.strip())], path

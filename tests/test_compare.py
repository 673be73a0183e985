"""Two runs compared: pairs by seed, config differences, and when there is no pair."""

import html.parser
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from spaced_kd import workdir
from spaced_kd.compare import __main__ as command
from spaced_kd.compare import curves, page, runs
from spaced_kd.compare.page import compare
from spaced_kd.errors import CheckpointError
from spaced_kd.style import STUDENT_COLOURS

STUDENTS = ("baseline", "online", "spaced")
GAINS = (1.5, -0.25)  # by seed, points


@pytest.fixture
def pair(analysed_run, tmp_path):
    """Copies of a finished run of seeds 3 and 4, in which B's accuracy is changed."""
    a, b = tmp_path / "first", tmp_path / "second"
    for folder in (a, b):
        folder.mkdir()
        for name in ("config.json", "plan.json", "env.json", "metrics.jsonl"):
            shutil.copy(analysed_run.workdir / name, folder)
    _change_rows(b, lambda row: _gain(row, dict(zip((3, 4), GAINS, strict=True))))
    return a, b


def _gain(row, by_seed):
    key = f"eval/student/{row['network']}/acc1"
    return row | ({key: row[key] + by_seed[row["seed"]]} if key in row else {})


def _change_rows(folder, change):
    log = folder / "metrics.jsonl"
    rows = map(change, map(json.loads, log.read_text().splitlines()))
    log.write_text("".join(json.dumps(row) + "\n" for row in rows if row))


def _change(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    workdir.write_sealed(folder / name, content)


def _row(compared, name):
    rows = {row[0]: row for row in compared.tables["Networks"].rows}
    return dict(zip(compared.tables["Networks"].titles, rows[name], strict=True))


def test_networks_are_paired_by_name_and_seed(pair):
    """Breaks if seeds are mixed up, or A is subtracted the other way round."""
    compared = compare(*pair)
    assert [found.name for found in compared.pairs] == ["teacher", *STUDENTS]
    for found in compared.pairs[1:]:
        assert found.seeds == (3, 4)
        assert found.difference.per_seed == pytest.approx(GAINS)
        assert found.comparison.mean == pytest.approx(0.625)
        # (1.75, 1.25) / 2: the two signs apart are as far from 0 as these or further.
        assert found.comparison.p_value == 1.0
    row = _row(compared, "spaced")
    assert row["seeds\nA / B / paired"] == "2 / 2 / 2"
    assert row["B minus A, points\n± s.d. [95 % t]"] == "+0.62 ± 1.24"
    assert row["p, permutation\n(least possible)"] == "1 (0.5)"
    # The teacher's differences are equal: no interval.
    assert compared.pairs[0].comparison.bca_note


def test_a_seed_of_one_run_alone_is_in_no_pair(pair):
    """Breaks if repetitions are paired by place and not by seed."""
    a, b = pair
    _change_rows(b, lambda row: row | {"seed": row["seed"] + 1})
    found = {p.name: p for p in compare(a, b).pairs}["online"]
    assert found.seeds == (4,)
    own = {net.seeds: net.acc1_last.per_seed for net in (found.a, found.b)}
    difference = own[4, 5][0] - own[3, 4][1]
    assert found.difference.per_seed == (difference,)
    _change_rows(b, lambda row: row | {"seed": row["seed"] + 5})
    found = compare(a, b).pairs[1]
    assert found.comparison is None
    assert found.why_not == "no seed in common (A: 3, 4; B: 9, 10)"


def test_there_is_no_difference_without_the_same_data_or_an_end(pair):
    """Breaks if other data, a missing network or half a training give a number."""
    a, b = pair
    _change(b, "config.json", lambda c: c.update(data_fingerprint="0" * 64))
    compared = compare(a, b)
    assert {p.why_not for p in compared.pairs} == {"the runs saw other data"}
    assert all(p.comparison is None and p.difference is None for p in compared.pairs)
    assert _row(compared, "online")["B: acc1 last\n%"] != "-"
    assert "data_fingerprint" in compared.text()
    shutil.copy(a / "config.json", b)
    ends = max(json.loads(x)["tick"] for x in (b / "metrics.jsonl").open())
    _change_rows(b, lambda row: row if row["tick"] < ends // 2 else None)
    compared = compare(a, b)
    assert all(p.comparison is None for p in compared.pairs)
    text = compared.text()
    assert "UNFINISHED: B has not come to its end" in text
    assert "online: not paired: not finished in B: update" in text


def test_only_fields_that_differ_are_told_and_operational_ones_apart(pair):
    """Breaks if a path passes for science, or a student's 60 fields are all listed."""
    a, b = pair

    def change(content):
        for fields in (content["science"], content["config"]):
            fields["num_epochs"] = 7
        content["config"]["checkpoint"]["keep"] = 9
        content["config"]["student"]["plan"] = "none"
        content["config"]["students"]["later"] = content["config"]["students"].pop(
            "online"
        )
        for path in list(content["science"]):
            if path.startswith("students.online."):
                new = path.replace("online", "later", 1)
                content["science"][new] = content["science"].pop(path)
        content["science"]["data.batch_size"] = 99

    _change(b, "config.json", change)
    _change(b, "env.json", lambda env: env["versions"].update(jax="9.9"))
    compared = compare(a, b)
    science, operation, environment = list(compared.tables.values())[2:]
    assert science.rows == (
        ("data.batch_size", "16", "99"),
        ("num_epochs", "2", "7"),
        ("students.later", "-", "(this run alone)"),
        ("students.online", "(this run alone)", "-"),
    )
    assert operation.rows == (("checkpoint.keep", "2", "9"),)
    assert [row[0] for row in environment.rows] == ["versions.jax"]
    assert "differ in data.batch_size: pairs share the seed" in compared.text()


def test_students_of_one_run_alone_keep_their_row(pair):
    """Breaks if a student that the other run has not is dropped or paired."""
    a, b = pair

    def drop(content):
        for part in (content["networks"], content.get("order", {})):
            part.remove("spaced") if isinstance(part, list) else part.pop("spaced")

    _change(b, "plan.json", drop)
    compared = compare(b, a)
    assert [p.name for p in compared.pairs] == [
        "teacher",
        "baseline",
        "online",
        "spaced",
    ]
    assert compared.pairs[-1].why_not == "in B alone"
    assert _row(compared, "spaced")["A: acc1 last\n%"] == "-"


def test_holm_counts_the_networks_that_are_compared(pair):
    """Breaks if the family is not what the table shows. Four p of 1 or less."""
    found = compare(*pair).pairs
    assert [p.p_holm for p in found] == [1.0] * 4


def test_other_compute_is_marked(pair):
    """Breaks if a longer run's gain stands unmarked."""
    a, b = pair
    column = "B minus A, points\n± s.d. [95 % t]"
    assert "†" not in _row(compare(a, b), "online")[column]
    _change(b, "plan.json", lambda p: p["networks"]["online"].update(forward_passes=99))
    compared = compare(a, b)
    assert _row(compared, "online")[column].endswith("†")
    assert "†" not in _row(compared, "spaced")[column]


def test_the_curves_are_the_accuracies_over_updates(pair):
    """Breaks if epochs are drawn for updates, or a run or a colour is mixed up."""
    a, b = map(runs.read, pair)
    axes = curves.figures(a, b)[0].axes[0]
    looks = {(line.get_color(), line.get_linestyle()): line for line in axes.lines}
    assert len(looks) == 8
    rows = [r for r in b.rows if r["phase"] == "eval" and r["network"] == "online"]
    steps = sorted({row["step"] for row in rows})
    means = [
        np.mean([r["eval/student/online/acc1"] for r in rows if r["step"] == step])
        for step in steps
    ]
    line = looks[STUDENT_COLOURS[1], "--"]
    assert line.get_xdata().tolist() == steps
    assert line.get_ydata() == pytest.approx(means)
    colours = {c for c, _ in looks}
    assert set(looks) == set(itertools.product(colours, ("-", "--")))


class _Sources(html.parser.HTMLParser):
    found: list[str]

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_other_file_and_rebuilds_to_the_same_bytes(pair, tmp_path):
    """Breaks if the page asks the network or a clock, or a name is not escaped."""
    out = tmp_path / "out"
    b = pair[1].rename(tmp_path / "a<b>")
    files = {}
    for _ in range(2):
        page.write(compare(pair[0], b), out)
        now = {file.name: file.read_bytes() for file in out.iterdir()}
        assert files in ({}, now)
        files = now
    assert set(files) == {
        "accuracy.png",
        "accuracy.svg",
        "compare.html",
        "compare.json",
        "compare.md",
    }
    text = files["compare.html"].decode()
    sources = _Sources()
    sources.found = []
    sources.feed(text)
    assert sources.found
    assert all(s.startswith("data:image/svg+xml;base64,") for s in sources.found)
    assert "a&lt;b&gt;" in text
    assert "a<b>" not in text
    stored = json.loads(files["compare.json"])
    assert stored["networks"]["online"]["differences"] == pytest.approx(GAINS)
    assert stored["networks"]["online"]["b_minus_a"]["p_least"] == 0.5


def _main(*arguments):
    return command.main(["compare", *map(str, arguments)])


def test_the_command_writes_beside_itself_and_leaves_the_runs_alone(
    pair, tmp_path, monkeypatch, capsys
):
    """Breaks if the default folder is another, or something is written in a run."""
    monkeypatch.chdir(tmp_path)
    before = {f: f.read_bytes() for folder in pair for f in folder.iterdir()}
    assert _main(*pair) == 0
    assert (tmp_path / "compare_first_second" / "compare.html").exists()
    assert {f: f.read_bytes() for folder in pair for f in folder.iterdir()} == before
    assert "compare: compare_first_second/compare.html" in capsys.readouterr().out


def test_mistakes_are_one_line_and_a_code(pair, tmp_path, capsys):
    """Breaks if a mistake ends in a traceback, or writes into a run."""
    a, b = pair
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, code, text in (
        ((a, empty), 4, "holds no run (no config.json)"),
        ((tmp_path / "none", b), 4, "holds no run"),
        ((a,), 2, "1 folder given"),
        ((a, b, b), 2, "3 folders given"),
        ((a, b, "--wrong=1"), 2, "wrong"),
        ((a, b, f"--out={a}"), 2, "is the folder of a run"),
        ((a, b, f"--out={a / 'plan.json'}"), 7, "cannot make"),
    ):
        assert _main(*arguments) == code
        told = capsys.readouterr()
        assert text in told.err
        assert told.err.count("\n") == 1
        assert not told.out
    _change(a, "config.json", lambda content: content.pop("science"))
    with pytest.raises(CheckpointError, match="lacks 'science'"):
        compare(a, b)


def test_help_needs_no_jax():
    """Breaks if the usage text waits for JAX."""
    code = "import sys; from spaced_kd.compare import __main__ as m; "
    code += "assert m.main(['compare', '--help']) == 0; assert 'jax' not in sys.modules"
    root = str(pathlib.Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    assert "python -m spaced_kd.compare" in done.stdout

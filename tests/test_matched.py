"""Accuracies at equal budget: a plan of nine steps, every cost worked out by hand."""

import dataclasses
import json

import pytest

from spaced_kd import results
from spaced_kd.errors import CheckpointError, ConfigError
from spaced_kd.matched import at_equal

# Two epochs of two steps, and by student: online shares the teacher's steps, twice
# makes two updates of a batch, spaced replays two batches at a time.
LOCKSTEP = {
    "kind": "lockstep",
    "teacher": True,
    "students": {"online": 0, "twice": 0},
    "student_updates": {"online": ["method"], "twice": ["hard", "method"]},
    "teacher_refresh": {},
    "passes": {"teacher": [1, 1], "online": [1, 1], "twice": [3, 2]},
}
REPLAY = {"kind": "replay", "student": "spaced", "passes": {"spaced": [2, 1]}}
FLOPS = {"teacher": 100, "online": 10, "twice": 10, "spaced": 10}
UPDATES = {"teacher": 4, "online": 4, "twice": 8, "spaced": 4}
ACC1 = {"teacher": 90.0, "online": 50.0, "twice": 60.0, "spaced": 70.0}


def _plan():
    segments = []
    for epoch in (0, 1):
        span = {"start": 2 * epoch, "stop": 2 * epoch + 2}
        segments += [LOCKSTEP | span, REPLAY | span | {"teacher_step": span["stop"]}]
    networks = {
        name: {"updates": UPDATES[name], "forward_flops": FLOPS[name]} for name in FLOPS
    }
    return {"segments": segments, "networks": networks, "tutor_forward_flops": None}


def _rows(seed):
    """Both epochs: a lockstep tick, a replay, four evaluations."""
    rows = []
    for epoch in (0, 1):
        tick = 6 * epoch

        def row(network, phase, tick, share, epoch=epoch):
            step = UPDATES[network] // 2 * epoch + round(UPDATES[network] // 2 * share)
            about = {"network": network, "phase": phase, "tick": tick, "step": step}
            return about | {"seed": seed, "epoch": step / 2}

        rows += [row(n, "lockstep", tick, 1) for n in ("teacher", "online", "twice")]
        rows.append(row("spaced", "replay", tick + 1, 1))
        for place, network in enumerate(FLOPS):
            prefix = f"eval/{results.metric_prefix(network)}"
            value = {f"{prefix}acc1": ACC1[network] + epoch + 10 * seed}
            rows.append(row(network, "eval", tick + 2 + place, 1) | value)
    return rows


def _write(folder, plan=None, rows=None):
    students = dict.fromkeys(("online", "twice", "spaced"), {})
    config = {"students": students, "num_seeds": 2}
    (folder / "config.json").write_text(json.dumps({"config": config}))
    (folder / "plan.json").write_text(json.dumps(plan or _plan()))
    rows = [*_rows(0), *_rows(1)] if rows is None else rows
    # What evaluations take, 1000 s, is nobody's training.
    seconds = (16.0, 4.0, *[1000.0] * 4, 4.0, 2.0, *[1000.0] * 4)
    timings = [
        {"tick": tick, "phase": "x", "seconds": spent, "images": 1}
        for tick, spent in enumerate(seconds)
    ]
    for name, lines in {"metrics": rows, "timings": timings}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_at_equal_updates_two_updates_a_batch_end_at_half_the_batches(tmp_path):
    """Breaks if batches are taken for updates, or the last evaluation for the best."""
    found = at_equal(_write(tmp_path), "updates")
    assert found.budget == found.teacher == 4
    assert found.complete
    assert {name: at.steps for name, at in found.students.items()} == {
        "online": (4, 4),
        "twice": (4, 4),
        "spaced": (4, 4),
    }
    assert found.students["online"].acc1.per_seed == (51.0, 61.0)
    # Of its first epoch.
    assert found.students["twice"].acc1.per_seed == (60.0, 70.0)
    assert [at.cut_off for at in found.students.values()] == [False, True, False]


def test_flops_price_the_teachers_passes_as_the_teachers(tmp_path):
    """Breaks if a replay's teacher is free, or priced as its student.

    A step: online 3 * 10; twice 6 * 10 and a teacher's pass, 160; spaced 30 + 100.
    """
    found = at_equal(_write(tmp_path), "flops")
    assert found.budget == 4 * 30
    assert found.teacher == 4 * 300
    assert found.students["online"].spent.per_seed == (120.0, 120.0)
    # Nobody else has been evaluated before 120 are spent.
    for name in ("twice", "spaced"):
        assert found.students[name].acc1.per_seed == (None, None)
    among = at_equal(tmp_path, "flops", ["twice", "spaced"])
    assert among.budget == 4 * 130
    assert among.students["spaced"].acc1.per_seed == (71.0, 81.0)
    assert among.students["twice"].spent.per_seed == (320.0, 320.0)


def test_seconds_of_a_shared_tick_are_divided_by_passes_and_seeds(tmp_path):
    """Breaks if evaluations count, or one network is given the whole tick.

    Lockstep: teacher 3, online 3, twice 3 + 4 of 13 parts, over two seeds.
    """
    found = at_equal(_write(tmp_path), "seconds")
    assert found.teacher == pytest.approx(20 * 3 / 13 / 2)
    assert found.budget == pytest.approx(20 * 3 / 13 / 2)
    online, twice, spaced = found.students.values()
    assert online.spent.per_seed == pytest.approx((20 * 3 / 13 / 2,) * 2)
    assert twice.acc1.per_seed == (None, None)
    assert spaced.spent.per_seed == (2.0, 2.0)
    assert spaced.acc1.per_seed == (70.0, 80.0)
    among = at_equal(tmp_path, "seconds", ["twice"])
    assert among.budget == pytest.approx(20 * 7 / 13 / 2)


def test_what_feedback_looks_at_is_part_of_the_budget(tmp_path):
    """Two looks of 3 passes, half of them the teacher's: 2 * 1.5 * (10 + 100) more."""
    plan = _plan()
    plan["networks"]["spaced"] |= {"decision_forward_passes": 6, "decisions": 2}
    looks = [
        {"network": "spaced", "phase": "decide", "tick": tick, "step": step, "seed": 0}
        for tick, step in ((5, 2), (12, 4))
    ]
    prefix = f"eval/{results.metric_prefix('spaced')}"
    last = {"network": "spaced", "phase": "eval", "tick": 13, "step": 4, "seed": 0}
    last |= {f"{prefix}acc1": 80.0, "epoch": 2.0}
    rows = [*_rows(0), looks[1], last]
    _write(tmp_path, rows=rows)
    spent = lambda what: at_equal(tmp_path, what, ["spaced"]).budget
    with (tmp_path / "timings.jsonl").open("a") as log:
        for tick, seconds in ((12, 6.0), (13, 1000.0)):
            about = {"tick": tick, "phase": "x", "seconds": seconds, "images": 1}
            log.write(json.dumps(about) + "\n")
    assert spent("seconds") == 4.0 + 2.0 + 6.0
    plain = spent("flops")
    assert plain == 4 * (3 * 10 + 100)
    _write(tmp_path, plan, [*_rows(0), *looks, last])
    assert spent("flops") == plain + 2 * 1.5 * (10 + 100)


def test_an_unfinished_seed_sets_the_budget_and_says_so(tmp_path):
    """Breaks if the budget is the plan's, or what is missing stands as a number."""
    rows = [*_rows(0), *(row for row in _rows(1) if row["tick"] < 6)]
    found = at_equal(_write(tmp_path, rows=rows), "updates", ["online", "spaced"])
    assert (found.budget, found.complete) == (2, False)
    assert found.students["online"].acc1.per_seed == (50.0, 60.0)
    assert found.cells().notes[0].startswith("UNFINISHED")
    assert not at_equal(_write(tmp_path, rows=_rows(0)), "updates").complete
    nothing = at_equal(_write(tmp_path, rows=[{**rows[0]}]), "updates")
    assert nothing.budget is None
    assert nothing.cells().rows[0] == ("online", "-", "-", "-")


def test_the_table_ranks_and_says_what_is_not_in_the_budget(tmp_path):
    """Breaks if a student without a value stands on top, or attribution goes untold."""
    _write(tmp_path)
    table = at_equal(tmp_path, "updates").cells()
    assert [row[0] for row in table.rows] == ["spaced", "twice", "online"]
    assert "the teacher's training, 4 updates" in table.text()
    assert "cut off" in table.text()
    table = at_equal(tmp_path, "seconds").cells()
    assert [row[0] for row in table.rows] == ["spaced", "online", "twice"]
    assert "attribution" in table.text()


def test_what_was_not_counted_is_refused_with_the_remedy(tmp_path):
    """Breaks if an older plan gives a budget in which the teacher is free."""
    plan = _plan()
    plan["networks"]["teacher"]["forward_flops"] = None
    _write(tmp_path, plan)
    with pytest.raises(CheckpointError, match="how many operations spaced's teacher"):
        at_equal(tmp_path, "flops", ["spaced"])
    for segment in (plan := _plan())["segments"]:
        del segment["passes"]
    _write(tmp_path, plan)
    for what in ("flops", "seconds"):
        with pytest.raises(CheckpointError, match="passes of a step; run the training"):
            at_equal(tmp_path, what)
    assert at_equal(tmp_path, "updates").budget == 4
    with pytest.raises(ConfigError, match="what"):
        at_equal(tmp_path, "epochs")
    with pytest.raises(ConfigError, match="networks"):
        at_equal(tmp_path, "updates", ["nobody"])


def test_excess_tells_updates_and_passes_apart():
    """Breaks if more passes at equal updates go unmarked. 4 * (2 + 2) and 4 * 3."""
    online = results.compute(
        {"students": {"s": {}}, "reference": "", "num_seeds": 1},
        {
            "order": ["s"],
            "networks": {
                "s": {
                    "updates": 4,
                    "forward_passes": 4,
                    "backward_passes": 4,
                    "space_interval_steps": None,
                    "plan": "online",
                }
            },
        },
        [],
    ).students["s"]
    spaced = dataclasses.replace(online, forward_passes=8)
    twice = dataclasses.replace(online, updates=8, forward_passes=8, backward_passes=8)
    assert results.excess(spaced, online) == pytest.approx((0.0, 1 / 3))
    assert results.excess(twice, online) == pytest.approx((1.0, 1.0))
    assert results.excess(online, twice) == pytest.approx((-0.5, -0.5))


def test_a_real_run_spends_what_its_ledger_says(analysed_run):
    """Breaks if the way through a real plan loses or repeats a segment."""
    workdir = analysed_run.workdir
    plan = json.loads((workdir / "plan.json").read_text())
    teacher = plan["networks"]["teacher"]["forward_flops"]
    names = list(analysed_run.results.students)
    for name in names:
        net = plan["networks"][name]
        extra = net["forward_passes"] - net["backward_passes"]
        wanted = 3 * net["backward_passes"] * net["forward_flops"] + extra * teacher
        assert at_equal(workdir, "flops", [name]).budget == wanted
    timings = results.read_log(workdir / "timings.jsonl")
    spent = sum(row["seconds"] for row in timings if row["phase"] != "eval")
    budgets = [at_equal(workdir, "seconds", [name]) for name in names]
    shares = [b.budget for b in budgets] + [budgets[0].teacher]
    assert 2 * sum(shares) == pytest.approx(spent)

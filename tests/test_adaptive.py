"""Feedback in a run: what it measures, that it resumes exactly, what it costs."""

import contextlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from scipy import special

import spaced_kd
from spaced_kd import (
    checks,
    data,
    evaluate,
    experiment,
    intervals,
    ledger,
    probe,
    style,
    train,
)
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.config import student
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError, Interrupted, NonFiniteError
from spaced_kd.models import MODELS
from spaced_kd.parallel import BatchAxis
from spaced_kd.peers import Peers
from spaced_kd.report import interval_figures
from spaced_kd.schedule import Decide, Evaluate
from spaced_kd.writers import read_rows

QUANTUM, LONGEST, TOTAL = 2, 6, 21
PROBE = 40
VARYING = {
    "plan": "spaced",
    "space_interval_epochs": 0.3,
    "final_interval_epochs": 0.9,
}
STUDENTS = {
    "gap": {"interval_schedule": "gap", "gap_growth": 1.3, "gap_images": PROBE},
    "plateau": {"interval_schedule": "plateau", "plateau_tolerance": 0.05},
}
NARROW = {"teacher__model": "narrow_mlp", "student__model": "narrow_mlp"}


def _config(**fields):
    students = {name: student(**VARYING | own) for name, own in STUDENTS.items()}
    return tiny.config(students, **NARROW | fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run that kept a checkpoint of every tick."""
    path = tmp_path_factory.mktemp("adaptive")
    with pytest.MonkeyPatch.context() as patch:
        for name, network in tiny.NETWORKS.items():
            patch.setitem(MODELS, name, network)
        config = _config(checkpoint__keep=1000)
        found = spaced_kd.run(config, path)
        parts = experiment.build(config, data.load(config.data))
        yield SimpleNamespace(
            path=path,
            config=config,
            parts=parts,
            engine=Engine(parts),
            results=found,
            rows=read_rows(path / "metrics.jsonl"),
            plan=json.loads((path / "plan.json").read_text()),
        )


def _manifest(path, tick):
    name = path / "checkpoints" / f"{tick:08d}" / "manifest.json"
    return json.loads(name.read_text())["body"]


def _stand(path, tick):
    """All that the rest of a run follows from."""
    body = _manifest(path, tick)
    log = (path / "metrics.jsonl").read_bytes()[: body["info"]["offsets"]["metrics"]]
    leaves = {name: leaf["sha256"] for name, leaf in body["leaves"].items()}
    return leaves, log, body["info"].get("decisions")


def _start(run, to, tick):
    """Copy a run as it was killed just after `tick` ticks were saved."""
    (to / "checkpoints").mkdir(parents=True)
    for log in ("metrics.jsonl", "timings.jsonl"):
        shutil.copy(run.path / log, to / log)
    name = f"{tick:08d}"
    shutil.copytree(run.path / "checkpoints" / name, to / "checkpoints" / name)


def _shared_engine(monkeypatch, run):
    """Compile nothing anew; the plan is that of a fresh engine."""

    def make(parts):
        run.engine.follow(parts)
        return run.engine

    monkeypatch.setattr(train, "Engine", make)


def _stopping():
    """A request to stop that is there from the beginning."""
    return SimpleNamespace(
        requested="a test", signal="", resume_hint="", acknowledge=lambda: None
    )


def _actual(run):
    """The ticks that the finished run went through."""
    last = max(int(p.name) for p in (run.path / "checkpoints").iterdir())
    saved = _manifest(run.path, last)["info"]["decisions"]
    decisions = {
        name: [intervals.Decision(*own) for own in rows] for name, rows in saved.items()
    }
    return experiment.decided(run.parts, decisions)


def _decided(run, name):
    rows = (r for r in run.rows if r["phase"] == "decide" and r["network"] == name)
    prefix = f"decide/student/{name}/"
    return [{k.removeprefix(prefix): v for k, v in row.items()} for row in rows]


def test_both_controllers_wait_and_replay_in_this_run(whole):
    """Or the tests below would look at a constant interval."""
    for name in STUDENTS:
        replays = {row.get("replay") for row in _decided(whole, name)}
        assert {0, 1} <= replays
        lengths = whole.plan["networks"][name]["intervals_steps"]
        assert len(set(lengths[:-1])) > 1
        assert sum(lengths) == TOTAL and max(lengths) <= LONGEST


@pytest.mark.slow
def test_resuming_from_every_tick_is_bitwise_exact(whole, tmp_path, monkeypatch):
    """Equal state, log and decisions one tick later, from every tick: an equal end."""
    _shared_engine(monkeypatch, whole)
    ticks = _actual(whole).ticks
    assert sum(isinstance(tick, Decide) for tick in ticks) > 10
    for tick in range(1, len(ticks)):
        path = tmp_path / str(tick)
        _start(whole, path, tick)
        loop = train.Loop(whole.parts, path)
        with contextlib.suppress(Interrupted):
            loop.finish(_stopping())
        assert _stand(path, tick + 1) == _stand(whole.path, tick + 1), f"tick {tick}"
        shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1])
def test_a_run_killed_at_a_decision_ends_like_the_whole_one(
    whole, tmp_path, monkeypatch, after
):
    """Just before it or just after: plan, log and results are those of one go."""
    _shared_engine(monkeypatch, whole)
    ticks = _actual(whole).ticks
    places = [k for k, tick in enumerate(ticks) if isinstance(tick, Decide)]
    _start(whole, tmp_path / "run", places[len(places) // 2] + after)
    again = spaced_kd.run(whole.config, tmp_path / "run")
    for name in ("plan.json", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (
            whole.path / name
        ).read_bytes()
    one, other = again.to_dict(), whole.results.to_dict()
    assert one.pop("timing") != other.pop("timing")
    assert one == other


def test_forgotten_decisions_are_noticed(whole, tmp_path, monkeypatch):
    """The control of the tests above."""
    _shared_engine(monkeypatch, whole)
    monkeypatch.setattr(train, "_decisions", lambda saved: {})
    ticks = _actual(whole).ticks
    last = max(k for k, t in enumerate(ticks) if isinstance(t, Decide) and k < 60)
    _start(whole, tmp_path, last)
    with contextlib.suppress(Exception):
        train.Loop(whole.parts, tmp_path).finish(_stopping())
    found = tmp_path / "checkpoints" / f"{last + 1:08d}"
    assert not found.exists() or _stand(tmp_path, last + 1) != _stand(
        whole.path, last + 1
    )


def test_the_gap_is_that_of_the_networks_on_training_images(whole, tmp_path):
    """KL(teacher || student) in float64, of the weights as they were at that tick."""
    networks = whole.parts.networks(BatchAxis())
    train_split = whole.parts.dataset.train
    rows = _first_of_each_class(train_split.label, PROBE)
    template = experiment.state_template(whole.parts)
    found = [row for row in _decided(whole, "gap") if row["tick"] > 20]
    mean, std = whole.parts.spec.mean, whole.parts.spec.std
    images = (train_split.image[rows] / 255.0 - np.array(mean)) / np.array(std)
    for row in found[:3]:
        alone = tmp_path / str(row["tick"])
        _start(whole, alone, row["tick"])
        line = CheckpointLine(alone / "checkpoints", keep=2)
        saved = line.latest()
        assert saved is not None
        (state,) = line.restore(saved, template)
        logs = []
        for network in ("teacher", "gap"):
            logits = (
                networks.model(network)
                .apply(state[network].variables, images.astype(np.float32), train=False)
                .logits
            )
            logs.append(special.log_softmax(np.asarray(logits, np.float64), axis=-1))
        teacher, own = logs
        kl = (np.exp(teacher) * (teacher - own)).sum(-1).mean()
        assert row["measured"] == pytest.approx(kl, rel=1e-4)


def _first_of_each_class(labels, count):
    """Deal the images out class by class, round after round."""
    left = {c: list(np.flatnonzero(labels == c)) for c in sorted(set(labels))}
    rows = []
    while len(rows) < count:
        for own in left.values():
            if own and len(rows) < count:
                rows.append(own.pop(0))
    return sorted(rows)


@pytest.mark.parametrize("count", [1, 7, 25, 40, 99])
def test_the_probe_has_as_many_images_of_every_class(count):
    """Or a gap would be that of a few classes; a short class must not end it."""
    labels = np.array([2, 0, 0, 1, 2, 2, 2, 1, 2, 2, 0, 2] + [1] * 13)
    expected = _first_of_each_class(labels, min(count, len(labels)))
    assert evaluate.balanced_rows(labels, count).tolist() == expected


def test_a_plateau_is_seen_in_the_training_losses_of_the_log(whole):
    """From the rows alone: the mean of the last replay against that before."""
    losses = {}
    before = 0
    for row in whole.rows:
        if row["network"] == "plateau" and row["phase"] == "replay":
            at = row["teacher_step"]
            steps = row["step"] - before
            total, count = losses.get(at, (0.0, 0))
            losses[at] = total + steps * row["student/plateau/loss"], count + steps
            before = row["step"]
    for row in _decided(whole, "plateau"):
        ends = [at for at in losses if at < row["teacher_step"]]
        means = [losses[at][0] / losses[at][1] for at in ends]
        assert row["measured"] == pytest.approx(means[-1], rel=1e-12)
        lengths = [b - a for a, b in zip([0, *ends], ends, strict=False)]
        wanted = lengths[-1]
        if len(means) > 1:
            assert row["threshold"] == pytest.approx(0.95 * means[-2], rel=1e-12)
            if means[-1] > 0.95 * means[-2]:
                wanted = -(-1.5 * lengths[-1] // QUANTUM) * QUANTUM
        assert row["replay"] == (row["waited_steps"] >= wanted)


def test_what_feedback_measures_is_counted(whole):
    """At equal updates, the passes of the probe make an arm dearer."""
    networks = whole.plan["networks"]
    looks = len(_decided(whole, "gap"))
    measuring = -(-looks * 2 * PROBE // 16)
    assert networks["gap"]["decision_forward_passes"] == measuring
    assert networks["gap"]["forward_passes"] == 2 * TOTAL + measuring
    assert networks["gap"]["decisions"] == looks
    assert networks["plateau"]["decision_forward_passes"] == 0
    assert networks["plateau"]["forward_passes"] == 2 * TOTAL
    assert {net["updates"] for net in networks.values()} == {TOTAL}
    costs = ledger.tick_costs(whole.parts)
    paid = {
        t.student: c
        for t, c in zip(whole.parts.ticks, costs, strict=True)
        if isinstance(t, Decide)
    }
    assert paid == {"gap": 2 * PROBE / 16, "plateau": 0.0}


def test_the_table_says_how_intervals_varied(whole):
    lengths = whole.plan["networks"]["gap"]["intervals_steps"]
    table = whole.results.table()
    assert f"gap, {min(lengths)} to {max(lengths)} steps" in table
    assert whole.plan["networks"]["gap"]["space_interval_steps"] == QUANTUM
    assert tuple(lengths) == whole.results.students["gap"].intervals_steps


def test_the_figure_draws_intervals_and_decisions(whole):
    """Every replay a dot, every decision a dot, replays full and waits open."""
    looks = style.line_looks(STUDENTS)
    del looks["teacher"]
    with style.drawing():
        figure = interval_figures.interval_figure(whole.plan, whole.rows, looks)
    assert figure is not None
    top, *panels = figure.axes
    for line, name in zip(top.lines, STUDENTS, strict=True):
        lengths = whole.plan["networks"][name]["intervals_steps"]
        assert list(line.get_ydata()) == lengths
        assert list(line.get_xdata()) == list(np.cumsum(lengths))
    for panel, name in zip(panels, STUDENTS, strict=True):
        rows = _decided(whole, name)
        full, open_, limit = panel.lines
        for line, replay in ((full, 1), (open_, 0)):
            own = [row for row in rows if row.get("replay") == replay]
            assert list(line.get_ydata()) == [row["measured"] for row in own]
        assert len(limit.get_xdata()) == sum("threshold" in row for row in rows)


def test_process_0_decides_for_all(whole, tmp_path, monkeypatch):
    """Two processes that round differently must not train different plans."""
    _shared_engine(monkeypatch, whole)

    class Told(Peers):
        def exchange(self, value):
            return [0.0 if isinstance(value, float) else value]

    ticks = _actual(whole).ticks
    place = next(
        k
        for k, t in enumerate(ticks)
        if isinstance(t, Decide) and t.student == "gap" and t.look.waited
    )
    _start(whole, tmp_path, place)
    with contextlib.suppress(Interrupted):
        train.Loop(whole.parts, tmp_path, Told()).finish(_stopping())
    saved = _manifest(tmp_path, place + 1)["info"]["decisions"]["gap"][-1]
    assert saved[2] == 0.0 and saved[4] is False


def test_a_gap_that_is_not_finite_stops_the_run(whole, tmp_path, monkeypatch):
    """NaN compares as smaller than anything: the student would wait in silence."""
    _shared_engine(monkeypatch, whole)
    monkeypatch.setattr(Engine, "gap", lambda *args: float("nan"))
    place = next(
        k
        for k, t in enumerate(_actual(whole).ticks)
        if isinstance(t, Decide) and t.student == "gap"
    )
    _start(whole, tmp_path, place)
    with pytest.raises(NonFiniteError, match="gap of gap .* nan at tick") as error:
        train.Loop(whole.parts, tmp_path).finish(_stopping())
    assert "\n" not in str(error.value)


def test_the_doctor_takes_a_look_for_an_evaluation(whole):
    """A run with feedback must have an estimate, with its probe's passes in it."""
    decide = next(t for t in whole.parts.ticks if isinstance(t, Decide))
    kind = probe.kind_of(Evaluate("gap"))
    assert probe.kind_of(decide) == kind
    assert probe.estimate([decide], [3.0], {kind: 2.0})["evaluation"] == 6.0


@pytest.mark.slow
def test_streamed_images_are_decided_on_alike(whole, tmp_path):
    """What was read ahead of the old plan must not be trained on under the new one."""
    config = _config(data__input="stream")
    spaced_kd.run(config, tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    decided = [row for row in rows if row["phase"] == "decide"]
    expected = [row for row in whole.rows if row["phase"] == "decide"]
    key = "decide/student/gap/measured"
    gaps, others = ([r[key] for r in rows if key in r] for rows in (decided, expected))
    assert gaps == pytest.approx(others, rel=1e-4)
    assert [r["teacher_step"] for r in decided] == [r["teacher_step"] for r in expected]


STAGE = tiny.config_dict({"first": student(plan="none")}, **NARROW)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_seeds": 2}, ["config.num_seeds=2", "separate runs"]),
        ({"students__gap__method": "ps_kd"}, ["method='ps_kd'", "without feedback"]),
        (
            {"teacher__stage": "before/first", "stages": {"before": STAGE}},
            ["config.teacher.stage", "online"],
        ),
        ({"students__gap__remainder": "drop"}, ["remainder='flush'", "'drop'"]),
        ({"students__gap__replay_fraction": 0.5}, ["replay_fraction=0.5"]),
    ],
)
def test_where_feedback_cannot_decide_it_is_refused_in_one_line(fields, words):
    """A run that averaged seeds, or changed its number of updates, would be no arm."""
    with pytest.raises(ConfigError) as error:
        config = _config(**fields)
        experiment.build(config, data.load(config.data))
    assert "\n" not in str(error.value)
    for word in ["config.students.gap.interval_schedule='gap'", *words]:
        assert word in str(error.value)


def test_a_probe_needs_images_in_memory(whole):
    """Refused before anything is trained, not at the first look."""
    files = whole.parts.dataset._replace(train=SimpleNamespace(label=np.zeros(3)))
    with pytest.raises(ConfigError, match="'gap' measures on training images"):
        checks.feedback(whole.config, files)


def test_replays_leave_no_trace_of_the_assumed_plan(whole):
    """plan.json at the end is what was done: each replay's rows are in the log."""
    for name in STUDENTS:
        ends = np.cumsum(whole.plan["networks"][name]["intervals_steps"])
        trained = {
            row["teacher_step"]
            for row in whole.rows
            if row["phase"] == "replay" and row["network"] == name
        }
        assert sorted(trained) == list(ends)
        segments = [
            s["teacher_step"]
            for s in whole.plan["segments"]
            if s.get("student") == name
        ]
        assert segments == list(ends)

"""The report of finished teachers, of teachers with a method, and of peers.

Plans and origins are written by hand; the numbers mean nothing.
"""

import pytest
from test_report_exits import lockstep, replay

from spaced_kd import model_card, style
from spaced_kd.config import base_config, from_config_dict, student, to_dict
from spaced_kd.report import (
    configuration,
    course,
    curves,
    figures,
    origins,
    teaching,
    timeline,
)
from spaced_kd.report.course import Block, Knowledge


def _config(students=None, **fields):
    """Return the resolved fields of a run on a stage "big" with network "b"."""
    config = base_config()
    config.teacher.model = config.student.model = "mlp"
    for path, value in fields.items():
        node, *parts = config, *path.split("__")
        for part in parts[:-1]:
            node = node[part]
        node[parts[-1]] = value
    big = base_config()
    big.teacher.model, big.student.model = "none", "resnet8"
    big.students = {"b": student(plan="none")}
    if any(name.endswith("__stage") for name in fields):
        config.stages = {"big": big}
    config.students = students or {"on": student(plan="online")}
    return to_dict(from_config_dict(config))


def _plan(teacher=None, segments=()):
    """teacher: its updates, None for a run without one."""
    networks = {} if teacher is None else {"teacher": {"updates": teacher}}
    head = {"steps_per_epoch": 10, "batch_size": 128, "total_steps": 20}
    return head | {"networks": networks, "segments": list(segments)}


DML = {"on": student(method="dml"), "sp": student(method="dml", plan="spaced")}
SENTENCES = {
    "finished": (
        {"teacher__stage": "big/b"},
        0,
        None,
        "One resnet8 teacher that was trained before this run and 1 student on",
    ),
    "tutored": (
        {"teacher__method": "kd", "tutor__stage": "big/b"},
        20,
        None,
        "One mlp teacher that learns from a trained resnet8 (kd) and 1 student on",
    ),
    "self-taught": (
        {"teacher__method": "dlb"},
        20,
        None,
        "One mlp teacher that is its own teacher (dlb) and 1 student on",
    ),
    "plain": ({}, 20, None, "One mlp teacher and 1 student on cifar100, 80 epochs"),
    "peers": (
        {"teacher__model": "none"},
        None,
        DML,
        "2 students on cifar100, each with a peer, 80 epochs",
    ),
    "some peers": (
        {"teacher__model": "none"},
        None,
        {"a": student(plan="none"), "b": student(method="dml")},
        "2 students on cifar100, 1 of which learns with a peer, 80 epochs",
    ),
    "nobody": (
        {"teacher__model": "none"},
        None,
        {"a": student(plan="none")},
        "1 student on cifar100, without a teacher, 80 epochs",
    ),
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_the_head_says_how_the_teacher_came_to_know(kind):
    """A reader would take a born-again teacher for one of this run."""
    fields, updates, students, words = SENTENCES[kind]
    found = teaching.sentence(_config(students, **fields), _plan(updates))
    assert found.startswith(words)


ALONE = [
    lockstep(0, 20, {"base": ["method"]}),
    lockstep(0, 10, {"on": ["method"]}),
    lockstep(10, 20, {"on": ["method"]}),
    replay("sp", 0, 10),
    replay("sp", 10, 20),
]


@pytest.mark.parametrize("name", ["base", "on", "sp"])
def test_steps_of_others_leave_no_gap_where_no_teacher_trains(name):
    """Each is shown as if it were alone: 20 steps, one after another."""
    found = course.lanes(ALONE, name)
    assert (found.lead, found.student) == ([], [Block(0, 0, 20)])


def test_a_finished_teacher_has_no_staircase():
    """The stream's place would be drawn as the updates of a teacher that stands."""
    students = _config(
        {"on": student(), "sp": student(plan="spaced")}, teacher__stage="big/b"
    )["students"]
    looks = style.line_looks(students)
    finished, trained = _plan(0, ALONE), _plan(20, ALONE)
    with style.drawing():
        assert timeline.knowledge_figure(finished, students, looks) is None
        assert timeline.knowledge_figure(trained, students, looks) is not None
    assert course.is_taught_by_finished(finished, students["on"])
    assert not course.is_taught_by_finished(trained, students["on"])


def test_a_finished_teacher_is_a_level_line():
    """One evaluation makes no curve, but students are to be seen against it."""
    rows = [
        {"network": "teacher", "step": 0, "epoch": 0.0, "seed": k, "phase": "eval"}
        | {"eval/teacher/acc1": 80.0 + 2 * k}
        for k in (0, 1)
    ] + [
        {"network": "on", "step": s, "epoch": s / 10, "seed": 0, "phase": "eval"}
        | {"eval/student/on/acc1": 50.0 + s}
        for s in (10, 20)
    ]
    looks = style.line_looks(["on"])
    with style.drawing():
        figure = curves.evaluation_figure(rows, looks, curves.evaluated("acc1"), "%")
    assert figure is not None
    level, curve = figure.axes[0].get_lines()
    assert list(level.get_ydata()) == [81.0, 81.0]
    assert list(curve.get_ydata()) == [60.0, 70.0]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["teacher", "on"]


def test_a_teachers_cross_entropy_is_not_the_whole_of_its_loss():
    """A tutored teacher's loss would pass for the labels' share of it."""
    head = {"network": "teacher", "seed": 0, "phase": "lockstep"}
    rows = [
        head
        | {"step": s, "epoch": s / 10, "teacher/loss": 9.0, "teacher/hard_loss": 2.0}
        | {"teacher/soft_loss": 7.0}
        for s in (10, 20)
    ]
    looks = style.line_looks([])
    for method, hard in (("kd", 2.0), ("hard", 9.0)):
        with style.drawing():
            drawn = figures._training_figures(rows, looks, {"method": method})
        found = {stem: figure for stem, _, figure in drawn}
        (line,) = found["train_hard_loss"].axes[0].get_lines()
        assert set(line.get_ydata()) == {hard}
        assert found["train_soft_loss"] is not None


PEERS = [
    lockstep(0, 10, {"on": ["method"], "both": ["lead", "replay"], "sp": ["lead"]}),
    replay("sp", 0, 10),
]
LANES = {
    "on": ([Block(0, 0, 10)], [Block(0, 0, 10)]),
    "both": ([Block(0, 0, 10)], [Block(0, 0, 10)]),
    "sp": ([Block(0, 0, 10)], [Block(10, 0, 10)]),
}
MET = {
    # From what the peer is before it learns t, after it, after the interval.
    "on": Knowledge(0, 10, 0, 9, False),
    "both": Knowledge(0, 10, 1, 10, False),
    "sp": Knowledge(0, 10, 10, 10, True),
}


@pytest.mark.parametrize("name", LANES)
def test_peers_have_a_lane_each_and_the_peers_progress_below(name):
    settings = _config(DML, teacher__model="none")["students"]["on"]
    assert course.own_lanes(PEERS, name, settings) == LANES[name]
    assert course.knowledge(PEERS, name, settings) == [MET[name]]


ORIGIN = {
    "teacher": {
        "stage": "gen1",
        "network": "b",
        "model": "mlp",
        "folder": "../shared/gen1-abc",
        "updates": 1234,
        "forward_passes": 2468,
        "backward_passes": 1234,
        "acc1_last": [81.25, None],
        "config_fingerprint": "c" * 64,
        "data_fingerprint": "d" * 64,
        "key": "e" * 64,
        "weights": ["f" * 64, "0" * 64],
    }
}


def test_the_origins_are_told_back_to_the_first_generation():
    """A chain would end with its last link, or point to folders that are not there."""
    parent = {"teacher": ORIGIN["teacher"] | {"stage": "gen0", "parents": {}}}
    parent["teacher"] |= {"folder": "../gen0-xyz"}
    chain = {"teacher": ORIGIN["teacher"] | {"parents": parent}}
    tables = origins.tables(chain)
    assert tables is not None
    what, where = (table.rows for table in tables)
    assert what[0] == (
        "teacher of this run: mlp",
        "gen1 / b",
        "1,234",
        "2,468 / 1,234",
        "81.25, -",
    )
    assert what[1][:2] == ("teacher of gen1: mlp", "gen0 / b")
    assert [row[1] for row in where] == ["../shared/gen1-abc", "../shared/gen0-xyz"]
    letters = ("c" * 12, "d" * 12, "e" * 12, f"{'f' * 12}, {'0' * 12}")
    assert where[0][2:] == letters
    assert origins.tables({}) is None


def test_a_stages_fields_are_held_against_the_defaults():
    """They would all be called fields of another version."""
    config = _config(teacher__stage="big/b")
    found = {setting.path: setting for setting in configuration.settings(config)}
    assert found["stages.big.students.b.model"].differs is False
    assert found["stages.big.student.model"].differs
    assert found["stages.big.student.model"].default == '"resnet18"'
    assert not any(s.default == configuration.UNKNOWN for s in found.values())
    # What a finished teacher implies is no choice of the user's.
    assert not found["students.on.teacher_bn"].differs
    assert not found["student.teacher_bn"].differs


CARDS = {
    "finished": (
        {"teacher__stage": "big/b"},
        None,
        "trained before, as `big/b` (plan",
    ),
    "peer": (
        {"teacher__model": "none"},
        {"on": student(method="dml", dml_peer="resnet8")},
        "Learned with a resnet8, its peer, which is not in this file (plan",
    ),
    "same peer": (
        {"teacher__model": "none"},
        {"on": student(method="dml")},
        "Learned with a mlp, its peer",
    ),
    "shake": (
        {"teacher__stage": "big/b"},
        {"on": student(method="shake")},
        "Learned with a head, not in this file, on a resnet8 that was trained before",
    ),
    "self-taught": (
        {"teacher__model": "none"},
        {"on": student(method="ps_kd")},
        "Its own teacher: it learned from what it had answered before (plan",
    ),
}


@pytest.mark.parametrize("kind", CARDS)
def test_the_card_says_from_whom_the_weights_learned(kind):
    fields, students, words = CARDS[kind]
    config = _config(students, **fields)
    assert words in model_card._sentence({}, config, config["students"]["on"])

"""The report of runs whose networks teach themselves, and of networks with exits.

Plans and rows are written by hand; the numbers mean nothing.
"""

import html.parser
import json

import drawn_texts
import numpy as np
import pytest
from matplotlib.colors import same_color

from spaced_kd import report, results, style
from spaced_kd.config import base_config, from_config_dict, student, to_dict
from spaced_kd.exits import ExitResult
from spaced_kd.report import (
    course,
    curves,
    exit_figures,
    figures,
    teaching,
    timeline,
)
from spaced_kd.spread import Spread

STEPS_PER_EPOCH = 10

# Two epochs of 10 steps, an interval of one; "double" trains for four.
STUDENTS = {
    "plain": {"plan": "none", "method": "hard"},
    "online": {"plan": "online"},
    "double": {"plan": "online", "epochs_factor": 2.0},
    "interleaved": {"plan": "interleaved"},
    "spaced": {"plan": "spaced"},
}
UPDATES = {"plain": 20, "online": 20, "double": 40, "interleaved": 40, "spaced": 40}
BOTH = {"plain": ["method"], "online": ["method"], "double": ["method"]}
BOTH |= {"interleaved": ["hard", "method"], "spaced": ["hard"]}


def lockstep(start: int, stop: int, updates: dict, teacher: bool = False) -> dict:
    """Return a segment of `plan.json`; updates: student -> kinds, a batch."""
    segment = {"kind": "lockstep", "start": start, "stop": stop, "teacher": teacher}
    return segment | {
        "students": dict.fromkeys(updates, 0),
        "student_updates": updates,
    }


def replay(name: str, start: int, stop: int) -> dict:
    """Return the replay of what has just come."""
    segment = {"kind": "replay", "student": name, "teacher_step": stop}
    return segment | {"start": start, "stop": stop}


SEGMENTS = [
    lockstep(0, 10, BOTH),
    replay("spaced", 0, 10),
    lockstep(10, 20, BOTH),
    replay("spaced", 10, 20),
    lockstep(20, 40, {"double": ["method"]}),
]


def make_plan(names=STUDENTS, segments=SEGMENTS) -> dict:
    """Return a sample `plan.json` of a run without a teacher."""
    networks = {
        name: {
            "updates": UPDATES[name],
            "forward_passes": UPDATES[name],
            "backward_passes": UPDATES[name],
            "space_interval_steps": 10 if name == "spaced" else None,
            "plan": STUDENTS[name]["plan"],
        }
        for name in names
    }
    return {
        "steps_per_epoch": STEPS_PER_EPOCH,
        "batch_size": 128,
        "total_steps": 40,
        "order": list(names),
        "networks": networks,
        "segments": segments,
    }


def make_config(names=STUDENTS, seeds: int = 2) -> dict:
    """Return the "config" of a sample `config.json`."""
    config = base_config()
    config.num_epochs, config.num_seeds = 2, seeds
    config.teacher.model = "none"
    config.student.model, config.student.method = "resnet18_branches", "self_kd"
    config.student.space_interval_epochs = 1.0
    config.reference = "online"
    for name in names:
        config.students[name] = student(**STUDENTS[name])
    return to_dict(from_config_dict(config))


def values_of(name: str, seed: int, epoch: float) -> dict[str, float]:
    """Return an evaluation of a network with three exits, by a formula."""
    base = 10.0 * (1 + list(STUDENTS).index(name)) + seed + epoch
    values = {"acc1": base + 3, "acc5": base + 4, "loss": 1 / base}
    for number, gain in ((3, 2.0), (2, 1.0), (1, 0.0)):
        values[f"exit{number}/acc1"] = base + gain
    for number in (2, 1):
        values[f"exit{number}/deepest_kl"] = 0.1 * (3 - number) + epoch
        values[f"exit{number}/deepest_agreement"] = 90.0 - 10 * (3 - number) + epoch
    return values | {"ensemble/acc1": base + 3}


def make_rows(plan: dict, seeds: int = 2) -> list[dict]:
    """Return sample rows: a step of training and an evaluation every epoch."""
    rows = []
    for seed in range(seeds):
        for name, ledger in plan["networks"].items():
            for step in range(10, ledger["updates"] + 1, 10):
                head = {"tick": len(rows), "seed": seed, "network": name, "step": step}
                head["epoch"] = step / STEPS_PER_EPOCH
                losses = {"loss": 1.0, "hard_loss": 1.0}
                own = {f"student/{name}/{key}": v for key, v in losses.items()}
                rows.append(head | {"phase": "lockstep"} | own)
                values = values_of(name, seed, head["epoch"])
                own = {f"eval/student/{name}/{key}": v for key, v in values.items()}
                rows.append(head | {"phase": "eval"} | own)
    return rows


def write(folder, config: dict, plan: dict, rows: list[dict]) -> str:
    """Write a workdir, build its report and return the page."""
    described = {"config": config, "fingerprint": "ab" * 32}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    report.build(folder)
    return (folder / "report.html").read_text()


class Page(html.parser.HTMLParser):
    """The ids, texts and table cells of a page, by section."""

    def __init__(self, text: str):
        super().__init__()
        self.sections: dict[str, list[str]] = {"": []}
        self.cells: dict[str, list[list[str]]] = {}
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        if tag == "section":
            self.sections[dict(attrs)["id"]] = []
        elif tag == "tr":
            self.cells.setdefault(list(self.sections)[-1], []).append([])

    def handle_data(self, data):
        section = list(self.sections)[-1]
        self.sections[section].append(data)
        if self._tag in ("td", "th") and data.strip():
            self.cells[section][-1].append(data)

    def words(self, section: str) -> str:
        return " ".join(" ".join(self.sections[section]).split())


@pytest.fixture
def no_pictures(monkeypatch):
    """Draw figures but do not save them, which is what takes the time."""
    monkeypatch.setattr(style, "save", lambda figure, stem: b"")


@pytest.fixture
def page(tmp_path, no_pictures) -> Page:
    """The page of a finished run without a teacher."""
    plan = make_plan()
    return Page(write(tmp_path, make_config(), plan, make_rows(plan)))


def test_without_a_teacher_the_page_says_nothing_of_one(page):
    """Breaks if a model called "none" teaches, or a gap to no teacher is shown."""
    every = " ".join(page.words(section) for section in page.sections)
    assert "none teacher" not in every
    assert "gap" not in page.sections and "exits" in page.sections
    head = page.words("")
    assert "5 students on cifar100, 4 of which teach themselves, 2 epochs" in head
    assert "Epochs of the stream: double 4." in head
    assert "share the one teacher" not in every
    assert "offline it is the finished teacher" not in every


def test_the_table_of_exits_is_that_of_the_results(page, tmp_path):
    """Breaks if exits are swapped, or the quoted one is not the one marked."""
    titles, *body = page.cells["exits"]
    saved = results.load(tmp_path)
    rows = [(row[0], row[1].removesuffix(" (quoted)")) for row in body]
    expected = [(n, e) for n, net in saved.students.items() for e in net.exits]
    assert rows == expected and len(rows) == 5 * 4
    for row in body:
        assert ("(quoted)" in row[1]) == (
            row[1].startswith("exit3" if row[0] == "plain" else "ensemble")
        )
        exit_name = row[1].removesuffix(" (quoted)")
        ends = [
            values_of(row[0], s, UPDATES[row[0]] / 10)[f"{exit_name}/acc1"]
            for s in (0, 1)
        ]
        assert row[2] == f"{np.mean(ends):.2f} ± {np.std(ends, ddof=1):.2f}"
    assert "deepest" in titles[5]


def test_the_ledger_has_no_row_for_a_teacher_and_adds_up(page):
    """Breaks if the sum counts a network that is not there."""
    _, *body = page.cells["ledger"]
    assert [row[0] for row in body] == [*STUDENTS, "all together"]
    assert [int(row[1]) for row in body] == [*UPDATES.values(), 160]
    assert [row[2] for row in body] == ["2", "2", "4", "4", "4", "16"]


def test_networks_with_one_exit_have_no_section_on_exits(tmp_path, no_pictures):
    """Breaks if an empty heading appears in every other run."""
    plan = make_plan()
    rows = [
        {k: v for k, v in row.items() if "exit" not in k and "ensemble" not in k}
        for row in make_rows(plan)
    ]
    page = Page(write(tmp_path, make_config(), plan, rows))
    assert "exits" not in page.sections and "of which teach" in page.words("")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["online"], "1 student on cifar100, its own teacher, 2 epochs"),
        (["online", "spaced"], "2 students on cifar100, each its own teacher, "),
        (["plain", "online"], ", 1 of which teaches itself, "),
        (["plain"], "1 student on cifar100, without a teacher, 2 epochs"),
    ],
)
def test_the_head_says_who_teaches(names, words):
    """Breaks if a run of one student, or of labels alone, reads wrongly."""
    students = {name: make_config()["students"][name] for name in names}
    config = make_config() | {"students": students}
    assert words in teaching.sentence(config, make_plan(names))


def lanes_of(name: str, segments=SEGMENTS) -> course.Lanes:
    return course.own_lanes(segments, name, make_config()["students"][name])


def test_lanes_show_labels_above_and_the_whole_loss_below():
    """Breaks if steps on the labels are drawn as distillation, or others' show up."""
    block = course.Block
    whole = [block(0, 0, 20)]
    assert lanes_of("plain") == course.Lanes(whole, [])
    assert lanes_of("online") == course.Lanes([], whole)
    assert lanes_of("double") == course.Lanes([], [block(0, 0, 40)])
    assert lanes_of("interleaved") == course.Lanes(whole, whole)
    assert lanes_of("spaced") == course.Lanes(
        lead=[block(0, 0, 10), block(20, 10, 20)],
        student=[block(10, 0, 10), block(30, 10, 20)],
    )


def test_a_batch_without_a_step_on_the_labels_is_left_out_of_the_upper_lane():
    """Breaks if the released trigger's missing step is drawn, or leaves a hole."""
    segments = [
        lockstep(0, 9, {"spaced": ["hard"]}),
        lockstep(9, 10, {"online": ["method"]}),
        replay("spaced", 0, 10),
        lockstep(10, 19, {"spaced": ["hard"]}),
    ]
    assert lanes_of("spaced", segments) == course.Lanes(
        lead=[course.Block(0, 0, 9), course.Block(19, 10, 19)],
        student=[course.Block(9, 0, 10)],
    )


def test_a_teacher_that_has_ended_gets_no_more_steps():
    """Breaks if a student's longer training is drawn in the teacher's lane."""
    segments = [
        lockstep(0, 20, {"plain": ["method"]}, teacher=True),
        lockstep(20, 40, {"plain": ["method"]}),
    ]
    lanes = course.lanes(segments, "plain")
    assert lanes == course.Lanes([course.Block(0, 0, 20)], [course.Block(0, 0, 40)])
    assert course.lanes(segments, "other").end == 20


def test_each_student_has_the_lanes_of_its_own_kind():
    """Breaks if a self-taught student beside a teacher is drawn as its student."""
    plan = make_plan(["online", "spaced"])
    plan["networks"]["teacher"] = plan["networks"]["online"]
    students = make_config()["students"]
    students = {
        "online": students["online"] | {"method": "kd"},
        "spaced": students["spaced"],
    }
    with style.drawing():
        looks = style.line_looks(students)
        figure = timeline.timeline_figure(plan, students, looks)
    named = [[t.get_text() for t in axes.get_yticklabels()] for axes in figure.axes]
    assert named == [["teacher", "student"], ["labels", "whole loss"]]


def test_knowledge_is_how_many_batches_the_network_had_met():
    """Breaks if t is not counted among the batches met when t is learned."""
    students = make_config()["students"]

    def met(name):
        pieces = course.knowledge(SEGMENTS, name, students[name])
        return {
            piece.start + 1 + i: piece.first + (0 if piece.frozen else i)
            for piece in pieces
            for i in range(piece.stop - piece.start)
        }

    assert met("plain") == {}
    assert met("online") == met("interleaved") == {t: t for t in range(1, 21)}
    assert met("double") == {t: t for t in range(1, 41)}
    assert met("spaced") == {t: -(-t // 10) * 10 for t in range(1, 21)}


@pytest.mark.parametrize(
    ("teacher", "methods", "label"),
    [
        (False, ["self_kd", "self_kd"], "batches met when t was learned"),
        (True, ["kd", "kd"], "updates of the teacher that taught t"),
        (True, ["kd", "self_kd"], "updates of t's teacher, or batches met at t"),
    ],
)
def test_the_axis_says_whose_knowledge_it_is(teacher, methods, label):
    """Breaks if batches met are called a teacher's updates."""
    plan, settings = make_plan(["online", "spaced"]), make_config()["students"]
    if teacher:
        plan["networks"]["teacher"] = {"updates": 20}
    students = {
        name: settings[name] | {"method": method}
        for name, method in zip(("online", "spaced"), methods, strict=True)
    }
    with style.drawing():
        looks = style.line_looks(students)
        figure = timeline.knowledge_figure(plan, students, looks)
    assert figure.axes[0].get_ylabel() == label


@pytest.fixture
def drawn():
    """The sample's figures on exits: stem -> figure."""
    config, plan = make_config(), make_plan()
    rows = make_rows(plan)
    networks = results.compute(config, plan, rows).networks
    with style.drawing():
        found = figures.every_figure(config, plan, rows, networks)["exits"]
    return {stem: figure for stem, _, figure in found}


def test_the_last_accuracies_stand_over_their_exits(drawn):
    """Breaks if exits are mirrored, bars are not one s.d., or untrained ones count."""
    axes = drawn["exits_last"].axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "3", "ensemble"]
    ticks = axes.get_xticks()
    containers = iter(axes.containers)
    for name in STUDENTS:
        ends = [values_of(name, s, UPDATES[name] / 10) for s in (0, 1)]
        for exits in (["exit3", "exit2", "exit1"], ["ensemble"]):
            if name == "plain":  # Nothing trains its branches.
                exits = [exit_name for exit_name in exits if exit_name == "exit3"]
            if not exits:
                continue
            line, _, (bars,) = next(containers)
            where = [int(e[4:]) - 1 if e != "ensemble" else 3 for e in exits]
            assert np.abs(line.get_xdata() - ticks[where]).max() < 0.3
            both = np.array([[end[f"{e}/acc1"] for end in ends] for e in exits])
            got = np.asarray(line.get_ydata(), float)
            np.testing.assert_allclose(got, both.mean(1))
            for segment, values in zip(bars.get_segments(), both, strict=True):
                half = (segment[1, 1] - segment[0, 1]) / 2
                assert half == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("stem", "metric", "exits"),
    [
        ("exits_accuracy", "acc1", ["exit3", "exit2", "exit1", "ensemble"]),
        ("exits_kl", "deepest_kl", ["exit2", "exit1"]),
        ("exits_agreement", "deepest_agreement", ["exit2", "exit1"]),
    ],
)
def test_every_self_taught_network_has_a_panel_with_its_exits(
    stem, metric, exits, drawn
):
    """Breaks if a network's epochs or exits are another's."""
    panels = drawn[stem].axes
    taught = [name for name in STUDENTS if name != "plain"]
    assert [axes.get_title(loc="left") for axes in panels] == taught
    for name, axes in zip(taught, panels, strict=True):
        epochs = np.arange(1, UPDATES[name] // 10 + 1)
        for exit_name, line in zip(exits, axes.lines, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), epochs)
            key = f"{exit_name}/{metric}"
            expected = [
                np.mean([values_of(name, s, e)[key] for s in (0, 1)]) for e in epochs
            ]
            np.testing.assert_allclose(line.get_ydata(), expected)


def test_an_exit_has_the_same_colour_in_every_figure(drawn):
    """Breaks if the deepest exit's colour goes to a branch where it is missing."""
    looks = exit_figures.exit_looks(["exit3", "exit2", "exit1", "ensemble"])
    assert len({str(look) for look in looks.values()}) == 4
    for stem, exits in (
        ("exits_accuracy", ["exit3", "exit2", "exit1", "ensemble"]),
        ("exits_kl", ["exit2", "exit1"]),
    ):
        lines = drawn[stem].axes[0].lines
        for exit_name, line in zip(exits, lines, strict=True):
            assert same_color(line.get_color(), looks[exit_name]["color"])


@pytest.mark.parametrize(("count", "depth"), [(1, 2), (8, 12)])
def test_no_text_is_cut_off_or_covers_another(count, depth):
    """Breaks if many networks of long names, or twelve exits, spoil a figure."""
    names = [f"spaced_{i}_with_the_longest_name_that_is_allowed" for i in range(count)]
    rows, networks = [], {}
    flat = Spread.of([50.0, 60.0])
    found = ExitResult(flat, flat, flat, flat, flat)
    for name in names:
        exits = [f"exit{n}" for n in range(depth, 0, -1)] + ["ensemble"]
        networks[name] = dict.fromkeys(exits, found)
        keys = {f"eval/student/{name}/{e}/acc1": float(i) for i, e in enumerate(exits)}
        rows += [
            {"network": name, "phase": "eval", "seed": 0, "step": step, "epoch": step}
            | keys
            for step in (1, 2)
        ]
    with style.drawing():
        looks = style.line_looks(names)
        for figure in (
            exit_figures.last_figure(networks, looks),
            exit_figures.course_figure(rows, networks, "acc1", "top-1 accuracy, %"),
        ):
            drawn_texts.assert_readable(figure)


def test_a_curve_with_pauses_stays_where_it_was_measured():
    """Breaks if a replay's first point is stretched over the steps before it."""
    head = {"network": "spaced", "seed": 0}
    rows = [
        head | {"phase": phase, "step": step, "epoch": step / 10} | values
        for phase, step, values in (
            ("lockstep", 20, {"student/spaced/loss": 3.0}),
            ("replay", 30, {"student/spaced/loss": 3.0, "student/spaced/soft": 1.0}),
            ("replay", 40, {"student/spaced/loss": 3.0, "student/spaced/soft": 2.0}),
        )
    ]
    with style.drawing():
        looks = {"spaced": style.line_looks(["spaced"])["spaced"]}
        figure = curves.training_figure(rows, looks, lambda _: "soft", "loss")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [2.5, 3.5])


def test_the_second_half_is_each_networks_own(no_pictures):
    """Breaks if networks of fewer epochs vanish from the enlarged figure."""
    plan = make_plan(["plain", "double"])
    rows = make_rows(plan, seeds=1)
    with style.drawing():
        looks = style.line_looks(["plain", "double"])
        acc1 = curves.evaluated("acc1")
        figure = curves.evaluation_figure(rows, looks, acc1, "%", from_half=True)
    found = [line.get_xdata().tolist() for line in figure.axes[0].lines]
    assert found == [[1, 2], [2, 3, 4]]

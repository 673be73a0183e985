"""The report: complete, offline, without scripts, and the same from the same files.

The sample run is made of formulas and seeded noise; its numbers mean nothing.
"""

import base64
import dataclasses
import html.parser
import json
import math
import random
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import drawn_texts
import matplotlib
import numpy as np
import pytest

from spaced_kd import report, results, style, writers
from spaced_kd.config import (
    StudentConfig,
    base_config,
    from_config_dict,
    student,
    to_dict,
)
from spaced_kd.errors import StorageError
from spaced_kd.report import configuration, course, curves, figures, timeline

STEPS_PER_EPOCH = 40
CHUNK = 20
BATCH_SIZE = 128

INTERVALS = {"online": None, "spaced_0_5": 20, "spaced_1_5": 60, "offline": None}
PLANS = {"none": "none", "online": "online", "offline": "offline"}


def plan_of(name: str) -> str:
    """Return the plan that a sample student's name stands for."""
    return PLANS.get(name, "spaced")


def lockstep(start: int, stop: int, students: dict[str, int]) -> dict:
    """Return a segment in which the teacher trains too; students: name -> lag."""
    updates = dict.fromkeys(students, ["method"])
    segment = {"kind": "lockstep", "start": start, "stop": stop, "teacher": True}
    return segment | {"students": students, "student_updates": updates}


def make_segments(students: dict[str, int | None], total: int) -> list[dict]:
    """Write the plan of the sample down: who trains on which batches, in order."""
    borders = {0, total}
    for interval in students.values():
        borders |= set(range(0, total + 1, interval)) if interval else set()
    edges = sorted(borders)
    together = {n: 0 for n in students if plan_of(n) in ("none", "online")}
    segments = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        segments.append(lockstep(start, stop, together))
        for name, interval in students.items():
            replay = {"kind": "replay", "student": name, "teacher_step": stop}
            if interval and stop % interval == 0:
                segments.append(replay | {"start": stop - interval, "stop": stop})
            if plan_of(name) == "offline" and stop == total:
                segments.append(replay | {"start": 0, "stop": total})
    return segments


def updates_of(segments: list[dict], network: str) -> int:
    """Count a network's updates in a plan."""
    return sum(
        s["stop"] - s["start"]
        for s in segments
        if (s["kind"] == "lockstep" and network in ("teacher", *s["students"]))
        or s.get("student") == network
    )


def make_plan(students: dict[str, int | None], epochs: int) -> dict:
    """Return a sample `plan.json`."""
    total = epochs * STEPS_PER_EPOCH
    segments = make_segments(students, total)
    networks = {}
    for name in ("teacher", *students):
        updates = updates_of(segments, name)
        replayed = sum(
            s["stop"] - s["start"] for s in segments if s.get("student") == name
        )
        networks[name] = {
            "updates": updates,
            "forward_passes": updates + replayed,
            "backward_passes": updates,
            "space_interval_steps": students.get(name),
            "plan": None if name == "teacher" else plan_of(name),
        }
    return {
        "steps_per_epoch": STEPS_PER_EPOCH,
        "batch_size": BATCH_SIZE,
        "total_steps": total,
        "networks": networks,
        "segments": segments,
    }


def make_config(students: dict[str, int | None], epochs: int, seeds: int) -> dict:
    """Return the "config" of a sample `config.json`."""
    config = base_config()
    config.num_epochs, config.num_seeds = epochs, seeds
    for name, interval in students.items():
        epochs_of_interval = (interval or 60) / STEPS_PER_EPOCH
        config.students[name] = student(
            plan=plan_of(name), space_interval_epochs=epochs_of_interval
        )
    return to_dict(from_config_dict(config))


def make_rows(plan: dict, seeds: int, until: float = 1.0) -> list[dict]:
    """Return sample rows: saturating curves with seeded noise, which mean nothing."""
    rows = []
    for seed in range(seeds):
        for rank, (name, ledger) in enumerate(plan["networks"].items()):
            noise = random.Random(f"{seed} {name}")
            last = int(ledger["updates"] * until)
            for step in range(CHUNK, last + 1, CHUNK):
                head = {"tick": len(rows), "seed": seed, "network": name, "step": step}
                head |= {"teacher_step": step, "epoch": step / STEPS_PER_EPOCH}
                rise = 1 - math.exp(-step / 150 - 0.02 * rank)
                rows.append(head | _train_values(name, rise, noise))
                if step % STEPS_PER_EPOCH == 0 or step == ledger["updates"]:
                    rows.append(head | _eval_values(name, rise, noise))
    return rows


def _train_values(name: str, rise: float, noise: random.Random) -> dict:
    loss = 4.6 - 4.5 * rise + noise.uniform(0.0, 0.1)
    if name == "teacher":
        return {"phase": "lockstep", "teacher/loss": loss, "teacher/acc1": 90 * rise}
    return {
        "phase": "replay" if plan_of(name) == "spaced" else "lockstep",
        f"student/{name}/loss": 0.7 * loss + 0.1,
        f"student/{name}/hard_loss": loss,
        f"student/{name}/soft_loss": 0.5 * loss,
        f"student/{name}/acc1": 88 * rise,
    }


def _eval_values(name: str, rise: float, noise: random.Random) -> dict:
    group = name if name == "teacher" else f"student/{name}"
    acc1 = 1 + 74 * rise + noise.gauss(0, 0.4)
    values = {"acc1": acc1, "acc5": min(100, acc1 + 18), "loss": 4.6 - 3.4 * rise}
    if name != "teacher":
        values |= {
            "teacher_kl": 1.2 * math.exp(-2 * rise) + noise.uniform(0, 0.03),
            "teacher_agreement": 40 + 45 * rise + noise.gauss(0, 0.4),
            "teacher_acc1": 2 + 74.5 * rise,
        }
    return {"phase": "eval"} | {f"eval/{group}/{k}": v for k, v in values.items()}


def make_workdir(
    folder: Path,
    students: dict[str, int | None],
    *,
    epochs: int = 12,
    seeds: int = 3,
    until: float = 1.0,
) -> Path:
    """Write the files of a sample run."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(students, epochs)
    config = {
        "config": make_config(students, epochs, seeds),
        "fingerprint": "ab" * 32,
        "data_fingerprint": "cd" * 32,
    }
    env = {
        "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
        "devices": {"used": 1, "kind": "TestDevice"},
        "command": "test",
        "WANDB_TOKEN": "hunter2",
        "starts": [{"time": "2000-01-01T00:00:00", "tick": 0}],
    }
    timings = [{"tick": 0, "seconds": 90.0, "images": 1_800_000, "phase": "lockstep"}]
    rows = make_rows(plan, seeds, until)
    for name, content in {"config": config, "plan": plan, "env": env}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    for name, lines in {"metrics": rows, "timings": timings}.items():
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: elements, attributes, texts, tables."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *(name for name, _ in attrs)))
        found = dict(attrs)
        self.sources += [found[name] for name in ("src", "href") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell))
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A finished sample run of four students and three seeds, with its report."""
    folder = make_workdir(tmp_path_factory.mktemp("run") / "a", INTERVALS)
    report.build(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A finished sample run of one student, one seed and two evaluations."""
    folder = tmp_path_factory.mktemp("small") / "a"
    make_workdir(folder, {"spaced_1": 40}, epochs=2, seeds=1)
    report.build(folder)
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    """Draw figures but do not save them, which is what takes the time."""
    monkeypatch.setattr(style, "save", lambda figure, stem: b"")


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


def test_every_section_is_there(workdir):
    """Breaks if a part of the report is lost."""
    assert page_of(workdir).ids == [
        "results", "accuracy", "training", "timeline", "gap", "ledger",
        "configuration", "environment", "files",
    ]  # fmt: skip


def test_the_page_needs_no_network_and_runs_no_code(workdir):
    """Breaks if the file cannot be opened offline, or could execute what it shows."""
    text = (workdir / "report.html").read_text()
    page = page_of(workdir)
    tags = {tag for tag, *_ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "base"}
    assert page.sources and all(s.startswith("data:image/svg") for s in page.sources)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'content="{policy}"' in text
    assert "url(" not in text and "@import" not in text
    assert not any(
        name.startswith("on") for _, *names in page.elements for name in names
    )


def test_every_picture_is_in_the_page_and_in_the_folder(workdir):
    """Breaks if the page shows other pictures than the files beside it."""
    figures = workdir / "figures"
    shown = {base64.b64decode(s.split(",")[1]) for s in page_of(workdir).sources}
    assert shown == {path.read_bytes() for path in figures.glob("*.svg")}
    stems = {path.stem for path in figures.glob("*.svg")}
    assert stems == {path.stem for path in figures.glob("*.png")}
    assert stems >= {
        "test_accuracy", "train_hard_loss", "timeline_start", "timeline_whole",
        "knowledge", "gap_kl", "gap_agreement", "gap_accuracy",
    }  # fmt: skip
    for svg in shown:
        root = ElementTree.fromstring(svg)
        tags = {element.tag.split("}")[1] for element in root.iter()}
        assert "script" not in tags and "image" not in tags


def test_numbers_in_the_table_equal_results_json(workdir):
    """Breaks if the page rounds or computes differently from the saved results."""
    saved = json.loads(results.load(workdir).save(workdir).read_text())
    titles, *body = page_of(workdir).tables[0]
    assert [row[0] for row in body] == ["teacher", *INTERVALS]
    for row in body:
        name = row[0]
        net = saved["teacher"] if name == "teacher" else saved["students"][name]
        for column, key in ((5, "acc1_last"), (6, "acc1_mean_last5"), (7, "acc1_best")):
            assert row[column] == f"{net[key]['mean']:.2f} ± {net[key]['std']:.2f}"
        assert row[3] == f"{net['updates']:,}"
        difference = net["acc1_last_minus"].get("online")
        if difference is None:
            assert name in ("teacher", "online") and row[8] == "-"
        else:
            low, high = difference["ci95"]
            shown = f"{difference['mean']:+.2f} ± {difference['std']:.2f}"
            assert row[8] == f"{shown} [{low:+.2f}, {high:+.2f}]"
    assert "optimistic" in titles[7]


def test_the_ledger_adds_up(workdir):
    """Breaks if a network is left out of the sum, or passes are swapped."""
    plan = json.loads((workdir / "plan.json").read_text())
    _, *body, total = page_of(workdir).tables[1]
    numbers = [[int(row[i].replace(",", "")) for i in (1, 3, 4)] for row in body]
    keys = ("updates", "forward_passes", "backward_passes")
    assert numbers == [[net[k] for k in keys] for net in plan["networks"].values()]
    sums = [f"{sum(column):,}" for column in zip(*numbers, strict=True)]
    assert [total[i] for i in (1, 3, 4)] == sums


def test_the_same_files_give_the_same_bytes_in_another_place(small, tmp_path):
    """Breaks if dates, paths, hash order or random ids get into the output."""
    # With all outputs of the first time: the second must not depend on them.
    other = shutil.copytree(small, tmp_path / "elsewhere")
    made = [*(p.relative_to(small) for p in small.rglob("figures/*.*"))]
    made.append(Path("report.html"))
    assert len(made) > 15
    for path in made[::2]:
        (other / path).unlink()
    report.build(other)
    for path in made:
        assert (small / path).read_bytes() == (other / path).read_bytes(), path


def test_one_seed_and_two_points_give_a_report_without_bands(small):
    """Breaks if a short run with one seed cannot be reported."""
    titles, teacher, student = page_of(small).tables[0]
    assert "±" not in "".join(teacher + student)
    assert not any("minus" in title for title in titles)
    rows = writers.read_rows(small / "metrics.jsonl")
    seeds = curves.tracks(rows, curves.evaluated("acc1")("spaced_1"))
    assert curves.aggregate(seeds).std is None


def test_a_run_without_a_single_row_has_a_report(small, tmp_path, no_pictures):
    """Breaks if a report can only be made once training has begun."""
    for name in ("config.json", "plan.json"):
        shutil.copy(small / name, tmp_path / name)
    report.build(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "No network has been evaluated twice yet" in text
    assert "unfinished" in text


def test_an_unfinished_run_is_marked_as_such(tmp_path, no_pictures):
    """Breaks if preliminary numbers pass for results."""
    make_workdir(tmp_path, {"spaced_1": 40}, epochs=4, until=0.5)
    report.build(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert 'class="state unfinished"' in text and 'class="state complete"' not in text
    assert "are preliminary" in text
    assert [row[0] for row in page_of(tmp_path).tables[0][1:]] == [
        "teacher *",
        "spaced_1 *",
    ]


HOSTILE = "--><script>alert(1)</script><img src=x onerror=y>\"'&$\\x{1}$"


def _poison(value):
    """Replace every text but those that the run's structure rests on."""
    if isinstance(value, dict):
        return {key: _poison(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_poison(entry) for entry in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_strings_add_no_element_and_no_attribute(small, tmp_path, monkeypatch):
    """Breaks if a name or value of the run is taken for HTML anywhere."""
    described = json.loads((small / "config.json").read_text())
    student = described["config"]["students"].pop("spaced_1")
    poisoned = {"fingerprint": HOSTILE, "config": _poison(described["config"])}
    poisoned["config"]["students"] = {HOSTILE: _poison(student) | {"plan": HOSTILE}}
    (tmp_path / "config.json").write_text(json.dumps(poisoned))
    env = {HOSTILE: {HOSTILE: [HOSTILE]}, "starts": [HOSTILE]}
    (tmp_path / "env.json").write_text(json.dumps(env))
    for name in ("plan.json", "metrics.jsonl"):
        text = (small / name).read_text()
        escaped = json.dumps(HOSTILE)[1:-1]
        (tmp_path / name).write_text(text.replace("spaced_1", escaped))
    report.build(tmp_path)
    page = page_of(tmp_path)
    assert HOSTILE in page.tables[0][2][0]
    for path in (tmp_path / "figures").glob("*.svg"):
        tags = {e.tag for e in ElementTree.fromstring(path.read_bytes()).iter()}
        assert not any(tag.endswith("script") for tag in tags)
    monkeypatch.setattr(style, "save", lambda figure, stem: b"")
    make_benign(tmp_path, tmp_path / "benign")
    assert page.elements == page_of(tmp_path / "benign").elements


def make_benign(hostile: Path, folder: Path) -> None:
    """Build the same run with a harmless word in the place of every hostile one."""
    folder.mkdir()
    for name in ("config.json", "env.json", "plan.json", "metrics.jsonl"):
        text = (hostile / name).read_text()
        (folder / name).write_text(text.replace(json.dumps(HOSTILE)[1:-1], "word"))
    report.build(folder)


def test_secrets_in_the_environment_are_left_out(workdir):
    """Breaks if a token that got into env.json is published with the report."""
    text = (workdir / "report.html").read_text()
    assert "hunter2" not in text and "WANDB_TOKEN" in text and "TestDevice" in text


def test_the_settings_of_matplotlib_stay_as_they_are(small, tmp_path, monkeypatch):
    """Breaks if a report changes a notebook's plots, or is changed by its settings."""
    monkeypatch.setitem(matplotlib.rcParams, "ytick.labelsize", 31.0)
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 7.0)

    def global_state():
        # Reading "backend" would choose one.
        values = {k: v for k, v in matplotlib.rcParams.items() if k != "backend"}
        return values, "matplotlib.pyplot" in sys.modules

    before = global_state()
    plan = json.loads((small / "plan.json").read_text())
    with style.drawing():
        looks = style.line_looks(["spaced_1"])
        last = course.window(plan)
        students = {"spaced_1": settings_of()}
        figure = timeline.timeline_figure(plan, students, looks, last)
        style.save(figure, tmp_path / "timeline_start")
    assert global_state() == before
    for name in ("timeline_start.svg", "timeline_start.png"):
        saved = (small / "figures" / name).read_bytes()
        assert (tmp_path / name).read_bytes() == saved


def test_a_folder_that_cannot_be_written_is_a_storage_error(small, tmp_path):
    """Breaks if a read-only or full disk ends with a traceback."""
    for name in ("config.json", "plan.json"):
        shutil.copy(small / name, tmp_path / name)
    (tmp_path / "figures").write_text("a file where a folder must be")
    with pytest.raises(StorageError) as caught:
        report.build(tmp_path)
    assert "\n" not in str(caught.value)


def settings_of(**kd) -> dict:
    return {"plan": "spaced", "method": "kd", "online_teacher": "before"} | kd


def expand(pieces: list[course.Knowledge]) -> dict[int, int]:
    """Return batch number t, from 1 -> updates of the teacher behind it."""
    found = {}
    for piece in pieces:
        for i in range(piece.stop - piece.start):
            slope = 0 if piece.frozen else i
            assert piece.start + 1 + i not in found
            found[piece.start + 1 + i] = piece.first + slope
        assert found[piece.stop] == piece.last
    return found


def test_knowledge_is_the_papers_staircase_the_diagonal_and_the_flat_line():
    """Breaks if k(t) = ceil(t / s) * s is drawn off by one batch or one update."""
    segments = make_segments(INTERVALS, 480)

    def shown(name, **kd):
        return expand(course.knowledge(segments, name, settings_of(**kd)))

    batches = range(1, 481)
    for name, interval in (("spaced_0_5", 20), ("spaced_1_5", 60)):
        assert shown(name) == {t: math.ceil(t / interval) * interval for t in batches}
    online = shown("online", plan="online")
    assert online == {t: t - 1 for t in batches}
    after = shown("online", plan="online", online_teacher="after")
    assert after == {t: t for t in batches}
    assert shown("offline", plan="offline") == dict.fromkeys(batches, 480)
    assert shown("online", plan="none", method="hard") == {}


def test_a_lagging_student_learns_earlier_batches_from_the_moving_teacher():
    """Breaks if constant-ahead training is drawn as online training."""
    segments = [
        lockstep(0, 5, {}),
        lockstep(5, 12, {"a": 5}),
    ]
    pieces = course.knowledge(segments, "a", settings_of(plan="constant_ahead"))
    assert expand(pieces) == {t: t + 4 for t in range(1, 8)}
    assert course.lanes(segments, "a") == course.Lanes(
        lead=[course.Block(0, 0, 12)], student=[course.Block(5, 0, 7)]
    )


def test_a_teacher_held_back_is_drawn_as_stairs_under_the_diagonal():
    """Breaks if a lagged student seems to learn from the teacher of the moment."""
    held = {"teacher_refresh": {"a": 4}}
    segments = [
        lockstep(start, stop, {"a": 0}) | held
        for start, stop in ((0, 4), (4, 6), (6, 7), (7, 13))
    ]
    pieces = course.knowledge(segments, "a", settings_of(plan="lagged"))
    assert expand(pieces) == {t: math.floor((t - 1) / 4) * 4 for t in range(1, 14)}
    assert all(piece.frozen for piece in pieces)


def test_batches_learned_from_labels_alone_have_no_knowledge():
    """Breaks if a critical period's outside is drawn as if the teacher taught there."""
    segments = [
        lockstep(0, 4, {"a": 0}) | {"student_updates": {"a": ["hard"]}},
        lockstep(4, 6, {}),
        {"kind": "replay", "student": "a", "start": 4, "stop": 6, "teacher_step": 6},
    ]
    kd = settings_of(plan="critical_period")
    replayed = course.Knowledge(4, 6, 6, 6, True)
    assert course.knowledge(segments, "a", kd) == [replayed]
    segments[0] = lockstep(0, 4, {"a": 0})
    together = course.Knowledge(0, 4, 0, 3, False)
    assert course.knowledge(segments, "a", kd) == [together, replayed]


def test_lanes_alternate_run_together_or_follow_each_other():
    """Breaks if another student's replays show up, or blocks overlap."""
    segments = make_segments(INTERVALS, 480)
    spaced = course.lanes(segments, "spaced_1_5")
    teacher = [course.Block(2 * t, t, t + 60) for t in range(0, 480, 60)]
    assert spaced.lead == teacher
    assert spaced.student == [b._replace(at=b.at + 60) for b in teacher]
    assert spaced.end == 960
    whole = course.Block(0, 0, 480)
    assert course.lanes(segments, "online") == course.Lanes([whole], [whole])
    offline = course.lanes(segments, "offline")
    assert offline == course.Lanes([whole], [course.Block(480, 0, 480)])


def test_a_curve_is_the_mean_and_the_sample_deviation_over_seeds():
    """Breaks if seeds are averaged at different steps, or a seed's tail is lost."""
    values = np.random.default_rng(0).normal(size=(3, 6))
    seeds = [
        [curves.Point(10 * (i + 1), i + 1.0, float(v)) for i, v in enumerate(row)]
        for row in values
    ]
    seeds[1] = seeds[1][:4]
    curve = curves.aggregate(seeds)
    assert curve.epochs == [1.0, 2.0, 3.0, 4.0]
    assert curve.mean == pytest.approx(values[:, :4].mean(axis=0))
    assert curve.std == pytest.approx(values[:, :4].std(axis=0, ddof=1))
    assert [[p.step for p in tail] for tail in curve.tails] == [[40, 50, 60]] * 2


def test_bins_weigh_chunks_by_their_steps():
    """Breaks if a short chunk counts as much as a long one."""
    chunks = [(30, 3.0, 1.0), (40, 4.0, 5.0), (70, 7.0, 2.0), (80, 8.0, 6.0)]
    points = [curves.Point(*chunk) for chunk in chunks]
    binned = curves.thin(points, width=40, ends=[30, 40, 70, 80])
    losses = np.repeat([1.0, 5.0, 2.0, 6.0], [30, 10, 30, 10]).reshape(2, 40)
    assert [p.value for p in binned] == pytest.approx(losses.mean(axis=1).tolist())
    centres = (np.arange(80) + 0.5).reshape(2, 40).mean(axis=1) / 10
    assert [p.epoch for p in binned] == pytest.approx(centres.tolist())


@pytest.mark.parametrize(("noise", "scale"), [(0.0, "log"), (0.02, "linear")])
def test_losses_over_decades_get_a_logarithmic_axis_if_the_band_allows(noise, scale):
    """Breaks if a band that reaches below zero is drawn on a logarithmic axis."""
    rows = [
        {"network": "teacher", "phase": "lockstep", "seed": seed, "step": step}
        | {"epoch": step / 10, "teacher/loss": 5.0 / 4**step + noise * (seed - 1)}
        for seed in range(3)
        for step in range(1, 7)
    ]
    with style.drawing():
        looks = style.line_looks([])
        figure = curves.training_figure(rows, looks, lambda _: "loss", "loss")
    assert figure.axes[0].get_yscale() == scale


def test_figures_follow_the_order_of_the_config_file():
    """Breaks if students are sorted by name, as JSON saves them, and change colours."""
    plan = make_plan(INTERVALS, epochs=12) | {"order": ["teacher", *INTERVALS]}
    settings = {name: settings_of(plan=plan_of(name)) for name in sorted(INTERVALS)}
    with style.drawing():
        every = figures.every_figure({"students": settings}, plan, [], {})
    drawn = every["timeline"]
    titles = [axes.get_title(loc="left") for axes in drawn[0][2].axes]
    assert [title.split(",")[0] for title in titles] == list(INTERVALS)
    assert list(INTERVALS) != sorted(INTERVALS)


def test_eight_students_have_eight_colours_that_do_not_depend_on_the_figure():
    """Breaks if a network changes its colour between figures, or two share one."""
    names = [f"s{i}" for i in range(12)]
    looks = style.line_looks(names)
    assert len({looks[name]["color"] for name in ["teacher", *names[:8]]}) == 9
    assert len({str(look) for look in looks.values()}) == 13
    assert style.line_looks(names[:3]).items() <= looks.items()


@pytest.mark.parametrize("count", [1, 8])
def test_no_text_is_cut_off_or_covers_another(count):
    """Breaks if many students, or names of the longest length, spoil a figure."""
    names = ["online"] + [
        f"spaced_{i}_with_the_longest_name_that_is_allowed" for i in range(count - 1)
    ]
    students = {n: (20 * i or None) for i, n in enumerate(names)}
    plan = make_plan(students, epochs=40)
    rows = make_rows(plan, seeds=2)
    looks = style.line_looks(names)
    config = {name: settings_of(plan=plan_of(name)) for name in names}
    with style.drawing():
        figures = [
            timeline.timeline_figure(plan, config, looks, last=480),
            timeline.knowledge_figure(plan, config, looks, last=240),
            curves.training_figure(rows, looks, lambda _: "loss", "loss"),
        ]
        for figure in figures:
            drawn_texts.assert_readable(figure)


def test_a_window_shows_its_interval_and_its_short_last_round():
    """Breaks if a critical period's title is cut short, or one batch reads "6-6"."""
    name = "window_10_20"
    segments = [
        lockstep(0, 5, {name: 0}),
        lockstep(5, 6, {}),
        {"kind": "replay", "student": name, "start": 5, "stop": 6, "teacher_step": 6},
    ]
    network = {"plan": "critical_period", "space_interval_steps": 1173}
    plan = {
        "segments": segments,
        "networks": {"teacher": {"updates": 20}, name: network},
    }
    with style.drawing():
        looks = style.line_looks([name])
        students = {name: settings_of(plan="critical_period")}
        figure = timeline.timeline_figure(plan, students, looks, last=7)
        drawn_texts.assert_readable(figure)
    (axes,) = figure.axes
    assert (
        axes.get_title(loc="left") == f"{name}, critical_period, interval 1,173 steps"
    )
    # The teacher's steps go on into the window; the student then has the one batch.
    assert [text.get_text() for text in axes.texts] == ["1\u20136", "1\u20135", "6"]


def test_the_drawn_staircase_passes_through_every_batch():
    """Breaks if the line is shifted against the batches it speaks of."""
    plan = make_plan(INTERVALS, epochs=12)
    students = {name: settings_of(plan=plan_of(name)) for name in INTERVALS}
    with style.drawing():
        looks = style.line_looks(INTERVALS)
        figure = timeline.knowledge_figure(plan, students, looks)
    batches = np.arange(1, 481)
    lines = dict(zip(INTERVALS, figure.axes[0].lines, strict=True))
    for name, expected in {
        "spaced_1_5": np.ceil(batches / 60) * 60,
        "online": batches - 1,
        "offline": np.full(480, 480),
    }.items():
        drawn = np.interp(batches, *lines[name].get_data())
        np.testing.assert_array_equal(drawn, expected)


def test_a_line_that_is_cut_into_single_steps_stays_straight():
    """Breaks if borders of other students' plans show in the online diagonal."""
    segments = [lockstep(t, t + 1, {"a": 0}) for t in range(6)]
    pieces = course.knowledge(segments, "a", settings_of(plan="online"))
    batches, updates = timeline._steps(pieces)
    fine = np.linspace(1, 6, 51)
    np.testing.assert_allclose(np.interp(fine, batches, updates), fine - 1, atol=1e-9)


@pytest.mark.parametrize("compat", ["recommended", "paper", "released"])
def test_only_what_was_changed_is_shown_as_different(compat):
    """Breaks if resolved "auto" fields or inherited ones look like choices."""
    config = base_config()
    config.compat = compat
    config.students.online = student()
    config.students.offline = student(plan="offline")
    config.students.none = student(plan="none")
    config.students.spaced_1_5 = student(plan="spaced", temperature=4.0)
    config.student.optim.learning_rate = 0.05
    rows = configuration.settings(to_dict(from_config_dict(config)))
    changed = {row.path: (row.value, row.default) for row in rows if row.differs}
    if compat != "recommended":
        assert changed.pop("compat") == (f'"{compat}"', '"recommended"')
    assert changed == {
        "student.optim.learning_rate": ("0.05", "0.01"),
        "students.offline.plan": ('"offline"', '"online"'),
        "students.none.plan": ('"none"', '"online"'),
        "students.spaced_1_5.plan": ('"spaced"', '"online"'),
        "students.spaced_1_5.temperature": ("4.0", "3.0"),
    }
    fields = {f.name for f in dataclasses.fields(StudentConfig)}
    fields -= {"optim", "arch"}
    assert {f"students.none.{name}" for name in fields} <= {row.path for row in rows}
    assert all(row.doc for row in rows if not row.path.endswith(("optim", "arch")))


def test_a_field_of_another_version_is_shown():
    """Breaks if a report of an older run fails, or hides what this version ignores."""
    config = make_config({"online": None}, epochs=2, seeds=1)
    config["student"]["forgotten"] = 1
    config["removed"] = {"inner": 2}
    found = {row.path: row for row in configuration.settings(config)}
    for path in ("student.forgotten", "removed.inner"):
        assert found[path].differs and found[path].default == configuration.UNKNOWN

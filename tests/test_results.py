"""The final numbers: right, paired by seed, honest about what is missing."""

import dataclasses
import html.parser
import json
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from spaced_kd import exits, results
from spaced_kd.errors import CheckpointError, StorageError

UPDATES = 60


def make_config(students=("online", "spaced_1_5"), num_seeds=3, **changes) -> dict:
    names = dict.fromkeys(students, {"space_interval_epochs": 1.5})
    return {"students": names, "num_seeds": num_seeds, "reference": "online"} | changes


def make_plan(config: dict, **updates: int) -> dict:
    networks = {}
    for name in ("teacher", *config["students"]):
        networks[name] = {
            "updates": updates.get(name, UPDATES),
            "forward_passes": 2 * updates.get(name, UPDATES),
            "backward_passes": updates.get(name, UPDATES),
            "space_interval_steps": 15 if name.startswith("spaced") else None,
            "plan": None if name == "teacher" else name.split("_")[0],
        }
    return {"steps_per_epoch": 10, "networks": networks}


def make_rows(network: str, seed: int, acc1: list, first: int = 1, **metrics) -> list:
    """Return one evaluation every ten updates."""
    prefix = "eval/teacher/" if network == "teacher" else f"eval/student/{network}/"
    rows = []
    for epoch, value in enumerate(acc1, start=first):
        row = {"seed": seed, "network": network, "phase": "eval", "step": 10 * epoch}
        row |= {prefix + "acc1": value, prefix + "acc5": value + 10}
        rows.append(row | {prefix + name: number for name, number in metrics.items()})
    return rows


def random_run(num_seeds=3, students=("online", "spaced_1_5")) -> tuple:
    """Return config, plan, rows and the accuracies [network, seed, epoch]."""
    generator = np.random.default_rng(0)
    config = make_config(students, num_seeds)
    names = ("teacher", *students)
    acc1 = generator.uniform(40, 80, (len(names), num_seeds, 6))
    rows = [
        row
        for i, name in enumerate(names)
        for seed in range(num_seeds)
        for row in make_rows(name, seed, acc1[i, seed].tolist())
    ]
    generator.shuffle(rows)
    return config, make_plan(config), rows, acc1


def test_last_mean_of_last_five_and_best_follow_their_definitions():
    """Breaks if the order of rows matters, or another evaluation is quoted."""
    config, plan, rows, acc1 = random_run()
    found = results.compute(config, plan, rows)
    for i, net in enumerate(found.networks.values()):
        for spread, oracle in (
            (net.acc1_last, acc1[i, :, -1]),
            (net.acc1_mean_last5, acc1[i, :, -5:].mean(axis=1)),
            (net.acc1_best, acc1[i].max(axis=1)),
            (net.acc5_last, acc1[i, :, -1] + 10),
        ):
            assert spread.per_seed == pytest.approx(oracle.tolist(), rel=1e-12)
            assert spread.mean == pytest.approx(oracle.mean(), rel=1e-12)
            assert spread.std == pytest.approx(oracle.std(ddof=1), rel=1e-12)
    assert found.complete
    assert list(found.networks) == ["teacher", "online", "spaced_1_5"]


def test_differences_are_paired_by_seed_with_students_t_interval():
    """Breaks if seeds are mismatched, or the interval is that of unpaired samples."""
    config, plan, rows, acc1 = random_run(num_seeds=4)
    found = results.compute(config, plan, rows)
    difference = found.students["spaced_1_5"].acc1_last_minus["online"]
    oracle = acc1[2, :, -1] - acc1[1, :, -1]
    interval = stats.ttest_rel(acc1[2, :, -1], acc1[1, :, -1]).confidence_interval(0.95)
    assert difference.per_seed == pytest.approx(oracle.tolist(), rel=1e-12)
    assert difference.mean == pytest.approx(oracle.mean(), rel=1e-12)
    assert difference.std == pytest.approx(oracle.std(ddof=1), rel=1e-12)
    assert difference.ci95 == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert difference.n == 4
    assert not found.students["online"].acc1_last_minus
    assert found.teacher is not None and not found.teacher.acc1_last_minus


def test_seeds_are_paired_by_number_where_students_have_different_ones():
    """Breaks if the first finished seed of one is compared with that of the other."""
    config = make_config()
    rows = []
    for seed in range(3):
        rows += make_rows("teacher", seed, [50.0] * 6)
        rows += make_rows("online", seed, [10.0 * (seed + 1)] * (6 if seed else 3))
        rows += make_rows(
            "spaced_1_5", seed, [10.0 * (seed + 1) + 1] * (6 if seed < 2 else 3)
        )
    found = results.compute(config, make_plan(config), rows)
    assert found.students["online"].seeds == (1, 2)
    assert found.students["spaced_1_5"].seeds == (0, 1)
    difference = found.students["spaced_1_5"].acc1_last_minus["online"]
    assert difference.per_seed == (1.0,)
    assert (difference.n, difference.std, difference.ci95) == (1, None, None)


def test_one_seed_has_no_spread_and_two_no_interval():
    """Breaks if a spread is invented where none can be known."""
    config, plan, rows, acc1 = random_run(num_seeds=1)
    student = results.compute(config, plan, rows).students["spaced_1_5"]
    assert student.acc1_last.std is None
    assert student.acc1_last_minus["online"].std is None
    assert student.acc1_last_minus["online"].mean == pytest.approx(
        acc1[2, 0, -1] - acc1[1, 0, -1]
    )
    config, plan, rows, _ = random_run(num_seeds=2)
    student = results.compute(config, plan, rows).students["spaced_1_5"]
    assert student.acc1_last_minus["online"].std is not None
    assert student.acc1_last_minus["online"].ci95 is None


def test_nan_never_ranks_and_never_becomes_a_number():
    """Breaks if max() or a mean lets NaN through, or hides it."""
    config = make_config(students=("online",), num_seeds=2)
    nan = math.nan
    rows = make_rows("teacher", 0, [50.0] * 6) + make_rows("teacher", 1, [50.0] * 6)
    rows += make_rows("online", 0, [nan, 20.0, 30.0, nan, 25.0, 24.0])
    rows += make_rows("online", 1, [40.0, 41.0, 42.0, 43.0, 44.0, math.inf])
    student = results.compute(config, make_plan(config), rows).students["online"]
    assert student.acc1_best.per_seed == (30.0, 44.0)
    assert student.acc1_last.per_seed == (24.0, None)
    assert student.acc1_last.mean is None and student.acc1_last.std is None
    assert student.acc1_mean_last5.per_seed == (None, None)
    assert str(student.acc1_last) == "-"
    json.dumps(student.to_dict(), allow_nan=False)


def test_only_finished_seeds_are_shown_and_the_table_says_so():
    """Breaks if a half-trained seed is averaged into a result."""
    config = make_config(students=("online",))
    rows = [r for s in range(3) for r in make_rows("teacher", s, [50.0] * 6)]
    rows += make_rows("online", 0, [70.0] * 6) + make_rows("online", 1, [10.0] * 2)
    found = results.compute(config, make_plan(config), rows)
    student = found.students["online"]
    assert not found.complete and found.teacher.complete and not student.complete
    assert student.seeds == (0,) and student.acc1_last.per_seed == (70.0,)
    text = found.table()
    assert "UNFINISHED" in text and "online *" in text and "teacher *" not in text
    assert "online 1 of 3" in text


def test_latest_values_are_marked_and_not_compared_as_long_as_no_seed_is_through():
    """Breaks if networks at different points of their training are subtracted."""
    config = make_config()
    rows = []
    for seed in range(3):
        rows += make_rows("teacher", seed, [50.0] * 4)
        rows += make_rows("online", seed, [60.0] * 4)
        rows += make_rows("spaced_1_5", seed, [61.0] * (3 - (seed == 1)))
    found = results.compute(config, make_plan(config), rows)
    student = found.students["spaced_1_5"]
    assert not student.acc1_last_minus
    assert student.acc1_last.mean == 61.0
    assert student.evaluated_step == 20
    assert "spaced_1_5 20 of 60" in found.table()


def test_a_run_that_has_just_begun_has_a_table():
    """Breaks if a report can only be made once there are evaluations."""
    config = make_config()
    found = results.compute(config, make_plan(config), [])
    assert not found.complete
    assert "not evaluated yet: teacher, online, spaced_1_5" in found.table()
    assert found.timing == {"seconds": None, "images_per_second": None}


def test_a_missing_seed_makes_the_run_unfinished():
    """Breaks if 2 of 3 declared seeds pass for the comparison that was asked for."""
    config, plan, rows, _ = random_run(num_seeds=2)
    config["num_seeds"] = 3
    assert not results.compute(config, plan, rows).complete


@pytest.mark.parametrize(
    ("updates", "mark"), [(980, "-2 %"), (990, ""), (1010, ""), (1011, "+1.1 %")]
)
def test_a_difference_at_other_numbers_of_updates_is_marked(updates, mark):
    """Breaks if a student that trained less, or more, is compared without a word."""
    config, plan, rows, _ = random_run()
    found = results.compute(config, plan, rows)
    students = {
        name: dataclasses.replace(net, updates=1000 if name == "online" else updates)
        for name, net in found.students.items()
    }
    table = dataclasses.replace(found, students=students).table()
    line = next(text for text in table.splitlines() if text.startswith("spaced_1_5"))
    assert line.partition(" † ")[2] == mark
    assert ("† so much more or less training" in table) == bool(mark)


def test_differences_to_several_students_are_columns_of_their_own():
    """Breaks if a control of equal compute cannot stand beside the usual baseline."""
    names = ("online", "control", "spaced_1_5")
    config, plan, rows, acc1 = random_run(students=names)
    config["reference"] = "online, control,absent"
    found = results.compute(config, plan, rows)
    assert found.references == ("online", "control")
    spaced = found.students["spaced_1_5"].acc1_last_minus
    for place, name in ((1, "online"), (2, "control")):
        oracle = acc1[3, :, -1] - acc1[place, :, -1]
        assert spaced[name].per_seed == pytest.approx(oracle.tolist(), rel=1e-12)
    assert list(found.students["online"].acc1_last_minus) == ["control"]
    titles, *rows = found.cells().titles, *found.cells().rows
    assert [title.split("\n")[1] for title in titles[-2:]] == [
        "online, points",
        "control, points",
    ]
    assert [row[-2:] for row in rows][3] == (
        str(spaced["online"]),
        str(spaced["control"]),
    )


def test_a_run_of_a_single_network_has_a_table():
    """Breaks if a teacher, or a second student, is counted on."""
    config, plan, rows, _ = random_run(students=("online",))
    del plan["networks"]["teacher"]
    plan["order"] = ["online"]
    found = results.compute(config, plan, rows)
    assert found.teacher is None and found.to_dict()["teacher"] is None
    assert found.table().splitlines()[3].startswith("online")
    assert "(n=3)" in found.table()


def history(values, **exits):
    """One network's evaluation rows of one seed: base accuracy and that of exits."""
    prefix = "eval/student/s/"
    return [
        {f"{prefix}acc1": value}
        | {f"{prefix}{name}/acc1": series[k] for name, series in exits.items()}
        for k, value in enumerate(values)
    ]


def test_every_exit_has_its_last_mean_and_best():
    """Breaks if exits are mixed up, or sorted as texts (exit12 before exit2)."""
    rng = np.random.default_rng(3)
    names = ["exit12", "exit11", "exit2", "exit1", "ensemble"]
    series = {name: rng.uniform(0, 100, (2, 7)) for name in names}
    histories = [
        history([0.0] * 7, **{name: values[k] for name, values in series.items()})
        for k in range(2)
    ]
    found = exits.by_exit(histories, "eval/student/s/", 5)
    assert list(found) == names
    for name, values in series.items():
        got = found[name]
        assert got.acc1_last.per_seed == pytest.approx(values[:, -1].tolist())
        assert got.acc1_mean_last5.per_seed == pytest.approx(values[:, -5:].mean(1))
        assert got.acc1_best.mean == pytest.approx(values.max(1).mean())
        assert got.deepest_kl_last.mean is None
    assert exits.quoted({"quote": "ensemble"}, found) == "ensemble"
    assert exits.quoted({"quote": "deepest"}, found) == "exit12"
    assert exits.quoted({"quote": "deepest"}, {}) is None
    assert exits.by_exit([history([1.0])], "eval/student/s/", 5) == {}


def test_without_the_reference_there_are_no_differences():
    """Breaks if differences are taken to whatever student comes first."""
    config, plan, rows, _ = random_run(students=("offline", "spaced_1_5"))
    found = results.compute(config, plan, rows)
    assert found.references == ()
    assert not any(s.acc1_last_minus for s in found.students.values())
    assert "minus" not in found.table()
    assert found.to_dict()["students"]["offline"]["acc1_last_minus"] == {}


def test_teacher_gap_and_loss_are_taken_from_the_last_evaluation():
    """Breaks if a metric is read under another name."""
    config = make_config(students=("online",), num_seeds=1)
    rows = make_rows("teacher", 0, [50.0] * 6, loss=1.5)
    rows += make_rows(
        "online", 0, [50.0] * 5, teacher_kl=9.0, teacher_agreement=1.0, loss=9
    )
    rows += make_rows(
        "online", 0, [50.0], first=6, teacher_kl=0.25, teacher_agreement=80.0, loss=1.25
    )
    found = results.compute(config, make_plan(config), rows)
    student = found.to_dict()["students"]["online"]
    assert student["teacher_kl_last"]["mean"] == 0.25
    assert student["teacher_agreement_last"]["mean"] == 80.0
    assert student["loss_last"]["mean"] == 1.25
    teacher = found.to_dict()["teacher"]
    assert teacher["loss_last"]["mean"] == 1.5
    assert teacher["teacher_kl_last"]["mean"] is None
    assert set(teacher) == set(student)


def write_workdir(folder, num_seeds=3) -> None:
    config, plan, rows, _ = random_run(num_seeds)
    timings = [{"tick": 0, "seconds": 2.0, "images": 300, "phase": "lockstep"}] * 2
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"config": config}))
    (folder / "plan.json").write_text(json.dumps(plan))
    for name, lines in {"metrics": rows, "timings": timings}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)


def test_the_same_files_give_the_same_bytes_but_for_timing(tmp_path):
    """Breaks if results depend on the clock, on hashing or on the machine's speed."""
    write_workdir(tmp_path)
    first = results.load(tmp_path).save(tmp_path).read_bytes()
    assert results.load(tmp_path).save(tmp_path).read_bytes() == first
    (tmp_path / "timings.jsonl").write_text('{"seconds": 9, "images": 1}\n')
    slower = json.loads(results.load(tmp_path).save(tmp_path).read_text())
    before = json.loads(first)
    assert before.pop("timing") == {"seconds": 4.0, "images_per_second": 150.0}
    assert slower.pop("timing") == {"seconds": 9.0, "images_per_second": 1 / 9}
    assert slower == before


def test_results_json_has_the_documented_fields(tmp_path):
    """Breaks if a field that other programs read is renamed."""
    write_workdir(tmp_path)
    saved = json.loads(results.load(tmp_path).save(tmp_path).read_text())
    assert list(saved) == [
        "complete", "num_seeds", "references", "teacher", "students", "timing",
    ]  # fmt: skip
    assert list(saved["students"]) == ["online", "spaced_1_5"]
    student = saved["students"]["spaced_1_5"]
    assert student["space_interval_steps"] == 15
    assert student["plan"] == "spaced"
    assert (student["updates"], student["forward_passes"]) == (60, 120)
    assert set(student["acc1_last"]) == {"mean", "std", "per_seed"}
    assert set(student["acc1_last_minus"]["online"]) == {
        "mean", "std", "per_seed", "n", "ci95",
    }  # fmt: skip


def test_students_keep_the_order_of_the_config_file():
    """Breaks if students are listed by their names because JSON is saved sorted."""
    config, plan, rows, _ = random_run(students=("spaced_1_5", "online"))
    config = json.loads(json.dumps(config, sort_keys=True))
    plan["order"] = ["teacher", "spaced_1_5", "online"]
    found = results.compute(config, plan, rows)
    assert list(found.networks) == plan["order"]
    del plan["order"]
    assert list(results.compute(config, plan, rows).students) == [
        "online",
        "spaced_1_5",
    ]


def test_a_run_that_is_being_written_can_be_read(tmp_path):
    """Breaks if the half-written last row of a running run is an error."""
    write_workdir(tmp_path)
    before = results.load(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"half": ')
    assert results.load(tmp_path) == before


def test_damaged_and_missing_files_are_named(tmp_path):
    """Breaks if a wrong folder ends with a traceback."""
    with pytest.raises(StorageError, match=r"config\.json"):
        results.load(tmp_path)
    write_workdir(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"plan\.json"):
        results.load(tmp_path)


def test_the_plain_table_is_aligned_and_shows_the_values():
    """Breaks if columns shift, or a cell shows another number than the results."""
    config, plan, rows, _ = random_run()
    found = results.compute(config, plan, rows)
    upper, lower, rule, *rest = found.table().splitlines()
    body = rest[:3]
    starts = [
        i for i, c in enumerate(rule) if c == "-" and (i == 0 or rule[i - 1] == " ")
    ]
    for line in (upper, lower, *body):
        padded = line.ljust(len(rule))
        assert all(padded[i - 1] == " " for i in starts[1:])
    cells = [
        body[2][a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)
    ]
    student = found.students["spaced_1_5"]
    values = student.acc1_last.per_seed
    assert cells[0] == "spaced_1_5" and cells[2] == "1.5 / 15"
    assert cells[3:5] == ["60", "120 / 60"]
    mean, std = statistics.mean(values), statistics.stdev(values)
    assert cells[5] == f"{mean:.2f} ± {std:.2f}"
    difference = student.acc1_last_minus["online"]
    assert cells[8].startswith(f"{difference.mean:+.2f} ± {difference.std:.2f} [")
    assert "best on test," in upper and "optimistic" in lower


def test_markdown_and_html_hold_the_same_cells_and_no_markup_of_names():
    """Breaks if a hostile name adds a column, an element or a link."""
    hostile = "<b>x|y`[z](u)</b>"
    config, plan, rows, _ = random_run(students=("online", hostile))
    found = results.compute(config, plan, rows)
    markdown = found.markdown().split("\n\n")[0].splitlines()
    columns = len(found.cells().titles)
    for line in markdown:
        assert line.replace("\\|", "").count("|") == columns + 1
    assert "\\`\\[z\\](u)&lt;/b&gt;" in markdown[-1]

    class Cells(html.parser.HTMLParser):
        tags: list[str] = []
        texts: list[str] = []

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)

        def handle_data(self, data):
            self.texts.append(data)

    parser = Cells()
    parser.feed(found._repr_html_())
    assert set(parser.tags) == {"table", "thead", "tbody", "tr", "th", "td", "br", "p"}
    assert hostile in parser.texts
    assert str(found.students[hostile].acc1_last) in parser.texts

"""Which runs the paper's numbers take: as few as can be, and each number in its own."""

import dataclasses
import pathlib

import pytest

from spaced_kd import workdir
from spaced_kd.config import fingerprint, from_config_dict
from spaced_kd.errors import ConfigError
from spaced_kd.reproduce import budgets, planner, source
from spaced_kd.reproduce.items import ITEMS, TEACHER, Place

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
ONLINE = [ITEMS[name] for name in ("table1", "table6")]


def _plan(items, root, budget="smoke", variant="", **more):
    found = dataclasses.replace(budgets.find(budget), **more)
    return planner.plan(items, CONFIGS, found, root, variant)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return _plan(ITEMS.values(), tmp_path_factory.mktemp("nothing"))


def test_every_place_is_the_student_of_its_own_config_file(everything):
    """A number under a wrong heading would be the gravest of mistakes."""
    jobs = {job.name: job.config for job in everything.jobs}
    files = {}
    for place, spots in everything.spots.items():
        key = place.config, place.variant
        if key not in files:
            files[key] = source.runs(CONFIGS, *key, budgets.find("smoke"))
        assert len(spots) == len(files[key])
        for spot, runs in zip(spots, files[key], strict=True):
            own, run = runs[place.cell], jobs[spot.job]
            if place.network == TEACHER:
                assert spot.network == TEACHER
            else:
                wanted = own.students[place.network]
                assert run.students[spot.network] == wanted
            alone, together = (
                fingerprint(dataclasses.replace(c, students={})) for c in (own, run)
            )
            assert together == alone


def test_what_is_compared_lies_in_one_run(everything):
    """Differences are paired: the same teacher, the same batches."""
    for item in ITEMS.values():
        for row in item.rows:
            for column, reference in item.comparisons:
                names = {column, reference} & set(row.places)
                runs = {
                    tuple(s.job for s in everything.spots[row.places[name]])
                    for name in names
                }
                assert len(runs) <= 1, (item.name, row.label, column, reference)


def test_tables_that_look_at_one_teacher_share_its_run(tmp_path):
    """The point of planning: Table 1's students are among Table 6's."""
    plan = _plan(ONLINE, tmp_path, budget="paper")
    stems = [job.name.rpartition("-")[0] for job in plan.jobs]
    # 14 rows of Table 1, of which 10 are swept in Table 6 too.
    assert len(stems) == 14
    (first,) = (j for j in plan.jobs if j.name.startswith("table1_resnet18_cifar100-"))
    assert set(first.config.students) == set(ITEMS["table6"].columns)
    alone = _plan(ONLINE[:1], tmp_path, budget="paper")
    assert len(alone.jobs) == 14


def test_a_run_is_not_larger_than_a_program_should_be(everything):
    """Merging everything into one run would compile for hours."""
    for job in everything.jobs:
        own_file = job.name.startswith(("figure3", "digits_adaptive"))
        assert own_file or len(job.config.students) <= planner.MOST_STUDENTS


def test_equal_students_of_other_names_are_trained_once(everything):
    """Table 3 calls online KD by its loss."""
    for job in everything.jobs:
        students = list(job.config.students.values())
        assert len(set(students)) == len(students), job.name


def test_feedback_has_a_run_for_each_seed(everything):
    """A decision that several seeds share would couple them."""
    spots = everything.spots[Place("digits_adaptive", "gap")]
    assert [spot.seeds for spot in spots] == [(0,), (1,)]
    assert len({spot.job for spot in spots}) == 2
    others = everything.spots[Place("paper/table4_ban", "ban")]
    assert [spot.seeds for spot in others] == [(0, 1)]


def _lay(plan, root):
    for job in plan.jobs:
        folder = root / "cells" / job.name
        folder.mkdir(parents=True)
        workdir.claim(folder, job.config, "data")


def test_runs_on_disk_are_used_as_they_stand(tmp_path):
    """`reproduce table1`, then `all`: nothing is trained twice, nothing is changed."""
    first = _plan(ONLINE[:1], tmp_path)
    _lay(first, tmp_path)
    both = _plan(ONLINE, tmp_path)
    kept = {job.name: job.config for job in both.jobs}
    for job in first.jobs:
        assert kept[job.name].students == job.config.students
    for place, spots in first.spots.items():
        assert both.spots[place] == spots
    # Table 6 has intervals that Table 1 has not, and needs online KD beside them.
    added = [job for job in both.jobs if job.name not in {j.name for j in first.jobs}]
    assert len(added) == 2
    assert all("online" in job.config.students for job in added)
    _lay(dataclasses.replace(both, jobs=tuple(added)), tmp_path)
    assert _plan(ONLINE, tmp_path) == both


@pytest.mark.parametrize("budget", ["smoke", "paper"])
def test_the_same_items_have_the_same_runs_again(budget, tmp_path):
    """Else a second call, or --check, would take its numbers from other runs."""
    first = _plan(ITEMS.values(), tmp_path, budget)
    _lay(first, tmp_path)
    again = _plan(ITEMS.values(), tmp_path, budget)
    assert again.spots == first.spots
    key = lambda plan: {job.name: job for job in plan.jobs}
    assert key(again) == key(first)


def test_runs_of_other_seeds_on_disk_are_left_alone(tmp_path):
    """They are other runs, however alike."""
    _lay(_plan(ONLINE[:1], tmp_path, num_seeds=3), tmp_path)
    names = {path.name for path in (tmp_path / "cells").iterdir()}
    assert not names & {job.name for job in _plan(ONLINE[:1], tmp_path).jobs}


def test_the_paper_budget_is_the_config_file(tmp_path):
    """Every field but the seeds, for whoever reruns a table at full size."""
    (runs,) = source.runs(
        CONFIGS, "paper/table2_deit_cifar100", "paper", budgets.find("paper", 7)
    )
    own = source.load(CONFIGS, "paper/table2_deit_cifar100", "paper")
    own.num_seeds = 7
    assert runs[""] == from_config_dict(own)


def test_the_small_budget_keeps_who_learns_when():
    """Shares of the training stay; only then does a small run show the same method."""
    budget = budgets.find("small")
    (runs,) = source.runs(CONFIGS, "paper/figure3_critical_period", "", budget)
    config = runs[""]
    assert (config.num_epochs, config.data.name) == (40, "digits")
    window = config.students["window_10_20"]
    assert (window.window_start_epochs, window.window_stop_epochs) == (5.0, 10.0)
    assert window.space_interval_epochs == 1.5
    paper = source.load(CONFIGS, "paper/figure3_critical_period")
    assert set(config.students) == set(paper.students)


def test_a_grid_scales_its_batches():
    """128 of the paper are 30 digits; learning rates stay."""
    budget = budgets.find("small")
    (sizes,) = source.runs(CONFIGS, "paper/figure5", "batch_size", budget)
    found = {name: config.data.batch_size for name, config in sizes.items()}
    assert found == {
        "batch_32": 8,
        "batch_64": 15,
        "batch_128": 30,
        "batch_256": 60,
        "batch_512": 120,
    }
    (rates,) = source.runs(CONFIGS, "paper/figure5", "learning_rate", budget)
    assert rates["lr_0_1"].student.optim.learning_rate == 0.1


def test_overrides_reach_every_run_and_its_stages():
    """--override and --data_dir."""
    more = {"overrides": (("data.dir", "/data"), ("seed", 4))}
    budget = dataclasses.replace(budgets.find("smoke"), **more)
    (runs,) = source.runs(CONFIGS, "paper/table4_takd", "", budget)
    config = runs[""]
    assert config.seed == config.stages["tutor"].seed == 4
    assert config.data.dir == config.stages["tutor"].data.dir == "/data"
    wrong = dataclasses.replace(budget, overrides=(("dtat.dir", "x"),))
    with pytest.raises(ConfigError, match=r"'dtat.dir': field='dtat'.*'data'"):
        source.runs(CONFIGS, "paper/table4_takd", "", wrong)


def test_a_variant_is_for_the_papers_files_alone(tmp_path):
    """TAKD's small networks, a grid's axis and digits have no paper to follow."""
    plan = _plan(
        [ITEMS[n] for n in ("table1", "figure5", "adaptive")],
        tmp_path,
        variant="recommended",
    )
    kinds = {job.name.split("_")[0]: job.config.compat for job in plan.jobs}
    assert kinds["table1"] == "recommended"


def test_mistakes_are_one_line(tmp_path):
    """No traceback for a wrong folder, file or budget."""
    with pytest.raises(ConfigError, match="no config files .* --configs"):
        source.folder(str(tmp_path))
    with pytest.raises(ConfigError, match="nothing.py"):
        source.load(CONFIGS, "nothing")
    with pytest.raises(ConfigError, match="--budget='smal' .*'small'"):
        budgets.find("smal")


def test_config_files_are_found_beside_the_package():
    assert source.folder() == CONFIGS

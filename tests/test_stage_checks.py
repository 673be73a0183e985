"""Chains of runs before they run: what a stage is known by, and what is refused."""

from types import SimpleNamespace

import pytest
from chains import BASE, chain, chained

import spaced_kd
from spaced_kd import config as config_lib
from spaced_kd import data, experiment, ledger, stages
from spaced_kd.config import from_config_dict, student
from spaced_kd.errors import ConfigError


def _sets(config):
    every = [config, *config.stages.values()]
    every += [s for stage in every[1:] for s in stage.stages.values()]
    return {c.data: SimpleNamespace(fingerprint="f") for c in every}


def _key(**fields):
    config = chain("anywhere", **fields)
    return stages.key(config.stages["gen1"], _sets(config))


CHANGES = {
    "the seed": {"seed": 1},
    "the repetitions": {"num_seeds": 3},
    "a parent": {"parent_epochs": 2},
}
SAME = {
    "its own folder": {"checkpoint__every_seconds": 9.0},
    "the display": {"progress": "plain"},
    "the run it serves": {"num_epochs": 2},
    "where the data lie": {"data__dir": "elsewhere"},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_stage_is_another_one_with(what):
    assert _key(**CHANGES[what]) != _key()


@pytest.mark.parametrize("what", SAME)
def test_a_stage_stays_the_same_whatever(what):
    assert _key(**SAME[what]) == _key()


def test_a_stage_is_another_one_with_other_data():
    config = chain("anywhere")
    sets = _sets(config)
    other = {data: SimpleNamespace(fingerprint="g") for data in sets}
    assert stages.key(config, sets) != stages.key(config, other)


CIRCLE = {"gen0": {"teacher__stage": "x/x"}, "x": {"teacher__stage": "gen0/gen0"}}
REFUSED_NAMES = {
    "an unknown stage": (
        {"teacher__stage": "gn0/gen0"},
        BASE,
        r"\.teacher\.stage='gn0/gen0': stage='gn0' is unknown; did you mean 'gen0'",
    ),
    "an unknown network": (
        {"teacher__stage": "gen0/gen"},
        BASE,
        r"network of stage 'gen0'='gen' is unknown; did you mean 'gen0'",
    ),
    "no network": ({"teacher__stage": "gen0"}, BASE, "give STAGE/NETWORK"),
    "no stages": ({}, {}, r"is unknown\. Known: none"),
    "a circle": (
        {},
        CIRCLE,
        r"config\.stages\.x\.teacher\.stage='gen0/gen0' closes .* gen0 -> x -> gen0;",
    ),
    "an odd name": (
        {"teacher__stage": "a b/c"},
        {"a b": {"teacher__model": "none"}},
        "a stage's name must be letters",
    ),
    "a stage that nobody needs": (
        {"teacher__stage": ""},
        BASE,
        r"config\.stages\.gen0 trains a network that nobody learns from",
    ),
    "a tutor that nobody trains": (
        {"tutor__model": "mlp"},
        BASE,
        r"config\.tutor\.model='mlp' without a stage to train it",
    ),
    "a trained teacher and none": (
        {"teacher__model": "none"},
        BASE,
        r"config\.teacher\.stage='gen0/gen0' brings a teacher, but",
    ),
    "a mistake in a stage": (
        {},
        {"gen0": {"teacher__model": "none", "student__temperature": -1.0}},
        r"config\.stages\.gen0\.student\.temperature=-1\.0 is too small",
    ),
}


@pytest.mark.parametrize("what", REFUSED_NAMES)
def test_a_name_that_leads_nowhere_is_refused_in_one_line(what):
    own, base, words = REFUSED_NAMES[what]
    with pytest.raises(ConfigError, match=words) as caught:
        from_config_dict(chained(own, base=base))
    assert "\n" not in str(caught.value)


REFUSED = {
    "DML beside a teacher": (
        {"teacher__stage": ""},
        {"s": student(method="dml")},
        "owns both of its networks",
    ),
    "SHAKE without a trained teacher": (
        {"teacher__stage": ""},
        {"s": student(method="shake")},
        "needs a trained teacher that stays as it is",
    ),
    "a trained teacher that learns": (
        {"teacher__method": "kd"},
        None,
        "a trained teacher that learns no more",
    ),
    "a trained teacher with a tutor": (
        {"tutor__stage": "gen0/gen0"},
        None,
        "a trained teacher that learns no more",
    ),
    "a trained teacher that is ahead": (
        {},
        {"s": student(plan="constant_ahead")},
        "needs a teacher that trains",
    ),
    "its initial weights": (
        {},
        {"s": student(init="same")},
        "config.teacher.stage brings it trained",
    ),
    "its clock": (
        {"student__optim__schedule_clock": "teacher"},
        None,
        "stands still where config.teacher.stage",
    ),
    "a teacher's clock for itself": (
        {"teacher__stage": "", "teacher__optim__schedule_clock": "teacher"},
        None,
        "schedule_clock='teacher' says nothing",
    ),
    "a teacher of two networks": (
        {"teacher__stage": "", "teacher__method": "dml"},
        None,
        r"teacher\.method='dml' is for students",
    ),
    "a taught teacher without a tutor": (
        {"teacher__stage": "", "teacher__method": "kd"},
        None,
        r"teacher\.method='kd' needs a trained network to learn from",
    ),
    "a tutor without a teacher": (
        {
            "teacher__stage": "",
            "teacher__model": "none",
            "tutor__stage": "gen0/gen0",
            "student__method": "hard",
        },
        None,
        "would teach the run's teacher",
    ),
    "a tutor that nobody hears": (
        {"teacher__stage": "", "tutor__stage": "gen0/gen0"},
        None,
        r"teacher\.method='hard' learns from no tutor",
    ),
}


def _chained_or_not(own, students=None):
    """Return the fields of a run, with the stage if it learns from it."""
    raw = chained(own, students=students)
    if own.get("teacher__stage") == "" and "tutor__stage" not in own:
        raw.stages = {}
    return raw


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_run_can_do_is_refused(what):
    own, students, words = REFUSED[what]
    config = from_config_dict(_chained_or_not(own, students))
    with pytest.raises(ConfigError, match=words):
        experiment.build(config, data.load(config.data))


MISFITS = {
    "other images": (
        {"data__image_size": 4},
        "4x4x3 images of 10 classes, but this run has 8x8x3 images",
    ),
    "other pixels": (
        {"data__normalization": "imagenet"},
        r"normalised otherwise .*normalization='imagenet'",
    ),
}


@pytest.mark.parametrize("what", MISFITS)
def test_a_stage_that_does_not_fit_is_refused_before_it_is_trained(what, tmp_path):
    """The mistake would show after hours, or never: the teacher would see badly."""
    fields, words = MISFITS[what]
    config = chained(base={"gen0": BASE["gen0"] | fields})
    with pytest.raises(ConfigError, match=words):
        spaced_kd.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


SUMMARIES = {
    "finished": ({}, "teacher mlp, trained in stage gen0/gen0; 3 epochs of 7 steps"),
    "tutored": (
        {"teacher__stage": "", "tutor__stage": "gen0/gen0", "teacher__method": "kd"},
        "teacher mlp (kd), taught by mlp of stage gen0/gen0: 21 updates in 3 epochs",
    ),
    "self-taught": (
        {"teacher__stage": "", "teacher__method": "ps_kd"},
        "teacher mlp (ps_kd): 21 updates in 3 epochs",
    ),
}


@pytest.mark.parametrize("kind", SUMMARIES)
def test_a_run_says_first_how_its_teacher_comes_about(kind):
    own, words = SUMMARIES[kind]
    config = from_config_dict(_chained_or_not(own))
    first, *_ = ledger.summary(experiment.build(config, data.load(config.data)))
    assert first.startswith(words)


@pytest.mark.parametrize("compat", config_lib.COMPAT)
def test_a_trained_teacher_is_in_eval_mode_whatever_compat_says(compat):
    """The paper's and the released choices are about a teacher in training."""
    config = from_config_dict(chained({"compat": compat}))
    (arm,) = {(s.teacher_bn, s.init) for s in config.students.values()}
    assert arm == ("running", "different")
    # A stage is a run of its own, which follows its own field.
    assert config.stages["gen0"].compat == "recommended"


def test_a_stage_shares_the_seeds_of_the_run_and_nothing_else_of_its_training():
    own = {"seed": 5, "num_seeds": 3, "data__dir": "there", "num_epochs": 7}
    stage = from_config_dict(chained(own)).stages["gen0"]
    assert (stage.seed, stage.num_seeds, stage.data.dir) == (5, 3, "there")
    assert stage.num_epochs == 3


def test_a_network_that_learned_with_a_peer_teaches_without_it():
    """Two networks would be given where one is expected."""
    fields = chained()
    fields.stages.gen0.students = {"gen0": student(method="dml", dml_peer="tiny_cnn")}
    config, sets = from_config_dict(fields), {}
    stages.load_data(config, sets)
    stages.refuse_misfit(config, sets)
    assert config.teacher.model == "mlp"

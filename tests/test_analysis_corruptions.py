"""The analysis "corruptions": which images, which numbers, which tables."""

import base64
import dataclasses
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from spaced_kd import analyze, corruption, style
from spaced_kd.analysis import corruptions
from spaced_kd.analysis.base import Found, Row
from spaced_kd.analysis.corruptions import images as corrupted_images
from spaced_kd.analysis.corruptions.images import of_run
from spaced_kd.analysis.corruptions.options import Options
from spaced_kd.analysis.subject import open_run, outputs_of
from spaced_kd.config import DataConfig
from spaced_kd.corruption.frost_photos import FILES
from spaced_kd.data import corrupted_files
from spaced_kd.errors import ConfigError, DataError
from spaced_kd.types import Dataset, Split

OPTIONS = Options(
    names="impulse_noise,brightness", severities="5,1", constants="cifar_c"
)


@pytest.fixture(scope="module")
def run(analysed_run):
    return open_run(analysed_run.workdir)


@pytest.fixture
def made(monkeypatch):
    """What was corrupted, in order."""
    calls = []
    original = corruption.corrupt_all

    def counted(image, name, severity, *others):
        calls.append((name, severity, len(image)))
        return original(image, name, severity, *others)

    monkeypatch.setattr(corruption, "corrupt_all", counted)
    return calls


def test_accuracy_is_that_of_the_corrupted_images(run, analysed_run):
    """By applying the network to images that were corrupted one by one."""
    subject = run.subject("spaced", 4)
    values = corruptions.measure(subject, OPTIONS)
    test = run.split("test", 0, "count")
    for name in ("impulse_noise", "brightness"):
        for severity in (1, 5):
            image = corruption.corrupt_all(test.image, name, severity, "cifar_c", 0)
            prepared = run.prepare(image)
            logits = outputs_of(subject.model, subject.variables, prepared).logits
            expected = 100 * np.mean(np.asarray(logits).argmax(-1) == test.label)
            found = values["accuracy"][name][str(severity)]
            assert found == pytest.approx(expected, abs=1e-4)
            relative = values["relative"][name][str(severity)]
            assert relative == pytest.approx(100 * expected / values["clean"])
    told = analysed_run.results.networks["spaced"].acc1_last.per_seed[1]
    assert values["clean"] == pytest.approx(told)
    assert list(values["accuracy"]["brightness"]) == ["1", "5"]
    assert (values["source"], values["examples"]) == ("own", 40)
    # The test can tell corrupted images from clean ones.
    assert values["accuracy"]["impulse_noise"]["5"] < values["clean"]


def test_images_are_made_once_for_all_networks(run, made):
    options = dataclasses.replace(OPTIONS, seed=1)
    first = corruptions.measure(run.subject("online", 3), options)
    assert sorted(made) == sorted(
        (name, s, 40) for name in ("impulse_noise", "brightness") for s in (1, 5)
    )
    corruptions.measure(run.subject("teacher", 3), options)
    assert len(made) == 4
    assert corruptions.measure(run.subject("online", 3), options) == first


def test_images_that_do_not_fit_are_made_again(run, made, monkeypatch):
    monkeypatch.setattr(corrupted_images, "_MIB", 40 * 8 * 8 * 3)
    options = dataclasses.replace(OPTIONS, memory_mib=1, seed=2)
    first = corruptions.measure(run.subject("online", 3), options)
    assert corruptions.measure(run.subject("online", 3), options) == first
    # One of the four fits.
    assert len(made) == 4 + 3


def test_a_part_of_the_test_images(run):
    options = dataclasses.replace(OPTIONS, num_examples=20)
    images = of_run(run, options)
    assert np.bincount(images.clean.label).tolist() == [2] * 10
    whole = {name: split for name, _, split in of_run(run, OPTIONS).every()}
    part = {name: split for name, _, split in images.every()}
    # An image is corrupted in the same way, whatever lies beside it.
    known = {image.tobytes() for image in whole["impulse_noise"].image}
    assert {image.tobytes() for image in part["impulse_noise"].image} <= known


def test_pictures_are_the_first_test_image(run):
    found = corruptions.pictures(run, OPTIONS)["pictures"]
    image = run.split("test", 0, "count").image[:1]
    assert list(found)[:3] == ["clean", "impulse_noise/1", "impulse_noise/5"]
    for name, content in found.items():
        expected = image
        if name != "clean":
            kind, severity = name.split("/")
            expected = corruption.corrupt_all(image, kind, int(severity), "cifar_c", 0)
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        np.testing.assert_array_equal(shown, expected[0])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("names", "snow,frots", "names='frots' is unknown; did you mean 'frost'"),
        ("names", "paper,fog", "'paper' or 'all' must stand alone"),
        ("names", " ,", "names is empty"),
        ("severities", "1,6", "severities='6' is unknown"),
        ("severities", "", "severities is empty"),
    ],
)
def test_lists_that_cannot_be_are_refused_with_the_options(option, value, message):
    with pytest.raises(ConfigError, match=message) as told:
        Options(**{option: value})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("source", "official", "none are published for fake; give own or auto"),
        ("dir", "/nowhere", "dir=/nowhere: none are published for fake"),
        ("num_examples", 7, "corruptions.num_examples=7"),
    ],
)
def test_what_a_run_cannot_give_is_refused_by_the_check(run, option, value, message):
    with pytest.raises(ConfigError, match=message) as told:
        corruptions.ANALYSIS.check(run, Options(**{option: value}))
    assert "\n" not in str(told.value)


def test_missing_photographs_are_found_by_the_check(run, photographs):
    options = Options(names="fog,frost", frost_dir=str(photographs))
    corruptions.ANALYSIS.check(run, options)
    (photographs / "frost4.jpg").unlink()
    with pytest.raises(DataError, match="frost4.jpg cannot be read"):
        corruptions.ANALYSIS.check(run, options)
    # They are nobody's business without frost.
    corruptions.ANALYSIS.check(run, dataclasses.replace(options, names="fog"))


def test_names():
    assert Options().corruptions == corruption.PAPER
    assert Options().levels == (1, 3, 5)
    assert Options(names="all").corruptions == tuple(corruption.CORRUPTIONS)
    assert Options(names="fog, snow,fog").corruptions == ("fog", "snow")


@pytest.fixture
def photographs(tmp_path):
    """A folder of five small pictures with the names of the photographs."""
    folder = tmp_path / "frost"
    folder.mkdir()
    for name in FILES:
        Image.new("RGB", (9, 9), (200, 210, 220)).save(folder / name)
    return folder


def test_other_photographs_are_other_inputs(run, photographs):
    """And other pictures: none that were read before are kept."""
    options = Options(names="frost", severities="5", frost_dir=str(photographs))
    first = corruptions.ANALYSIS.inputs(run, options)
    expected = {
        name: hashlib.sha256((photographs / name).read_bytes()).hexdigest()
        for name in FILES
    }
    assert first == {"source": "own", "files": expected}
    bright = corruptions.pictures(run, options)
    for name in FILES:
        Image.new("RGB", (9, 9), (0, 0, 0)).save(photographs / name)
    second = corruptions.ANALYSIS.inputs(run, options)
    assert all(first["files"][name] != second["files"][name] for name in FILES)
    assert corruptions.pictures(run, options) != bright


def test_what_is_made_here_reads_no_files(run, photographs):
    without = Options(names="fog", frost_dir=str(photographs))
    for options in (without, Options(names="frost")):
        told = corruptions.ANALYSIS.inputs(run, options)
        assert told == {"source": "own", "files": {}}


class SmallRun:
    """What `of_run` reads of a run on images that have published corruptions."""

    def __init__(self, folder, **fields):
        rng = np.random.default_rng(0)
        label = np.repeat(np.arange(10, dtype=np.int32), 2)
        self.test = Split(rng.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8), label)
        data = DataConfig(name="fake", dir=str(folder), **fields)
        self.config = type("Config", (), {"data": data})
        self.dataset = Dataset("fake", self.test, self.test, 10, (), (), "")

    def split(self, which, count, field):
        return Split(*(array[: count or 20] for array in self.test))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published set for the data set "fake", in another order."""
    monkeypatch.setitem(corrupted_files.FOLDERS, "fake", "Fake-C")
    folder = tmp_path / "Fake-C"
    folder.mkdir()
    image = np.random.default_rng(1).integers(0, 256, (100, 8, 8, 3)).astype(np.uint8)
    np.save(folder / "fog.npy", image)
    np.save(folder / "labels.npy", np.tile(np.arange(20) % 10, 5))
    return folder, image


def test_published_images_are_taken_where_they_lie(published):
    folder, image = published
    run = SmallRun(folder.parent)
    images = of_run(run, Options(names="fog", severities="2"))
    assert images.source == "official"
    ((name, severity, split),) = images.every()
    assert (name, severity) == ("fog", 2)
    np.testing.assert_array_equal(split.image, image[20:40])
    np.testing.assert_array_equal(split.label, np.arange(20) % 10)
    own = of_run(run, Options(names="fog", severities="2", source="own"))
    assert own.source == "own"
    pictures = corruptions.pictures(run, Options(names="fog", severities="2"))
    assert list(pictures["pictures"]) == ["fog/2"]


def test_a_published_set_that_appears_or_changes_is_another_input(published, tmp_path):
    """With `source=auto`; a run is opened anew for each analysis."""
    folder, image = published
    options = Options(names="fog", severities="2")
    told = lambda: corruptions.ANALYSIS.inputs(SmallRun(tmp_path), options)
    first = told()
    assert first["source"] == "official"
    assert list(first["files"]) == ["fog.npy", "labels.npy"]
    np.save(folder / "snow.npy", image)
    assert told() == first
    np.save(folder / "fog.npy", 255 - image)
    assert told()["files"]["fog.npy"] != first["files"]["fog.npy"]
    folder.rename(tmp_path / "elsewhere")
    assert told() == {"source": "own", "files": {}}


def test_missing_published_files_are_found_by_the_check(published):
    folder, _ = published
    run = SmallRun(folder.parent)
    corruptions.ANALYSIS.check(run, Options(names="fog", source="official"))
    options = Options(names="fog,snow", source="official")
    with pytest.raises(DataError, match="snow.npy cannot be read"):
        corruptions.ANALYSIS.check(run, options)


@pytest.mark.parametrize(
    ("fields", "count"), [({"num_test_examples": 20}, 0), ({}, 10)], ids=str
)
def test_published_images_are_of_the_whole_split_only(published, fields, count, caplog):
    folder, _ = published
    run = SmallRun(folder.parent, **fields)
    given = {"names": "fog", "num_examples": count}
    assert of_run(run, Options(**given)).source == "own"
    assert "are not used: they are of the whole test split" in caplog.text
    with pytest.raises(ConfigError, match="source=official: they are of the whole"):
        of_run(run, Options(source="official", **given))


def test_published_images_of_other_labels_are_refused(published):
    folder, _ = published
    np.save(folder / "labels.npy", np.tile(np.arange(20) % 9, 5))
    images = of_run(SmallRun(folder.parent), Options(names="fog"))
    with pytest.raises(DataError, match="have other labels than the 20 of the run's"):
        list(images.every())


def values(clean, snow, fog):
    accuracy = {"snow": {"1": snow}, "fog": {"1": fog}}
    relative = {name: {"1": 100 * acc["1"] / clean} for name, acc in accuracy.items()}
    return {
        "source": "own",
        "examples": 50,
        "clean": clean,
        "accuracy": accuracy,
        "relative": relative,
    }


FOUND = Found(
    config={"reference": "online"},
    options=dataclasses.asdict(Options(names="snow,fog", severities="1")),
    once={},
    rows=[
        Row("online", 0, 10, 1.0, values(80.0, 40.0, 20.0)),
        Row("online", 1, 10, 1.0, values(60.0, 30.0, 30.0)),
        Row("spaced", 0, 10, 1.0, values(80.0, 44.0, 22.0)),
        Row("spaced", 1, 10, 1.0, values(50.0, 32.0, 34.0)),
    ],
)


def test_the_table_holds_means_and_paired_differences():
    table = corruptions.ANALYSIS.table(FOUND)
    assert table is not None
    assert table.titles == ("network", "severity", "clean", "snow", "fog", "mean")
    rows = {row[:2]: row[2:] for row in table.rows}
    assert rows["online", "1, %"] == (
        "70.00 ± 14.14",
        "35.00 ± 7.07",
        "25.00 ± 7.07",
        "30.00 ± 0.00",
    )
    # Seed by seed: 4 and 2 points, 2 and 4; their means 3 and 3.
    assert rows["spaced - online", "1, %"][1:] == (
        "+3.00 ± 1.41",
        "+3.00 ± 1.41",
        "+3.00 ± 0.00",
    )
    # 40 of 80 and 30 of 60; 44 of 80 and 32 of 50.
    assert rows["online", "1, % of clean"][1] == "50.00 ± 0.00"
    assert rows["spaced - online", "1, % of clean"][1] == "+9.50 ± 6.36"
    assert "constants of imagenet_c, seed 0; 50 test images" in table.notes[0]


def test_the_notes_tell_made_frost_and_published_images():
    options = dataclasses.asdict(Options(names="snow,fog,frost", severities="1"))
    rows = [
        row._replace(
            values=row.values
            | {
                kind: row.values[kind] | {"frost": {"1": 1.0}}
                for kind in ("accuracy", "relative")
            }
        )
        for row in FOUND.rows
    ]
    found = FOUND._replace(options=options, rows=rows)
    table = corruptions.ANALYSIS.table(found)
    assert table and "pictures of our own" in table.notes[0]
    found.rows[0].values["source"] = "official"
    table = corruptions.ANALYSIS.table(found)
    assert table and table.notes[0].startswith("The images are the published")


def test_figures_have_a_panel_for_each_corruption():
    looks = style.line_looks(["online", "spaced"])
    with style.drawing():
        drawn = corruptions.ANALYSIS.figures(FOUND, looks)
    assert [stem for stem, _, _ in drawn] == [
        "corruptions_severity",
        "corruptions_pictures",
    ]
    courses, pictures = drawn[0][2], drawn[1][2]
    assert courses is not None and pictures is None
    first, second = (axes for axes in courses.axes if axes.get_visible())
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["snow", "fog"]
    lines = [box.lines[0] for box in first.containers]
    np.testing.assert_allclose(lines[0].get_ydata(orig=False), [70.0, 35.0])
    np.testing.assert_allclose(lines[1].get_ydata(orig=False), [65.0, 38.0])
    np.testing.assert_allclose(lines[0].get_xdata(orig=False), [0, 1])


def test_from_the_command_to_the_figures(analysed_run, tmp_path):
    """What lies in `analysis.json` is enough for the table and both figures."""
    found = analyze.analyze(
        analysed_run.copy(tmp_path / "run"),
        ["corruptions"],
        networks=["online"],
        options={"corruptions": {"names": "snow,frost", "severities": "1,5"}},
    )["corruptions"]
    table = corruptions.ANALYSIS.table(found)
    # Accuracy and relative accuracy at two severities, of one network.
    assert table is not None and len(table.rows) == 4
    with style.drawing():
        (_, _, courses), (stem, _, pictures) = corruptions.ANALYSIS.figures(
            found, style.line_looks(["online"])
        )
        assert courses is not None and pictures is not None
        style.save(pictures, tmp_path / stem)
    assert [axes.images[0].get_array().shape for axes in pictures.axes] == [
        (8, 8, 3)
    ] * 6
    assert (tmp_path / f"{stem}.png").exists()


def test_a_table_never_mixes_two_sets_of_photographs(
    analysed_run, photographs, tmp_path
):
    workdir = analysed_run.copy(tmp_path / "run")
    given = {"names": "frost", "severities": "5", "frost_dir": str(photographs)}

    def networks(*names):
        found = analyze.analyze(
            workdir,
            ["corruptions"],
            networks=names,
            seeds=[3],
            options={"corruptions": given},
        )
        return found["corruptions"].networks

    networks("online")
    assert networks("spaced") == ["online", "spaced"]
    Image.new("RGB", (9, 9), (0, 0, 0)).save(photographs / "frost2.png")
    assert networks("spaced") == ["spaced"]

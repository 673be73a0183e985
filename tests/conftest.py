"""Four CPU devices for every test, and a compiler in a hurry (`compiler.py`)."""

import collections
import os
import pathlib
import shutil
import urllib.error
import urllib.request
from typing import NamedTuple

import compiler
import jax
import pytest
import tiny

from spaced_kd import backend, train
from spaced_kd.config import student
from spaced_kd.models import MODELS
from spaced_kd.results import Results

compiler.set_flags()
backend.configure()
compiler.keep_programs()
compiler.trace_quickly()
jax.config.update("jax_num_cpu_devices", 4)


# The files that take longest, by name: one of them begun last would keep one of two
# processes waiting for the other.
LONGEST = (
    "reproduce",
    "train",
    "multihost",
    "torch_parity",
    "compiled",
    "steps",
    "checkpoint",
    "analyze",
    "configs",
    "self_kd",
    "stages",
    "grid",
    "bench",
    "streamed",
    "methods_memory",
    "methods_hetero",
)


def pytest_collection_modifyitems(items):
    """The longest files first, then those with most tests; their tests as they were."""
    first = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    tests = collections.Counter(item.path for item in items)
    place = lambda item: first.get(item.path.name, len(first))
    items.sort(key=lambda item: (place(item), -tests[item.path], item.path))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before fixtures, which compile too."""
    compiler.use(real=item.get_closest_marker("real_compiler") is not None)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Folder with real data sets, or a skip that says why."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("SPACED_KD_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(
            f"needs the shared data: no folder {folder}; set SPACED_KD_TEST_DATA"
        )
    return folder


class AnalysedRun(NamedTuple):
    """A finished run of two seeds with snapshots; never written to."""

    workdir: pathlib.Path
    results: Results

    def copy(self, to: pathlib.Path) -> pathlib.Path:
        """Return a copy of the workdir, which may be written to."""
        return pathlib.Path(shutil.copytree(self.workdir, to))


@pytest.fixture(scope="session")
def analysed_run(tmp_path_factory) -> AnalysedRun:
    """Tiny networks on synthetic 8x8 images, for analyses."""
    students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced": student(plan="spaced", space_interval_epochs=0.5),
    }
    config = tiny.config(
        students,
        seed=3,
        num_seeds=2,
        num_epochs=2,
        data__last_batch="drop",
        checkpoint__snapshot_every=1,
    )
    workdir = tmp_path_factory.mktemp("analysed")
    return AnalysedRun(workdir, train.run(config, workdir))


@pytest.fixture(autouse=True)
def tiny_cnn(monkeypatch):
    """Networks with convolution and BatchNorm that compile in a moment."""
    for name, network in tiny.NETWORKS.items():
        monkeypatch.setitem(MODELS, name, network)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test may reach the network; each request fails as if there were none."""

    def refuse(self, *args, **kwargs):
        raise urllib.error.URLError(OSError("Name or service not known"))

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)

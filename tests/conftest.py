"""Four CPU devices for every test, and the flags of a real run."""

import os
import pathlib
import shutil
import urllib.error
import urllib.request
from typing import NamedTuple

import jax
import pytest
import tiny

from spaced_kd import backend, train
from spaced_kd.config import student
from spaced_kd.models import MODELS
from spaced_kd.results import Results

# Where other programs keep the machine busy, virtual devices may wait for one another
# longer than the 40 seconds after which XLA ends the process.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} "
    "--xla_cpu_collective_call_terminate_timeout_seconds=600"
).strip()
backend.configure()
jax.config.update("jax_num_cpu_devices", 4)


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
    with tiny.without_reports():
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

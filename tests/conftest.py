"""Four CPU devices for every test, and the flags of a real run."""

import os
import pathlib
import urllib.error
import urllib.request

import jax
import pytest
import tiny

from spaced_kd import backend
from spaced_kd.models import MODELS

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

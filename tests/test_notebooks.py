"""Notebooks run from top to bottom, and a run behaves well in one."""

import logging
import os
import pathlib
import queue
import sys
import types

import jupytext
import nbclient
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

import spaced_kd
from spaced_kd import notebook
from spaced_kd.config import base_config
from spaced_kd.errors import ConfigError, Interrupted

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.fixture
def kernel_environment(monkeypatch):
    """Kernels import this tree, compute on the CPU and take the small settings."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("SPACED_KD_SMOKE", "1")


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {
        "quickstart",
        "own_data_and_model",
        "analysis",
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, kernel_environment, tmp_path):
    """As a reader runs it: in a kernel, in an empty folder, with nothing set up."""
    executed = jupytext.read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(executed, timeout=300, resources=resources).execute()
    if keep := os.environ.get("SPACED_KD_KEEP_NOTEBOOKS"):
        nbformat.write(executed, pathlib.Path(keep) / f"{path.stem}.ipynb")
    outputs = [out for cell in executed.cells for out in cell.get("outputs", [])]
    # A picture that cannot be shown ends no cell.
    assert not [out for out in outputs if out.output_type == "error"]
    texts = [out.text for out in outputs if out.output_type == "stream"]
    assert any(text.startswith("teacher ") for text in texts)  # the plan
    shown = [out.data for out in outputs if "data" in out]
    assert any("<table>" in data.get("text/html", "") for data in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_file_for_colab_is_the_source_without_outputs(path):
    """Colab would open an older text; remedy: launch/notebooks.sh."""
    source, made = jupytext.read(path), nbformat.read(path.with_suffix(".ipynb"), 4)
    cells = lambda book: [(cell.cell_type, cell.source) for cell in book.cells]
    assert cells(made) == cells(source)
    assert not any(cell.get("outputs") for cell in made.cells)
    assert made.metadata["accelerator"] == source.metadata["accelerator"] == "GPU"


LONG = """
import spaced_kd
from spaced_kd.config import base_config
from spaced_kd.config import base_config, student
config = base_config()
config.num_seeds, config.num_epochs, config.num_devices = 1, 5000, 1
config.data.name = "fake"
config.data.crop_padding, config.data.horizontal_flip = 0, False
config.data.rotation_degrees = 0.0
config.teacher.model = config.student.model = "mlp"
config.students = {"online": student(plan="online")}
spaced_kd.run(config, "run")
"""


@pytest.mark.slow
def test_an_interrupted_cell_saves_and_says_so_in_one_line(
    kernel_environment, tmp_path
):
    """A reader would see a traceback of the package, and not know what is saved."""
    manager, client = start_new_kernel(cwd=str(tmp_path))
    try:
        client.execute(LONG)
        while "compiling" not in _next(client, "stream")["text"]:
            pass
        manager.interrupt_kernel()
        (line,) = _next(client, "error")["traceback"]
        workdir = tmp_path / "run"
        assert line.startswith("stopped: by SIGINT at tick "), line
        assert line.endswith(f"continue from the last checkpoint in {workdir}.")
        assert list((workdir / "checkpoints").iterdir())
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _next(client, kind: str) -> dict:
    while True:
        try:
            message = client.get_iopub_msg(timeout=120)
        except queue.Empty:
            pytest.fail(f"the kernel sends no {kind}")
        if message["msg_type"] == kind:
            return message["content"]


def test_the_packages_errors_are_one_line_in_a_notebook():
    """IPython asks an exception for what to show instead of its traceback."""
    assert ConfigError("a=1; give 2.")._render_traceback_() == ["error: a=1; give 2."]
    assert Interrupted("by SIGINT.")._render_traceback_() == ["stopped: by SIGINT."]


@pytest.fixture
def log(monkeypatch):
    """The package's log as a fresh process has it."""
    log = logging.Logger("spaced_kd")
    monkeypatch.setattr(notebook, "_log", log)
    return log


def _pretend_kernel(monkeypatch, shell):
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)


def test_the_log_is_shown_in_a_notebook_once(log, monkeypatch, capsys):
    """The plan of a run would stay unseen, or come twice when a cell runs again."""
    _pretend_kernel(monkeypatch, types.SimpleNamespace(kernel="one"))
    for _ in range(2):
        notebook.show_log()
    log.info("online: 40 updates")
    assert capsys.readouterr().out == "online: 40 updates\n"


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace()])
def test_outside_a_notebook_the_log_is_the_users_business(log, monkeypatch, shell):
    """A library that sets logging up would print into other people's programs."""
    _pretend_kernel(monkeypatch, shell)
    notebook.show_log()
    assert (log.level, log.handlers) == (logging.NOTSET, [])


def test_a_level_that_the_user_chose_stays(log, monkeypatch):
    _pretend_kernel(monkeypatch, types.SimpleNamespace(kernel="one"))
    log.setLevel(logging.ERROR)
    notebook.show_log()
    assert (log.level, log.handlers) == (logging.ERROR, [])


def test_the_public_run_shows_the_log(monkeypatch):
    """What a notebook calls is `spaced_kd.run`."""
    called = []
    monkeypatch.setattr(notebook, "show_log", lambda: called.append("log"))
    with pytest.raises(ConfigError):
        spaced_kd.run(base_config(), "never")
    assert called == ["log"]

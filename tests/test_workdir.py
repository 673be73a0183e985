"""A run's folder: one writer, one configuration, an honest note of where it ran."""

import dataclasses
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from spaced_kd import config as config_lib
from spaced_kd import workdir
from spaced_kd.config import base_config, from_config_dict, student
from spaced_kd.errors import CheckpointError, LockedError, StorageError

ROOT = Path(__file__).parents[1]


def make_config(**overrides):
    """Return a resolved config with dotted overrides (`data__name`)."""
    config = base_config()
    config.students.spaced_1_5 = student(plan="spaced")
    for name, value in overrides.items():
        *path, last = name.split("__")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return from_config_dict(config)


def run_child(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def test_second_writer_is_refused_and_told_whom_to_ask(tmp_path):
    """Two runs would overwrite each other's checkpoints."""
    with workdir.lock(tmp_path / "new/run"):
        with (
            pytest.raises(LockedError) as caught,
            workdir.lock(tmp_path / "new/run"),
        ):
            pass
        holder = json.loads((tmp_path / "new/run/.lock").read_text())
    message = str(caught.value)
    assert f"process {os.getpid()} on {socket.gethostname()}, started 20" in message
    assert holder["time"] in message and "\n" not in message
    with workdir.lock(tmp_path / "new/run"):
        pass


def test_lock_is_given_back_when_the_block_fails(tmp_path):
    """A notebook could not start again after an error."""
    with pytest.raises(KeyError), workdir.lock(tmp_path):
        raise KeyError
    with workdir.lock(tmp_path):
        pass


HOLD = """
import sys, time
from pathlib import Path
from spaced_kd import workdir
with workdir.lock(Path(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(60)
"""


def test_lock_dies_with_a_killed_process(tmp_path):
    """After a power cut or kill -9 somebody would have to delete the lock by hand."""
    with run_child(HOLD, tmp_path) as child:
        assert child.stdout.readline() == "holding\n"
        with pytest.raises(LockedError, match=f"process {child.pid} "):
            workdir.lock(tmp_path).__enter__()
        child.kill()
    with workdir.lock(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".lock").read_text()


RACE = """
import os, sys, time
from pathlib import Path
from spaced_kd import workdir
from spaced_kd.errors import LockedError
gate, opener = os.pipe()
for _ in range(20):  # No backend runs yet: forking is safe, and saves 20 imports.
    if not os.fork():
        os.close(opener)
        os.read(gate, 1)  # Returns in all of them when the parent closes its end.
        try:
            with workdir.lock(Path(sys.argv[1])):
                os.write(1, f"won {os.getpid()}\\n".encode())
                time.sleep(2)
        except LockedError as error:
            os.write(1, f"lost {error}\\n".encode())
        os._exit(0)
os.close(opener)
for _ in range(20):
    os.wait()
"""


def test_of_20_simultaneous_starts_one_wins(tmp_path):
    """A job array started twice would have several writers."""
    (tmp_path / ".lock").write_text('{"host": "x", "pid": 1, "time": "long ago"}')
    with run_child(RACE, tmp_path) as child:
        lines = child.stdout.read().splitlines()
        stderr = child.stderr.read()
    winners = [line.split()[1] for line in lines if line.startswith("won")]
    losers = [line for line in lines if line.startswith("lost")]
    assert (len(winners), len(losers)) == (1, 19), stderr
    assert all(f"process {winners[0]} on" in line for line in losers)


READ_ONLY = """
import os, sys
from pathlib import Path
from spaced_kd import workdir
from spaced_kd.errors import StorageError
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with workdir.lock(Path(sys.argv[1])):
        print("locked")
except StorageError as error:
    print(error)
"""


def test_folder_without_permission_is_one_line(tmp_path):
    """A user without access would get a page of traceback."""
    (tmp_path / "theirs").mkdir(mode=0o500)
    with run_child(READ_ONLY, tmp_path / "theirs/run") as child:
        (line,) = child.stdout.read().splitlines()
    assert str(tmp_path / "theirs/run") in line and "Permission denied" in line


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_bad_disk_at_the_start_is_one_line(tmp_path, monkeypatch, code):
    """A read-only or full disk would get a page of traceback."""

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    for function in ("mkdir", "open", "ftruncate"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(StorageError, match=os.strerror(code)) as caught:
                workdir.lock(tmp_path / function).__enter__()
        assert str(tmp_path / function) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_file_or_link_in_place_of_the_folder_or_lock_is_refused(tmp_path):
    """A link named .lock would empty the file that it leads to."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/.lock").symlink_to(tmp_path / "file")
    for name in ("file", "folder"):
        with pytest.raises(StorageError, match=name):
            workdir.lock(tmp_path / name).__enter__()
    assert (tmp_path / "file").read_text() == "mine"


def test_first_claim_writes_and_the_same_run_continues(tmp_path):
    """A resumed run would be refused, or config.json would not say what ran."""
    config = make_config(num_epochs=7)
    (tmp_path / "notes.txt").write_text("somebody's")
    assert workdir.claim(tmp_path, config, "f00d") is False
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["config"] == config_lib.to_dict(config)
    assert stored["fingerprint"] == config_lib.fingerprint(config)
    assert (stored["data_fingerprint"], stored["format"]) == ("f00d", 1)
    before = (tmp_path / "config.json").read_bytes()
    assert workdir.claim(tmp_path, config, "f00d") is True
    assert (tmp_path / "config.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["config.json", "notes.txt"]


def test_operational_fields_may_change(tmp_path):
    """Moving the data or saving more often would cost the run."""
    workdir.claim(tmp_path, make_config(), "f00d")
    moved = make_config(
        data__dir="/elsewhere",
        checkpoint__keep=5,
        progress="none",
        reference="spaced_1_5",
    )
    assert workdir.claim(tmp_path, moved, "f00d") is True
    stored = json.loads((tmp_path / "config.json").read_text())["config"]
    assert (stored["reference"], stored["data"]["dir"]) == ("spaced_1_5", "/elsewhere")


def numeric_changes(node, prefix=""):
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if field.name in ("students", "student") or field.metadata.get("operational"):
            continue
        if dataclasses.is_dataclass(value):
            yield from numeric_changes(value, f"{prefix}{field.name}.")
        elif type(value) is float:
            yield f"{prefix}{field.name}", value / 2 or 0.5
        elif type(value) is int:
            yield f"{prefix}{field.name}", value + 1
        elif type(value) is bool:
            yield f"{prefix}{field.name}", not value


@pytest.mark.parametrize(("name", "value"), [*numeric_changes(config_lib.Config())])
def test_every_changed_number_is_refused_by_name(tmp_path, name, value):
    """A run would continue with other settings than those it began with."""
    config = make_config()
    workdir.claim(tmp_path, config, "f00d")
    before = (tmp_path / "config.json").read_bytes()
    changed = make_config(**{name.replace(".", "__"): value})
    old = config_lib.science(config)[name]
    with pytest.raises(CheckpointError) as caught:
        workdir.claim(tmp_path, changed, "f00d")
    shown = f"config.{name}: {json.dumps(old)} -> {json.dumps(value)}"
    assert shown in str(caught.value) and "another --workdir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_many_changes_show_five_and_count_the_rest(tmp_path):
    """A message about a new student would be pages long."""
    config = make_config()
    workdir.claim(tmp_path, config, "f00d")
    added = dataclasses.replace(
        config, students=config.students | {"again": config.students["spaced_1_5"]}
    )
    new = len(config_lib.science(added)) - len(config_lib.science(config))
    with pytest.raises(CheckpointError) as caught:
        workdir.claim(tmp_path, added, "f00d")
    message = str(caught.value)
    assert message.count(": absent -> ") == 5 and f"(+ {new - 5} more)" in message
    assert "config.students.again." in message
    removed = tmp_path / "removed"
    removed.mkdir()
    workdir.claim(removed, added, "f00d")
    with pytest.raises(CheckpointError, match="again.\\w+.*: .* -> absent"):
        workdir.claim(removed, config, "f00d")


def test_changed_data_is_refused(tmp_path):
    """A run would go on with other images under the same name."""
    workdir.claim(tmp_path, make_config(), "f00d")
    with pytest.raises(
        CheckpointError, match="data_fingerprint: f00d -> beef"
    ) as caught:
        workdir.claim(tmp_path, make_config(), "beef")
    assert "another --workdir" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format": 2, "science": {}}', '{"format": 1}', "\udcff"],
)
def test_damaged_or_foreign_config_is_refused_and_kept(tmp_path, content):
    """A run would continue, or overwrite, what it does not understand."""
    path = tmp_path / "config.json"
    path.write_text(content, errors="surrogateescape")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="config.json") as caught:
        workdir.claim(tmp_path, make_config(), "f00d")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_environment_is_recorded_and_every_start_counted(tmp_path, monkeypatch):
    """A result could not be traced to versions, devices and restarts."""
    monkeypatch.setenv("SOME_TOKEN", "very-secret")
    monkeypatch.setattr(sys, "argv", ["main.py", "--workdir=x"])
    workdir.write_env(tmp_path, 4)
    monkeypatch.setattr(sys, "argv", ["main.py", "--workdir=y"])
    workdir.write_env(tmp_path, 4)
    workdir.write_env(tmp_path, 4)
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["command"] == ["main.py", "--workdir=y"]
    assert env["versions"]["jax"] == jax.__version__
    names = "flax jax jaxlib numpy optax orbax-checkpoint python spaced_kd"
    assert sorted(env["versions"]) == names.split()
    assert env["devices"]["count"] == len(jax.devices())
    assert env["devices"]["backend"] == jax.default_backend()
    assert env["xla_flags"] == os.environ.get("XLA_FLAGS", "")
    first, second, third = env["starts"]
    assert first.keys() == third.keys() == {"time", "pid", "host"}
    assert second["before"] == {"command": ["main.py", "--workdir=x"]}
    assert "very-secret" not in (tmp_path / "env.json").read_text()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_state_is_that_of_the_package_only(tmp_path):
    """A wrong commit would be recorded, e.g. of the project that installed us."""

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")
    assert workdir._git(package) is None
    git("init", "--quiet")
    assert workdir._git(package) is None
    git("add", ".")
    git("commit", "--quiet", "-m", "x")
    clean = workdir._git(package)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (package / "a.py").write_text("2")
    assert workdir._git(package) == clean | {"dirty": True}
    installed = tmp_path / ".venv"
    installed.mkdir()
    (installed / "a.py").write_text("1")
    assert workdir._git(installed) is None


def test_missing_git_is_no_error(tmp_path, monkeypatch):
    """A machine without git could not train."""
    monkeypatch.setenv("PATH", str(tmp_path))
    workdir.write_env(tmp_path, 4)
    assert json.loads((tmp_path / "env.json").read_text())["git"] is None


def test_json_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    """A kill or a full disk would leave half a file in place of a good one."""
    path = tmp_path / "a.json"
    workdir.write_json(path, {"b": [1, 0.1, None], "a": "\u00e9"})
    before = path.read_bytes()
    assert json.loads(before) == {"b": [1, 0.1, None], "a": "\u00e9"}
    assert before.index(b'"a"') < before.index(b'"b"') and before.endswith(b"}\n")
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            workdir.write_json(path, {"x": bad})

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(StorageError, match=r"a\.json: No space left") as caught:
                workdir.write_json(path, {"x": 1})
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(StorageError):
        workdir.write_json(tmp_path / "no/such/folder.json", {})


def test_another_number_of_devices_is_said_in_a_line(tmp_path, caplog):
    """The end would differ from an uninterrupted run, and nobody would know why."""
    workdir.write_env(tmp_path, 2)
    workdir.write_env(tmp_path, 2)
    assert not caplog.records
    workdir.write_env(tmp_path, 4)
    (record,) = caplog.records
    assert "goes on with 4 devices in 1 processes, before 2 in 1" in record.message
    assert "\n" not in record.message


def test_a_start_is_recognised_where_the_folder_is_shared_and_nowhere_else(tmp_path):
    """A process with a folder of its own would never find the checkpoints."""
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder in (shared, own):
        folder.mkdir()
        workdir.write_env(folder, 4)
    start = workdir.last_start(shared)
    assert workdir.waits_for_start(shared, start, seconds=0.0)
    workdir.write_env(own, 4)
    assert not workdir.waits_for_start(own, start, seconds=0.3)
    assert workdir.last_start(tmp_path) == ""
    workdir.write_env(shared, 4)
    assert not workdir.waits_for_start(shared, start, seconds=0.0)

"""Who is who in a run of several processes."""

import socket
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from spaced_kd import agreement, distributed, main, train
from spaced_kd.checkpoint import Checkpoint
from spaced_kd.distributed import Place, place
from spaced_kd.errors import CheckpointError, ConfigError, PeerError
from spaced_kd.peers import Peers


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for variable in distributed.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def test_without_flags_there_is_one_process():
    assert place(None, None, None) is None
    assert place("a:1", 1, 0) is None


def test_flags_say_who_this_is():
    assert place("node0:8476", 4, 3) == Place("node0", 8476, 4, 3)
    assert place("[::1]:8476", 2, 0) == Place("::1", 8476, 2, 0)


def test_the_environment_stands_in_for_flags_and_gives_way_to_them(monkeypatch):
    monkeypatch.setenv("SPACED_KD_COORDINATOR", "node0:8476")
    monkeypatch.setenv("SPACED_KD_NUM_PROCESSES", "4")
    monkeypatch.setenv("SPACED_KD_PROCESS_ID", "2")
    assert place(None, None, None) == Place("node0", 8476, 4, 2)
    assert place(None, None, 0) == Place("node0", 8476, 4, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("node0:1", None, 0), r"--num_processes \(\$SPACED_KD_NUM_PROCESSES\) is"),
        (("node0", 2, 0), "--coordinator=node0 is not host:port"),
        (("node0:99999", 2, 0), "--coordinator=node0:99999"),
        (("node0:1", 2, 2), "--process_id=2 with --num_processes=2"),
        (("node0:1", 0, 0), "--num_processes=0"),
        (("node0:1", "two", 0), "--num_processes=two is no integer"),
        (("node0:1", 2, 0, "auto"), "--distributed=auto finds --coordinator itself"),
        ((None, None, None, "auto"), "--distributed=auto finds neither Slurm"),
        ((None, None, None, "slurm"), "--distributed=slurm is unknown"),
    ],
)
def test_mistakes_are_one_line(arguments, words):
    with pytest.raises(ConfigError, match=words) as error:
        place(*arguments)
    assert "\n" not in str(error.value)


def test_slurm_tells_who_this_is(monkeypatch):
    """As srun sets them: the first node listed, a GPU for each process of a node."""
    for name, value in {
        "SLURM_JOB_ID": "4100",
        "SLURM_STEP_NODELIST": "node[007-008]",
        "SLURM_NTASKS": "8",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_NODES": "2",
    }.items():
        monkeypatch.setenv(name, value)
    # 65535 - 4096 + 1 + 4100 % 4096, by JAX's rule.
    assert place(None, None, None, "auto") == Place(
        "node007", 61444, 8, 5, (1,), detected=True
    )


def test_the_command_line_takes_the_flags(monkeypatch, tmp_path):
    (tmp_path / "c.py").write_text(
        "from spaced_kd.config import base_config as get_config"
    )
    arguments = [f"--config={tmp_path / 'c.py'}", "--workdir=w"]
    parse = lambda *more: main._parse(["spaced_kd", *arguments, *more])[2]
    assert parse() == (None, None, None, "")
    flags = ("--coordinator=a:1", "--num_processes=2", "--process_id=0")
    assert parse(*flags) == ("a:1", 2, 0, "")
    assert parse("--distributed=auto") == (None, None, None, "auto")


def test_one_process_joins_nothing():
    """A single run must not open a port nor start a thread."""
    with distributed.joined(None) as peers:
        assert type(peers) is Peers
    assert not jax.distributed.is_initialized()


class Group(Peers):
    """Peers that note with which words this process left."""

    left: tuple[int, str] = (0, "")

    def leave(self, code, message):
        self.left = self.left if self.left[0] else (code, message)


def test_a_jax_that_does_not_start_is_one_line_for_all(monkeypatch):
    """The others would wait for minutes for a process that has long ended."""
    group = Group(1, ["process 0 on a", "process 1 on b"])
    meet = lambda place, timeout: (group, "127.0.0.1:9", 8477)
    monkeypatch.setattr(distributed, "_meet", meet)

    def fail(*args, **kwargs):
        raise RuntimeError("DEADLINE_EXCEEDED: barrier\ntimed out")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    told = "process 1 did not start JAX (DEADLINE_EXCEEDED: barrier timed out); all "
    told += "processes must reach port 8477 of node0, process 0."
    place = Place("node0", 8476, 2, 1)
    with pytest.raises(PeerError) as error, distributed.joined(place):
        pass
    assert str(error.value) == told
    assert group.left == (8, told)


@pytest.mark.parametrize(("detected", "wanted"), [(False, 8477), (True, 0)])
def test_the_second_port_follows_the_first(detected, wanted, monkeypatch):
    """A firewall can be told it; the next one of a cluster's job is the next job's."""
    asked = []
    monkeypatch.setattr(distributed, "_free_port", lambda p: asked.append(p) or 5555)
    hub = lambda address, count, version, service, timeout: service
    monkeypatch.setattr(distributed.rendezvous, "open_hub", hub)
    found = distributed._meet(Place("n", 8476, 2, 0, detected=detected), 1.0)
    assert found == (5555, "127.0.0.1:5555", 5555)
    assert asked == [wanted]


def test_a_second_port_in_use_gives_way_to_a_free_one():
    with socket.create_server(("", 0)) as server:
        taken = server.getsockname()[1]
        assert distributed._free_port(taken) != taken
    assert distributed._free_port(taken) == taken
    assert 0 < distributed._free_port(65536) < 65536


class Votes(Peers):
    """Peers whose other votes are given."""

    def __init__(self, index, *others):
        super().__init__(index, ["process 0 on a", "process 1 on b"])
        self._others = others

    def exchange(self, value):
        values = list(self._others)
        values.insert(self.index, value)
        return values


def _loop(peers, due):
    loop = object.__new__(train.Loop)
    loop._peers = peers
    loop._writes = peers.index == 0
    loop._is_due = lambda: due
    return loop


class Stop:
    def __init__(self, signal):
        self.requested, self.signal = bool(signal), signal
        self.acknowledged = False

    def acknowledge(self):
        self.acknowledged = True


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("asked", [0, 1])
def test_a_stop_of_any_process_is_everybodys(index, asked):
    votes = [
        {"asked": k == asked, "signal": "SIGTERM" if k == asked else "", "due": False}
        for k in range(2)
    ]
    own = votes.pop(index)
    loop = _loop(Votes(index, *votes), due=False)
    who = f"SIGTERM to process {asked} on {'ab'[asked]}"
    assert loop._decide(Stop(own["signal"])) == (who, False)


@pytest.mark.parametrize("index", [0, 1])
def test_only_process_0_has_a_deadline_for_saving(index):
    """A long save would be cut off by the impatience of those that wait for it."""
    vote = {"asked": False, "signal": "", "due": False}
    stop = Stop("SIGTERM")
    _loop(Votes(index, vote), due=False)._decide(stop)
    assert stop.acknowledged == (index == 1)


@pytest.mark.parametrize(("mine", "first"), [(True, False), (False, True)])
def test_the_clock_of_process_0_decides_when_to_save(mine, first):
    """Clocks differ; the others would expect, or miss, a checkpoint."""
    vote = {"asked": False, "signal": "", "due": first}
    assert _loop(Votes(1, vote), mine)._decide(Stop("")) == ("", first)


SAVED = Checkpoint(Path("checkpoints/00000012"), 12, {"data": "d"})
VIEW = [12, "00000012", {"data": "d"}]


@pytest.mark.parametrize(
    ("saved", "other", "words"),
    [
        (None, VIEW, "process 1 on b finds no checkpoint in w, process 0 finds"),
        (SAVED, [8, "00000008", {"data": "d"}], "finds checkpoint 00000012 in w"),
        (SAVED, None, "process 0 finds no checkpoint; give every process the same"),
    ],
)
def test_processes_that_see_other_checkpoints_do_not_start(saved, other, words):
    """One would train from the beginning while the other goes on."""
    with pytest.raises(CheckpointError, match=words) as error:
        agreement.same_checkpoint(Votes(1, other), saved, Path("w"))
    assert "\n" not in str(error.value)
    agreement.same_checkpoint(Votes(1, VIEW), SAVED, Path("w"))


def test_processes_that_start_from_other_numbers_do_not_train():
    """Replicas that differ at the start differ for ever, and nothing else notices."""
    states = [{"teacher": jnp.zeros(3)}]
    agreement.same_state(Votes(1, agreement.digest(states)), states)
    other = agreement.digest([{"teacher": jnp.zeros(3).at[1].set(1e-7)}])
    with pytest.raises(PeerError, match="process 1 on b starts from other numbers"):
        agreement.same_state(Votes(1, other), states)


def test_jax_started_by_somebody_else_is_refused(tmp_path, monkeypatch):
    """Two processes that do not know of each other would write one workdir."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="JAX knows 2 processes, this run 1"):
        agreement.same_run(Peers(), {}, tmp_path)

"""Who is who in a run of several processes."""

import jax
import pytest

from spaced_kd import distributed, main, train
from spaced_kd.distributed import Place, place
from spaced_kd.errors import ConfigError
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
    assert place(None, None, None, "auto") == Place("node007", 61444, 8, 5, (1,))


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
    loop._is_due = lambda: due
    return loop


class Stop:
    def __init__(self, signal):
        self.requested, self.signal = bool(signal), signal


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


@pytest.mark.parametrize(("mine", "first"), [(True, False), (False, True)])
def test_the_clock_of_process_0_decides_when_to_save(mine, first):
    """Clocks differ; the others would expect, or miss, a checkpoint."""
    vote = {"asked": False, "signal": "", "due": first}
    assert _loop(Votes(1, vote), mine)._decide(Stop("")) == ("", first)


def test_jax_started_by_somebody_else_is_refused(tmp_path, monkeypatch):
    """Two processes that do not know of each other would write one workdir."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(train.experiment, "build", lambda *_: None)
    with pytest.raises(ConfigError, match="JAX knows 2 processes, this run 1"):
        train._refuse_strangers(Peers(), None, tmp_path)  # pyright: ignore

"""Processes that agree, and that notice at once when one of them is gone."""

import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from spaced_kd import peers, rendezvous, shield
from spaced_kd.errors import ConfigError, PeerError
from spaced_kd.peers import Peers
from spaced_kd.rendezvous import open_hub, open_spoke

VERSION = "a version"


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()


def _open(address, count=3, timeout=10.0):
    """Return the views of all processes, each opened in a thread of its own."""
    with ThreadPoolExecutor(count) as pool:
        hub = pool.submit(open_hub, address, count, VERSION, 77, timeout)
        spokes = [
            pool.submit(open_spoke, address, k, count, VERSION, timeout)
            for k in range(1, count)
        ]
        return hub.result(), [spoke.result() for spoke in spokes]


@pytest.fixture
def three():
    hub, spokes = _open(free_address())
    group = [hub, *(spoke for spoke, _ in spokes)]
    yield group
    for member in group:
        member.leave(0, "")


def test_one_process_agrees_with_itself():
    alone = Peers()
    assert (alone.index, alone.count) == (0, 1)
    value = {"due": True}
    assert alone.exchange(value) == [value]


def test_all_get_all_values_in_the_order_of_the_processes(three):
    """A decision taken from another order, or from fewer votes, is not the same one."""
    with ThreadPoolExecutor(3) as pool:
        for turn in range(20):

            def vote(member, turn=turn):
                time.sleep(0.002 * ((turn + member.index) % 3))
                return member.exchange([turn, member.index])

            for values in pool.map(vote, three):
                assert values == [[turn, 0], [turn, 1], [turn, 2]]
    assert {member.names for member in three} == {three[0].names}
    assert three[1].names[2] == f"process 2 on {socket.gethostname()}"


def test_the_hub_tells_where_its_service_is():
    hub, spokes = _open(free_address(), count=2)
    assert [service for _, service in spokes] == [77]
    spokes[0][0].leave(0, "")
    hub.leave(0, "")


def test_who_does_not_come_is_named():
    """Waiting in silence would look like a long compilation."""
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        hub = pool.submit(open_hub, address, 3, VERSION, 77, 1.0)
        spoke = pool.submit(open_spoke, address, 2, 3, VERSION, 1.0)
        with pytest.raises(PeerError, match="process 1 of 3 did not reach") as error:
            hub.result()
        with pytest.raises(PeerError, match="process 1 of 3 did not reach"):
            spoke.result()
    assert "\n" not in str(error.value)


def test_process_0_says_how_long_to_wait(monkeypatch):
    """Of two clocks that start apart, a process's own would end too early."""
    monkeypatch.setattr(rendezvous, "_GRACE_SECONDS", 0.1)
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        hub = pool.submit(open_hub, address, 3, VERSION, 77, 5.0)
        early = pool.submit(open_spoke, address, 1, 3, VERSION, 0.3)
        time.sleep(1.5)
        assert not early.done()
        late, _ = open_spoke(address, 2, 3, VERSION, 20.0)
        group = [hub.result(), early.result()[0], late]
    assert [member.index for member in group] == [0, 1, 2]
    for member in group:
        member.leave(0, "")


def test_a_process_0_that_is_not_there_is_named():
    host, port = free_address()
    with pytest.raises(PeerError, match=f"did not answer at {host}:{port}"):
        open_spoke((host, port), 1, 2, VERSION, 0.3)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with pytest.raises(PeerError, match=f"cannot listen on port {address[1]}"):
            open_hub(address, 2, VERSION, 77, 1.0)


@pytest.mark.parametrize(
    ("index", "count", "version", "words"),
    [
        (1, 4, VERSION, "--num_processes=4 in process 1"),
        (1, 3, "another", "runs another, process 0 a version"),
    ],
)
def test_a_process_of_another_run_is_refused_on_both_sides(
    index, count, version, words
):
    """Its batches or its arithmetic would be others."""
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        hub = pool.submit(open_hub, address, 3, VERSION, 77, 5.0)
        spoke = pool.submit(open_spoke, address, index, count, version, 5.0)
        for side in (hub, spoke):
            with pytest.raises(ConfigError, match=words) as error:
                side.result()
            assert "\n" not in str(error.value)


def test_two_processes_with_one_number_are_refused():
    address = free_address()
    with ThreadPoolExecutor(3) as pool:
        sides: list[Future] = [pool.submit(open_hub, address, 3, VERSION, 77, 5.0)]
        for _ in range(2):
            sides.append(pool.submit(open_spoke, address, 1, 3, VERSION, 5.0))
        for side in sides:
            with pytest.raises(ConfigError, match="--process_id=1 was given to two"):
                side.result()


def test_a_stranger_that_knocks_is_sent_away():
    """Port scanners exist; they must neither join nor end a run."""
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        hub = pool.submit(open_hub, address, 2, VERSION, 77, 10.0)
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"\xff\xfe\n"):
            while True:
                try:
                    stranger = socket.create_connection(address)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            with stranger:
                stranger.sendall(text)
        spoke, _ = open_spoke(address, 1, 2, VERSION, 10.0)
        spoke.leave(0, "")
        hub.result().leave(0, "")


def test_a_machine_that_vanishes_is_given_up_within_a_minute():
    """Without a word from it, only the kernel's questions tell."""
    if not hasattr(socket, "TCP_KEEPIDLE"):
        pytest.skip("this system has other names for these settings")
    with socket.socket() as connection:
        peers._keep_alive(connection)
        ask = lambda name: connection.getsockopt(
            socket.IPPROTO_TCP, getattr(socket, name)
        )
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, every, times = map(ask, ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"))
        assert 15 <= idle + every * times <= 45


CHILD = """
import os, sys, time
from spaced_kd.errors import SpacedKDError
from spaced_kd.rendezvous import open_hub, open_spoke
port, index = int(sys.argv[1]), int(sys.argv[2])
address = ("127.0.0.1", port)
if index:
    group, _ = open_spoke(address, index, 3, "v", 20.0)
else:
    group = open_hub(address, 3, "v", 1, 20.0)
group.resume_hint = "start again"
group.exchange("here")
{body}
"""


def run_three(bodies):
    """Run a body in each of three processes; return codes, stderrs and seconds."""
    port = free_address()[1]
    started = time.monotonic()
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                CHILD.replace("{body}", textwrap.dedent(body)),
                str(port),
                str(index),
            ],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for index, body in enumerate(bodies)
    ]
    try:
        stderr = [child.communicate(timeout=60)[1] for child in children]
    finally:
        for child in children:
            child.kill()
    return [c.returncode for c in children], stderr, time.monotonic() - started


STUCK = """
import hashlib, threading
threading.Timer(30, os._exit, [99]).start()
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # like a collective that hangs
"""


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_killed_process_is_named_by_all_others_at_once(killed):
    """In the middle of C code that never returns."""
    bodies = [STUCK] * 3
    bodies[killed] = "time.sleep(0.3); os.kill(os.getpid(), 9)"
    codes, stderr, seconds = run_three(bodies)
    for index in range(3):
        if index == killed:
            assert codes[index] == -9
            continue
        assert codes[index] == PeerError.code
        (line,) = stderr[index].splitlines()
        assert line == (
            f"error: process {killed} on {socket.gethostname()} is gone (killed, "
            "crashed or cut off); start again."
        )
    assert seconds < 15


def test_what_ended_one_process_is_told_by_the_others():
    """'Gone' alone would send the user looking through the logs of all machines."""
    fail = "group.leave(3, 'no data in /nowhere.'); os._exit(3)"
    stuck = "from spaced_kd import peers; peers.OWN_END_SECONDS = {}\n" + STUCK
    # Process 2 ends first, which is a consequence and not the reason.
    codes, stderr, _ = run_three([stuck.format(1.5), fail, stuck.format(0.1)])
    assert codes == [8, 3, 8]
    for index in (0, 2):
        (line,) = stderr[index].splitlines()
        assert line.startswith("error: process 1 on ")
        assert line.endswith("ended with code 3 (no data in /nowhere); start again.")


def test_a_process_that_fails_for_the_same_reason_shows_its_own_message():
    """Of one mistake in a command, not one process would say what it is."""
    fail = "group.leave(2, 'a mistake.'); os._exit(2)"
    later = f"time.sleep(0.5); {fail}"
    codes, stderr, _ = run_three([later, fail, later])
    assert codes == [2, 2, 2]
    assert stderr == ["", "", ""]


def test_a_value_that_comes_after_the_news_of_an_end_still_comes(monkeypatch):
    """Process 0 may send both at once; without it, nobody shows its own message."""
    monkeypatch.setattr(peers, "OWN_END_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    names = [f"process {index}" for index in range(3)]
    spoke, hub = peers.Spoke(2, names, {0: peers.Channel(near)}), peers.Channel(far)
    hub.send({"end": {"process": 1, "code": 2, "message": "a mistake."}})
    hub.send({"value": ["here"] * 3})
    found = []
    reader = threading.Thread(target=lambda: found.extend(spoke.exchange("here")))
    reader.daemon = True
    reader.start()
    reader.join(10.0)
    spoke.leave(2, "a mistake.")
    assert found == ["here"] * 3
    assert hub.receive(10.0) == {"value": "here"}
    left = hub.receive(10.0)
    assert left and left["end"]["code"] == 2
    hub.close()


def test_an_ordinary_end_ends_nobody_else():
    """The one that writes the report takes longer."""
    codes, stderr, _ = run_three(
        [
            "time.sleep(1.0); group.leave(0, '')",
            "group.leave(0, '')",
            "group.leave(0, '')",
        ]
    )
    assert codes == [0, 0, 0]
    assert stderr == ["", "", ""]


def test_the_shield_carries_both_ways_and_outlives_what_is_behind_it():
    """JAX would see process 0 die first, and abort this process without a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = shield.shield(*server.getsockname())
        near = socket.create_connection(("127.0.0.1", port))
        far, _ = server.accept()
        near.sendall(b"ping")
        assert far.recv(4) == b"ping"
        far.sendall(b"pong")
        assert near.recv(4) == b"pong"
        far.close()
        near.settimeout(1.0)
        with pytest.raises(TimeoutError):
            near.recv(1)
        near.close()


def test_the_shield_refuses_what_nobody_answers():
    """A client that is held for ever never tries again."""
    host, port = free_address()
    near = socket.create_connection(
        ("127.0.0.1", shield.shield(host, port)), timeout=10
    )
    with near:
        assert near.recv(1) == b""

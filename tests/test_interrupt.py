"""Signals: a flag in time, or a clean exit in time; nothing is left installed."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spaced_kd.interrupt import StopRequest

# In the child: `stop` is open; a shell sends each signal after so many seconds.
CHILD = """
import hashlib, os, signal, subprocess, threading, time
from spaced_kd.interrupt import StopRequest

def send(*signals):
    kill = "; ".join(f"sleep {s}; kill -{int(n)} {os.getpid()}" for s, n in signals)
    subprocess.Popen(["sh", "-c", kill], stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)

def stuck():
    "Like a compilation: C code without the interpreter lock; no handler runs."
    threading.Timer(20, os._exit, [99]).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def hold_interpreter(seconds):
    "One C call that lets no thread run."
    started = time.monotonic()
    sum(range(5_000_000))
    sum(range(round(5_000_000 * seconds / (time.monotonic() - started))))

def wait(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)

with StopRequest(grace_seconds=0.5) as stop:
    {body}
print("left the block")
"""


def run_child(body):
    """Run `body` in a process of its own; return it with the seconds that it took."""
    indented = "\n    ".join(body.strip().splitlines())
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("{body}", indented)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )
    done.seconds = time.monotonic() - started
    return done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_sets_the_flag_and_prints_nothing(number, capfd):
    """The loop would not learn of it, or Ctrl-C would end in a traceback."""
    with StopRequest() as stop:
        assert (stop.requested, stop.signal) == (False, "")
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 5
        while not stop.requested and time.monotonic() < deadline:
            time.sleep(0.001)
        assert (stop.requested, stop.signal) == (True, number.name)
    assert stop.requested
    assert capfd.readouterr() == ("", "")


def test_everything_is_put_back(monkeypatch):
    """A notebook would lose its own Ctrl-C, or its event loop its wake-up calls."""

    def mine(number, frame):
        pass

    read, write = os.pipe()
    os.set_blocking(write, False)
    threads = threading.active_count()
    descriptors = len(os.listdir("/dev/fd"))
    old_fd = signal.set_wakeup_fd(write)
    old = signal.signal(signal.SIGTERM, mine)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyError), StopRequest():
            assert signal.getsignal(signal.SIGTERM) is not mine
            assert signal.getsignal(signal.SIGINT) is not interrupt
            raise KeyError
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is interrupt
        assert signal.set_wakeup_fd(-1) == write
    finally:
        signal.set_wakeup_fd(old_fd)
        signal.signal(signal.SIGTERM, old)
    assert threading.active_count() == threads
    assert len(os.listdir("/dev/fd")) == descriptors
    os.close(read)
    os.close(write)


def test_wake_up_calls_reach_who_had_them_before():
    """The event loop of a notebook would sleep through its own signals."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    old_fd = signal.set_wakeup_fd(write)
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with StopRequest() as stop:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGUSR1)
                assert select.select([read], [], [], 5)[0], "never woken"
                assert os.read(read, 9) == bytes([signal.SIGUSR1])
            assert not stop.requested
    finally:
        signal.set_wakeup_fd(old_fd)
        signal.signal(signal.SIGUSR1, old)
    os.close(read)
    os.close(write)


def test_outside_the_main_thread_nothing_happens():
    """Some notebooks and servers run in a thread, where Python refuses handlers."""
    seen = []

    def body():
        with StopRequest() as stop:
            stop.acknowledge()
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGTERM))]


def test_second_signal_leaves_at_once():
    """A user who insists would have to use kill -9."""
    done = run_child("""
send((0, signal.SIGINT), (0.4, signal.SIGTERM))
wait(lambda: stop.requested)
stop.acknowledge()
time.sleep(20)
""")
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "")
    assert done.seconds < 5


def test_one_request_delivered_twice_is_one_request():
    """`timeout` signals a process and its group: nothing would ever be saved."""
    done = run_child("""
send((0, signal.SIGTERM), (0.05, signal.SIGTERM))
wait(lambda: stop.requested)
stop.acknowledge()
time.sleep(0.6)
""")
    assert (done.returncode, done.stdout) == (0, "left the block\n"), done.stderr


def test_step_too_long_is_left_with_one_line():
    """During a long compilation a preempted run would be killed without a word."""
    done = run_child("""
stop.resume_hint = "run it again"
send((0.1, signal.SIGTERM))
stuck()
""")
    assert (done.returncode, done.stdout) == (75, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("SIGTERM: ") and line.endswith("; run it again.")
    assert 0.5 < done.seconds < 5


def test_loop_that_never_looks_is_left_too():
    """A data preparation that forgot to look would run past the grace period."""
    done = run_child("""
send((0.1, signal.SIGTERM))
time.sleep(20)
""")
    assert done.returncode == 75 and done.stderr.startswith("SIGTERM: ")
    assert done.seconds < 5


def test_acknowledged_request_is_never_forced():
    """A save that takes longer than the grace period would be cut short."""
    done = run_child("""
send((0.1, signal.SIGTERM))
wait(lambda: stop.requested)
stop.acknowledge()
hashlib.pbkdf2_hmac("sha256", b"", b"", 1_500_000)
time.sleep(0.7)
""")
    assert (done.returncode, done.stdout) == (0, "left the block\n"), done.stderr


def test_second_signal_during_a_long_save_still_leaves():
    """After `acknowledge` nothing could stop a save that hangs."""
    done = run_child("""
send((0, signal.SIGTERM), (0.5, signal.SIGTERM))
wait(lambda: stop.requested)
stop.acknowledge()
stuck()
""")
    assert (done.returncode, done.stderr) == (75, "")


def test_leaving_the_block_ends_the_deadline():
    """A run that has finished would be reported as interrupted."""
    done = run_child("""
send((0, signal.SIGTERM))
wait(lambda: stop.requested)
stop.__exit__()
time.sleep(0.8)
""")
    assert (done.returncode, done.stdout) == (0, "left the block\n"), done.stderr


def test_time_without_the_interpreter_lock_is_not_held_against_the_loop():
    """A loop would be stopped the moment it could act, and lose its state."""
    done = run_child("""
send((0.4, signal.SIGTERM))
hold_interpreter(1.5)
wait(lambda: stop.requested)
stop.acknowledge()
""")
    assert (done.returncode, done.stdout) == (0, "left the block\n"), done.stderr


def test_a_notebook_keeps_its_kernel_and_a_second_signal_is_an_ordinary_interrupt():
    """os._exit in a kernel would take all of the user's variables with it."""
    with StopRequest(grace_seconds=0.1, may_exit=False) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.6)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

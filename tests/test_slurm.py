"""The Slurm script: which ends are tried again, and which code the job ends with."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"

# As srun: starts every task, and ends with the highest code of all.
SRUN = """#!/usr/bin/env bash
while [ "${1#--}" != "$1" ]; do shift; done
worst=0
IFS=, read -ra codes <<< "$CODES"
for id in "${!codes[@]}"; do
  SLURM_PROCID=$id "$@" || { code=$?; [ $code -le $worst ] || worst=$code; }
done
exit $worst
"""
PYTHON = """#!/usr/bin/env bash
echo "$*" > "said_$SLURM_PROCID"
IFS=, read -ra codes <<< "$CODES"
code=${codes[SLURM_PROCID]}
if [ $code = 137 ]; then kill -KILL $PPID; fi
exit $code
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >> requeued
"""


def _program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def job(tmp_path):
    """Return job(codes of the tasks, restarts before) -> (exit code, queued again)."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "_environment.sh").write_text("ensure_environment() { :; }")
    _program(tmp_path / ".venv" / "bin" / "python", PYTHON)
    _program(tmp_path / "bin" / "srun", SRUN)
    _program(tmp_path / "bin" / "scontrol", SCONTROL)

    def job(codes, restarts=0):
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "4100",
            "SLURM_RESTART_COUNT": str(restarts),
            "CODES": codes,
        }
        script = tmp_path / "launch" / "slurm.sh"
        done = subprocess.run([script, "--workdir=w"], env=environment, cwd="/")
        requeued = tmp_path / "requeued"
        assert not list(tmp_path.glob(".slurm_codes*"))
        again = requeued.exists() and requeued.read_text() == "requeue 4100\n"
        return done.returncode, again

    return job


@pytest.mark.parametrize(
    ("codes", "code", "again"),
    [
        ("0,0,0", 0, False),
        ("75,75,75", 75, True),
        ("75,8,75", 75, True),
        ("8,143,8", 143, True),
        ("8,137,8", 137, True),
        ("6,8,8", 6, False),
        ("8,7,8", 7, False),
        ("5,8,8", 5, False),
        ("8,8,4", 4, False),
        ("1,8,8", 1, False),
        ("6,8,137", 6, False),
        ("2,2,2", 2, False),
    ],
)
def test_only_what_may_pass_by_is_tried_again(codes, code, again, job):
    """An 8 of the others is higher than most errors' own codes, and hid them."""
    assert job(codes) == (code, again)


def test_a_run_is_not_queued_for_ever(job):
    assert job("75,75", restarts=20) == (75, False)


def test_every_task_gets_the_flags(job, tmp_path):
    job("0,0")
    for task in range(2):
        assert (tmp_path / f"said_{task}").read_text() == (
            "-m spaced_kd.main --distributed=auto --workdir=w\n"
        )


def test_a_task_hands_on_the_signal_and_waits_for_the_end(tmp_path):
    """Slurm may signal the wrapper alone, and the run has to save before it ends."""
    _program(
        tmp_path / "run",
        "#!/usr/bin/env bash\ntrap 'sleep 0.3; exit 75' TERM\ntouch ready\n"
        "for _ in {1..200}; do sleep 0.05; done\n",
    )
    task = subprocess.Popen(
        [LAUNCH / "_slurm_task.sh", tmp_path, tmp_path / "run"],
        cwd=tmp_path,
        env=os.environ | {"SLURM_PROCID": "3"},
    )
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        task.send_signal(signal.SIGTERM)
        assert task.wait(timeout=20) == 75
    finally:
        task.kill()
    assert (tmp_path / "3").read_text() == "75\n"

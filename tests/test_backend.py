import os
import subprocess
import sys

PROBE = (
    "import os, logging; logging.basicConfig(level=logging.DEBUG);"
    "from spaced_kd import backend; {before} backend.configure();"
    "import jax; jax.devices(); {after} print(os.environ.get('XLA_FLAGS', ''))"
)


def _run(before="", after="", **env):
    ours = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    clean = {k: v for k, v in os.environ.items() if k not in ours}
    return subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before, after=after)],
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_the_flag_is_appended_and_never_overwrites():
    """A user's flags must survive, and a flag that jaxlib refuses would abort here."""
    assert _run().stdout.strip().endswith("=-individual_convolution")
    kept = _run(XLA_FLAGS="--xla_cpu_enable_fast_math=false").stdout.strip()
    assert kept.startswith("--xla_cpu_enable_fast_math=false --xla_cpu_exp")
    own = "--xla_cpu_experimental_ynn_fusion_type=-reduce"
    assert _run(XLA_FLAGS=own).stdout.strip() == own


def test_compiled_programs_are_cached_where_the_user_says_or_in_the_home(tmp_path):
    """Without the cache every start would compile again for minutes."""
    where = "print(jax.config.jax_compilation_cache_dir);"
    home = _run(before="", after=where, XDG_CACHE_HOME=str(tmp_path)).stdout
    assert home.splitlines()[0] == str(tmp_path / "spaced_kd" / "xla")
    own = _run(after=where, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own")).stdout
    assert own.splitlines()[0] == str(tmp_path / "own")


def test_after_jax_has_started_the_flag_is_left_and_the_log_says_so():
    done = _run(before="import jax; jax.devices();")
    assert done.stdout.strip() == ""
    assert "already started" in done.stderr

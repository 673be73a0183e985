"""A compiler in a hurry: tests compile thousands of programs and run each for a moment.

Most programs of tests take longer to compile than to run, so they are compiled with
little effort. A test whose property depends on the compiler's effort (layouts, the same
bits from two different programs) is marked `real_compiler` and sees what a user's
compiler makes; SPACED_KD_TEST_COMPILER=real makes all tests real.
"""

import gc
import os

import jax
from jax._src import compiler as jax_compiler

# Name, in tests, for users. A chunk of the tiny CNN: 3.2 s of CPU time to compile for
# users, 0.55 s in tests.
OPTIONS = [
    ("xla_backend_optimization_level", 0, 3),
    ("xla_llvm_disable_expensive_passes", True, False),
    ("xla_cpu_use_fusion_emitters", False, True),
    ("xla_cpu_parallel_codegen_split_count", 1, 32),
]
ALL_REAL = os.environ.get("SPACED_KD_TEST_COMPILER") == "real"
# Programs come again in other tests and in the other process of pytest-xdist.
KEPT_FROM_SECONDS = 0.05

_options_of_jax = jax_compiler.get_compile_options
_real = ALL_REAL


def set_flags() -> None:
    """Set them for this process and for those it starts; call before any array."""
    # Where other programs keep the machine busy, virtual devices may wait for one
    # another longer than the 40 seconds after which XLA ends the process.
    flags = ["--xla_cpu_collective_call_terminate_timeout_seconds=600"]
    if not ALL_REAL:
        flags += [f"--{name}={str(quick).lower()}" for name, quick, _ in OPTIONS]
    given = os.environ.get("XLA_FLAGS", "").split()
    missing = [flag for flag in flags if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join(given + missing)


def keep_programs() -> None:
    """Keep small programs too, here and in the processes that tests start."""
    if not ALL_REAL:
        least, folder = KEPT_FROM_SECONDS, jax.config.jax_compilation_cache_dir
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(least)


def trace_quickly() -> None:
    """Leave out, here and in processes that tests start, what only profilers read.

    With the collector's leisure a tenth of the time of files that trace a lot.
    """
    jax.config.update("jax_traceback_in_locations_limit", 0)
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
    # Tracing makes many small objects that live, which would be looked at again and
    # again.
    gc.set_threshold(50_000, 20, 100)


def is_real() -> bool:
    """Whether programs are compiled as for users; part of what a cached run is."""
    return _real


def use(real: bool) -> None:
    """Compile from now on as for users, or in a hurry; nothing compiled remains."""
    global _real
    jax_compiler.get_compile_options = _get_compile_options
    if real | ALL_REAL != _real:
        _real = real | ALL_REAL
        jax.clear_caches()


def _get_compile_options(*args, **kwargs):
    options = _options_of_jax(*args, **kwargs)
    if _real and not ALL_REAL:
        for_users = [(name, users) for name, _, users in OPTIONS]
        options.env_option_overrides = for_users + list(options.env_option_overrides)
    return options

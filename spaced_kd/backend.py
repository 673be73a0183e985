"""Settings that JAX reads once, when it starts: flags and the compile cache."""

import logging
import os
from pathlib import Path

import jax

# XLA:CPU of jaxlib 0.10 sends single float32 convolutions to a library whose kernel
# gradients are 1.4 to 4 times slower than its own; everything else it sends there is
# faster there (docs/performance.md).
CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
CPU_VALUE = "-individual_convolution"

_log = logging.getLogger("spaced_kd")


def configure() -> None:
    """Set what makes training fast, unless the user has set it; call before any array.

    Appends to XLA_FLAGS, never overwrites them. Where JAX has already started (a
    notebook) the flag cannot take effect any more, and the log says so.
    """
    _compile_cache()
    flags = os.environ.get("XLA_FLAGS", "")
    if CPU_FLAG in flags:
        return
    if _backend_started():
        _log.debug("JAX has already started; %s is not set", CPU_FLAG)
        return
    os.environ["XLA_FLAGS"] = f"{flags} {CPU_FLAG}={CPU_VALUE}".strip()
    _log.debug("XLA_FLAGS=%s", os.environ["XLA_FLAGS"])


def _compile_cache() -> None:
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(cache).expanduser() / "spaced_kd" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _backend_started() -> bool:
    # No public question for this exists.
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()

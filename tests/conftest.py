"""Settings of every test: strict ranks, the CPU, 8 virtual devices, and no time spent on fast machine code."""

import atexit
import ctypes
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # batched LAPACK calls of JAX can hang when OpenBLAS threads them
_FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    # compiling is most of a test's time: together the next three take a sixth of it
    "--xla_backend_optimization_level": "0",
    "--xla_cpu_use_fusion_emitters": "false",
    "--xla_cpu_parallel_codegen_split_count": "1",
    # eight devices on a busy machine may wait for each other for long; by default XLA aborts after 40 seconds
    "--xla_cpu_collective_call_terminate_timeout_seconds": "600",
}
if not version("jaxlib").startswith("0.10."):  # later ones stop at a flag that they no longer have
    del _FLAGS["--xla_cpu_use_fusion_emitters"]
    del _FLAGS["--xla_cpu_collective_call_terminate_timeout_seconds"]
for _name, _value in _FLAGS.items():
    if _name not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_name}={_value}".strip()

# Programs that are compiled again, by another test or process, are read back: one folder for the whole run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _programs = tempfile.mkdtemp(prefix="share_jax-programs-")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_collection_finish() -> None:
    """What was imported lives as long as the process: without it a full collection takes less than half as long."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Hypothesis asks the collector who holds what, when it is loaded for the summary."""
    gc.unfreeze()


ROOM = 3 * 2**29
"""Bytes that a test process may hold before its compiled programs are dropped."""


@pytest.fixture(scope="module", autouse=True)
def without_programs_of_other_files() -> Iterator[None]:
    """Compiled programs of one file serve few others: a process that has grown drops them when the file ends."""
    yield
    if "jax" in sys.modules and held_bytes() > ROOM:
        import jax

        jax.clear_caches()
        gc.collect()
        release_freed()


def held_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def release_freed() -> None:
    """Gives freed memory back to the system, where its C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

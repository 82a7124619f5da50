"""The user's cache folder, and compiled programs in it."""

import hashlib
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: `cache_dir`, else $SHARE_JAX_CACHE, else share_jax in $XDG_CACHE_HOME or ~/.cache."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if own := os.environ.get("SHARE_JAX_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "share_jax"
    return Path("~/.cache/share_jax").expanduser()


def keep_compiled(environment: MutableMapping[str, str]) -> None:
    """Has JAX keep compiled programs in the cache folder, if it is asked before JAX is imported.

    Nothing changes where the user has set JAX_COMPILATION_CACHE_DIR, or where the folder cannot be written. Programs
    are kept apart by the processor's abilities, since one that was compiled for another may not run.

    Args:
        environment: `os.environ` or a copy; gets three of JAX's variables.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    folder = cache_root() / "compiled" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def _processor() -> str:
    """A name for what programs may use of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = sorted({text for text in lines if text.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join([platform.machine(), *told]).encode()).hexdigest()[:16]

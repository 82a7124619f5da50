"""The user's cache folder."""

import os
from pathlib import Path


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: `cache_dir`, else $SHARE_JAX_CACHE, else share_jax in $XDG_CACHE_HOME or ~/.cache.

    Example:
        >>> cache_root("runs/cache").as_posix()  # for a program that has a flag for it; else the user's own
        'runs/cache'
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if own := os.environ.get("SHARE_JAX_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "share_jax"
    return Path("~/.cache/share_jax").expanduser()

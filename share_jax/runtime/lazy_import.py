"""Modules that are loaded when their name is first used, so that importing a package costs nothing."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any


def submodules(package: str, names: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a package that gives its modules, and names that it re-exports from them.

    Args:
      package: its full name.
      names: the module, below the package, that has each re-exported name.
    """
    home = names or {}

    def load(name: str) -> Any:
        if name in home:
            return getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        path = f"{package}.{name}"
        if name.startswith("_") or not name.isidentifier() or importlib.util.find_spec(path) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(path)

    return load

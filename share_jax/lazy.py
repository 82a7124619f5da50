"""Modules that are loaded when their name is first used, so that importing a package costs nothing."""

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType


def submodules(package: str) -> Callable[[str], ModuleType]:
    """The `__getattr__` of a package that gives its modules.

    Args:
      package: its full name.
    """

    def load(name: str) -> ModuleType:
        path = f"{package}.{name}"
        if name.startswith("_") or not name.isidentifier() or importlib.util.find_spec(path) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(path)

    return load

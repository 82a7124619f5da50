"""Files of gemma and recurrentgemma by themselves, without what their data and checks of types need."""

import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest


class _Standing(ModuleType):
    """A package of which only names are read: TensorFlow, whose classes kauldron's types name, or typeguard."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return type(name, (), {})


def gemma_module(name: str) -> Any:
    """A module of gemma, such as "gm.nn._transformer"; the test is skipped where it is not installed."""
    for package in ("gemma", "kauldron", "lark"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"make test-models installs {package}", allow_module_level=True)
    standing = "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None
    if standing:
        sys.modules["tensorflow"] = _Standing("tensorflow")
        sys.modules["tensorflow"].__spec__ = importlib.machinery.ModuleSpec("tensorflow", None)
    try:
        return importlib.import_module(f"gemma.{name}")
    finally:
        if standing:
            del sys.modules["tensorflow"]


def recurrentgemma_module(name: str) -> Any:
    """A module of recurrentgemma, such as "jax.griffin", without checks of shapes, which no newer typeguard reads."""
    if importlib.util.find_spec("recurrentgemma") is None:
        pytest.skip("make test-models installs recurrentgemma", allow_module_level=True)
    before = sys.modules.get("typeguard")
    sys.modules["typeguard"] = _Standing("typeguard")
    sys.modules["typeguard"].typechecked = lambda function: function
    try:
        return importlib.import_module(f"recurrentgemma.{name}")
    finally:
        del sys.modules["typeguard"]
        if before is not None:
            sys.modules["typeguard"] = before

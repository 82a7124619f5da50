"""Files of tunix by themselves: its package imports trainers of reinforcement learning, and all that they need."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest


def tunix_module(name: str) -> Any:
    """A module of tunix, such as "sft.peft_trainer"; the test is skipped where it, or what it needs, is not there."""
    if "tunix" not in sys.modules:
        found = importlib.util.find_spec("tunix")
        if found is None or found.submodule_search_locations is None:
            pytest.skip("make test-models installs tunix", allow_module_level=True)
        package = ModuleType("tunix")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["tunix"] = package
    pytest.importorskip("qwix", reason="make test-models installs it")
    return importlib.import_module(f"tunix.{name}")

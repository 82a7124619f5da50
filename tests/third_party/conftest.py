"""What packages change for the whole process is undone after each file."""

from collections.abc import Iterator

import flax.linen as nn
import pytest


@pytest.fixture(scope="module", autouse=True)
def own_param_of_modules() -> Iterator[None]:
    """Gemma puts another `param` into `nn.Module`, which refuses initial values that take no dtype."""
    before = nn.Module.param
    yield
    nn.Module.param = before

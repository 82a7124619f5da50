"""What is no model for `adapt`, and models that refuse their example call: one line each, with what to do."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import share_jax
from share_jax.errors import InputError, TargetError

X = np.ones((2, 3), np.float32)


class Net(nnx.Module):
    def __init__(self) -> None:
        self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer(x)


class FlaxPreTrainedModel:
    """Stands for the root class of a library whose objects wrap a Linen module."""


FlaxPreTrainedModel.__module__ = "transformers.modeling_flax_utils"


class FlaxBert(FlaxPreTrainedModel):
    """An object that holds a module and its parameters."""


@jax.tree_util.register_dataclass
@dataclass
class Tree:
    """A model of another library, which is a tree of arrays."""


def one_line(error: type[Exception], match: str, model: object, *args: object, **kwargs: object) -> None:
    with pytest.raises(error, match=match) as found:
        share_jax.adapt(model, *args, targets=".*kernel", **kwargs)
    assert "\n" not in str(found.value)


def test_parts_of_an_nnx_module_are_refused_with_the_way_out() -> None:
    graph, state = nnx.split(Net())
    one_line(InputError, r"got GraphDef, .*nnx\.merge", graph, X)
    one_line(InputError, r"got State, .*pass the module", state, X)
    one_line(InputError, r"to_pure_dict", nn.Dense(2), {"params": state}, X)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (FlaxBert(), r"got FlaxBert, .*model\.module"),
        (Tree(), r"got Tree, .*adapt_function"),
        (lambda x: x, r"got function, .*adapt_function"),
        (None, r"got NoneType"),
        (nn.Dense, r"got the class Dense"),
    ],
    ids=["transformers", "tree", "function", "none", "class"],
)
def test_what_is_no_flax_module_is_refused_by_name(model: object, match: str) -> None:
    one_line(InputError, match, model, {"params": {}}, X)


class Asserting(nn.Module):
    """Takes inputs of four columns."""

    text: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[-1] != 4:
            raise AssertionError(*([] if self.text is None else [self.text]))
        return nn.Dense(2)(x)


class Averaging(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        return nn.BatchNorm(use_running_average=not train, axis_name="devices")(nn.Dense(2)(x))


def test_a_models_own_assert_is_one_line_with_or_without_text() -> None:
    base = {"params": {"Dense_0": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}}
    one_line(TargetError, "AssertionError: no text", Asserting(), base, X)
    one_line(TargetError, "AssertionError: four columns", Asserting("four columns\nplease"), base, X)


def test_layers_that_average_over_devices_name_their_evaluation_mode() -> None:
    base = Averaging().init(jax.random.key(0), X, train=False)
    one_line(TargetError, r"devices.*evaluation mode", Averaging(), base, X, mutable=["batch_stats"])
    share_jax.adapt(Averaging(), base, X, train=False, targets="Dense_0/kernel")

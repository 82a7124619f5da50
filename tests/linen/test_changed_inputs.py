"""A model that changes the dict of its inputs in place, as those of several modalities do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import share_jax


class TwoModalities(nn.Module):
    """Puts the tokens of each modality in the place of its pixels."""

    @nn.compact
    def __call__(self, parts):
        for name in ("image", "sound"):
            parts[name] = nn.Dense(4, name=name)(parts[name])
        return nn.Dense(2, name="head")(nn.relu(parts["image"] + parts["sound"]))


MODEL = TwoModalities()


def inputs():
    return {"image": jnp.ones((4, 3)), "sound": jnp.arange(8.0).reshape(4, 2)}


@pytest.mark.parametrize("space", ["activation", "parameter"])
def test_the_callers_dict_stays_as_it_was_and_two_calls_agree(space):
    base, given = MODEL.init(jax.random.key(0), inputs()), inputs()
    adapted = share_jax.adapt(MODEL, base, given, targets=".*/kernel", space=space)
    variables = {**base, **adapted.init(jax.random.key(1), base["params"], 2)}
    first = adapted.apply(variables, given, task_id=1)
    assert {name: leaf.shape for name, leaf in given.items()} == {"image": (4, 3), "sound": (4, 2)}
    np.testing.assert_array_equal(adapted.apply(variables, given, task_id=1), first)


@pytest.mark.slow
def test_a_learner_takes_one_dict_for_all_batches():
    base, batch = MODEL.init(jax.random.key(0), inputs()), {"inputs": inputs(), "labels": np.array([0, 1, 0, 1])}
    batch["inputs"] = share_jax.Inputs(batch["inputs"])
    adapted = share_jax.adapt(MODEL, base, inputs(), targets=".*/kernel")
    learner = share_jax.Learner(adapted, base, optax.adam(0.1))
    bank = learner.start(adapted.init(jax.random.key(1), base["params"], 1))
    bank = learner.learn(bank, "one", [batch] * 3)
    assert learner.predict(bank, "one", batch["inputs"]).shape == (4, 2)

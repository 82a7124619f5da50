"""NNX layers with a task_id: against the plain layer on its effective kernel, in Learner, and to NNX's own filters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nnx_models import CLOSE, drawn

import share_jax
from share_jax.errors import InputError, TargetError, TaskError
from share_jax.layers.effective_params import kernel_delta

tasks = share_jax.nnx
MIXED = np.array([2, 0, 1, 1])
TOKENS = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 0], [3, 3, 2]])
LAYERS = {
    "linear": (nnx.Linear, "Linear", (8, 6), {}, drawn(4, 3, 8)),
    "general": (nnx.LinearGeneral, "LinearGeneral", ((2, 4), (3, 5)), {"axis": (-2, -1)}, drawn(4, 3, 2, 4)),
    "einsum": (nnx.Einsum, "Einsum", ("btd,ndh->btnh", (2, 8, 3), (2, 3)), {}, drawn(4, 3, 8)),
    "conv": (nnx.Conv, "Conv", (4, 6, (3,)), {"feature_group_count": 2}, drawn(4, 5, 4)),
    "embed": (nnx.Embed, "Embed", (9, 6), {}, TOKENS),
}


def filled(layer):
    """The layer with every variable of tasks drawn, so that nothing hides behind a zero."""
    for index, (_, leaf) in enumerate(nnx.to_flat_state(nnx.state(layer, tasks.TaskVariable))):
        leaf.set_value(drawn(*leaf.shape, seed=index))
    return layer


def plain_of(plain, layer, task):
    """The plain layer with the task's update in its kernel."""
    leaves = nnx.to_flat_state(nnx.state(layer, nnx.Any(tasks.SharedVariable, tasks.TaskVariable)))
    own = {path[0]: leaf[...] for path, leaf in leaves}
    of_task = set(layer.method.init_task(jax.random.key(0), 1, 1))
    slot = {name: leaf[task] for name, leaf in own.items() if name in of_task}
    shared = {name: leaf for name, leaf in own.items() if name not in of_task}
    kernel = getattr(plain, layer.target.path)
    kernel.set_value(getattr(layer, layer.target.path)[...] + kernel_delta(layer.method, layer.target, shared, slot))
    return plain


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", ["SharedLoRA", "Share"])
def test_a_layer_equals_the_plain_one_on_its_effective_kernel(name, form):
    kind, suffix, args, kwargs, x = LAYERS[name]
    layer = filled(getattr(tasks, form + suffix)(*args, num_tasks=3, rngs=nnx.Rngs(0), **kwargs))
    plain = kind(*args, rngs=nnx.Rngs(0), **kwargs)
    wanted = [plain_of(plain, layer, task)(x) for task in range(3)]
    assert np.abs(np.asarray(wanted[0]) - wanted[1]).max() > 1e-2
    run = nnx.jit(lambda layer, ids: layer(x, ids))
    np.testing.assert_allclose(run(layer, 1), wanted[1], **CLOSE)
    mixed = run(layer, MIXED)
    for row, task in enumerate(MIXED):
        np.testing.assert_allclose(mixed[row], wanted[task][row], **CLOSE)
    if name == "embed":
        query = drawn(4, 3, 6)
        mixed = layer.attend(query, MIXED)
        np.testing.assert_allclose(mixed[0], plain_of(plain, layer, 2).attend(query)[0], **CLOSE)


class Own(nnx.Module):
    def __init__(self, rngs, num_tasks=2):
        self.up = tasks.SharedLoRALinear(8, 12, num_tasks=num_tasks, rngs=rngs)
        self.down = tasks.ShareLinear(12, 8, num_tasks=num_tasks, method=share_jax.Share(3, 2), rngs=rngs)
        self.head = tasks.TaskHead(8, 3, num_tasks=num_tasks, rngs=rngs)

    def __call__(self, x, task_id):
        return self.head(x + self.down(jax.nn.relu(self.up(x, task_id)), task_id), task_id)


def test_filters_take_what_they_say_and_parameters_are_those_of_the_plain_layer():
    model, plain = Own(nnx.Rngs(0)), nnx.Linear(8, 12, rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert sorted(params) == ["down", "up"]
    np.testing.assert_array_equal(params["up"]["kernel"], plain.kernel[...])
    assert sorted(nnx.to_pure_dict(nnx.state(model, tasks.SharedVariable))["up"]) == ["lora_a"]
    assert sorted(nnx.to_pure_dict(nnx.state(model, tasks.TaskVariable))) == ["down", "head", "up"]
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    grads = nnx.grad(lambda model: model(drawn(4, 8), 0).sum())(model)
    before = jnp.array(model.up.lora_b[...])
    optimizer.update(model, grads)
    np.testing.assert_array_equal(model.up.lora_b[...], before)


def test_a_learner_takes_the_module_and_old_tasks_keep_their_bits():
    model, x = Own(nnx.Rngs(0)), drawn(4, 8)
    trees = tasks.variables_of(model)
    learner = share_jax.Learner(model, {"params": trees["params"]}, optax.adam(3e-2))
    batches = [{"inputs": x, "labels": np.array([0, 1, 2, 0])}] * 25
    bank = learner.learn(learner.start(trees), "a", batches)
    first = learner.predict(bank, "a", x)
    np.testing.assert_array_equal(bank.shared["down"]["basis_a"], trees["shared"]["down"]["basis_a"])
    assert np.abs(bank.shared["up"]["lora_a"] - trees["shared"]["up"]["lora_a"]).max() > 1e-4
    bank = learner.learn(bank, "b", [{**batch, "labels": np.array([1, 1, 0, 2])} for batch in batches])
    np.testing.assert_array_equal(learner.predict(bank, "a", x), first)
    assert np.argmax(first, -1).tolist() == [0, 1, 2, 0]
    mixed = learner.predict(bank, ["a", "b", "b", "a"], x)
    np.testing.assert_allclose(mixed[::3], first[::3], **CLOSE)


def test_bad_ids_and_layers_are_refused():
    layer = tasks.SharedLoRALinear(8, 6, num_tasks=2, rngs=nnx.Rngs(0))
    with pytest.raises(TaskError, match="0 to 1"):
        layer(drawn(4, 8), 2)
    with pytest.raises(InputError, match="one id per example"):
        layer(drawn(4, 8), [0, 1, 1])
    with pytest.raises(InputError, match="num_tasks"):
        tasks.SharedLoRALinear(8, 6, num_tasks=0, rngs=nnx.Rngs(0))
    with pytest.raises(TargetError, match="batch_axis"):
        tasks.SharedLoRALinearGeneral(8, 6, batch_axis={0: 2}, rngs=nnx.Rngs(0))
    with pytest.raises(TargetError, match="equation"):
        tasks.SharedLoRAEinsum("nbd,ndh->nbh", (2, 8, 3), rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="layers of share_jax"):
        share_jax.adapt(Own(nnx.Rngs(0)), drawn(4, 8), 0, targets=".*kernel")

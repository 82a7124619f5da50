"""Layers that are not Flax's own, not plain, or not batch first: adapted right, or refused; never in silence."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import SEQUENCE, TASKS, base_variables, normal, with_adapters

from share_jax import Share, SharedA, adapt
from share_jax.errors import TargetError

IDS = (2, 0, 1, 2)
ALL = r"(.*/)?(kernel|embedding|w|up|down|table|scale)"


class Einsum(nn.Module):
    """An einsum layer of one's own, as language models have them."""

    shape: tuple[int, ...]
    equation: str

    @nn.compact
    def __call__(self, x):
        return jnp.einsum(self.equation, x, self.param("w", nn.initializers.lecun_normal(), self.shape))


class EinsumAttention(nn.Module):
    @nn.compact
    def __call__(self, x):
        q = Einsum((2, 6, 3), "BTD,NDH->BTNH", name="q")(x)
        k, v = Einsum((2, 2, 6, 3), "BSD,CNDH->CBSNH", name="kv")(x)
        weights = nn.softmax(jnp.einsum("BTNH,BSNH->BNTS", q, k))
        return Einsum((2, 3, 6), "BTNH,NHD->BTD", name="out")(jnp.einsum("BNTS,BSNH->BTNH", weights, v))


class TwoKernels(nn.Module):
    """Both kernels belong to one module and are of one shape."""

    @nn.compact
    def __call__(self, x):
        up, down = (self.param(name, nn.initializers.lecun_normal(), (6, 6)) for name in ("up", "down"))
        return nn.relu(x @ up) @ down


class Gated(nn.Module):
    """A kernel of which each product takes one index."""

    @nn.compact
    def __call__(self, x):
        gate_and_up = self.param("up", nn.initializers.lecun_normal(), (2, 6, 6))
        down = self.param("down", nn.initializers.lecun_normal(), (6, 6))
        return (nn.gelu(x @ gate_and_up[0]) * (x @ gate_and_up[1])) @ down


class OwnLoop(nn.Module):
    """Layers that the module itself stacks, behind the index of their part."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.lecun_normal(), (6, 2, 6, 6))
        return jax.lax.scan(lambda x, w: (nn.tanh(x @ w), None), x, w[:, 1])[0] + x @ w[:, 0][5]


class TransposedKernel(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (7, 6))
        return jax.lax.dot_general(x, jnp.asarray(kernel.transpose(), jnp.float32), (((x.ndim - 1,), (0,)), ((), ())))


class TiedTable(nn.Module):
    """A table of one's own, looked up and transposed."""

    @nn.compact
    def __call__(self, x):
        table = self.param("table", nn.initializers.normal(1.0), (9, 6))
        ids = jnp.argmax(x @ table.T, -1)
        return nn.tanh(table[ids] * 2.0) @ table.T


class Standardised(nn.Dense):
    """Another kernel than its leaf multiplies."""

    def param(self, name, *args, **kwargs):
        p = super().param(name, *args, **kwargs)
        return (p - p.mean(0, keepdims=True)) / p.std(0, keepdims=True) if name == "kernel" else p


class WithHelper(nn.Dense):
    """A layer with another default and a method more is a plain one."""

    use_bias: bool = False

    def doubled(self, x):
        return 2 * self(x)


class Positions(nn.Module):
    """A table of positions, whose ids do not depend on the batch."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x + nn.Embed(16, 6, name="positions")(jnp.arange(x.shape[1]))[None])


class TimeMajor(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(7)(x.transpose(1, 0, 2)).transpose(1, 0, 2)


class Windows(nn.Module):
    """Windows of two positions are folded into the batch axis."""

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(7)(x.reshape(x.shape[0] * (x.shape[1] // 2), 2, x.shape[2]))
        return y.reshape(*x.shape[:2], 7)


def scanned(inner: Any, axis: int, length: int) -> Any:
    class Level(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            scan = nn.scan(inner, variable_axes={"params": axis}, split_rngs={"params": True}, length=length)
            return scan(name="m")(x, None)[0], None

    return Level


class Stacked(nn.Module):
    """Blocks stacked along any axes of their parameters, by one scan or two; nothing carries other collections."""

    axes: tuple[int, ...]
    lengths: tuple[int, ...]
    inner: Any = None

    @nn.compact
    def __call__(self, x):
        block: Any = self.inner or Block
        for axis, length in zip(self.axes, self.lengths, strict=True):
            block = scanned(block, axis, length)
        return block(name="m")(x, None)[0]


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(6, name="d")(x)), None


class GatedBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + Gated(name="g")(x), None


class Several(nn.Module):
    """A Dense vmapped over stacked kernels."""

    axis: int
    size: int

    @nn.compact
    def __call__(self, x):
        many = nn.vmap(
            nn.Dense,
            in_axes=None,
            out_axes=-1,
            axis_size=self.size,
            variable_axes={"params": self.axis, "shared": 0, "tasks": 0},
            split_rngs={"params": True},
        )
        return many(6, name="d", use_bias=False)(x)


def long(length: int) -> jax.Array:
    return normal(4, length, 6)


# name: model, input, patterns, how many kernels
WORKING = {
    "einsums": (EinsumAttention(), SEQUENCE, ALL, 3),
    "two_kernels": (TwoKernels(), SEQUENCE, ALL, 2),
    "indexed": (Gated(), SEQUENCE, ALL, 2),
    "indexed_in_a_scan_of_as_many_layers": (Stacked((1,), (2,), GatedBlock), SEQUENCE, ALL, 2),
    "indexed_before_an_own_loop": (OwnLoop(), SEQUENCE, ALL, 1),
    "transposed": (TransposedKernel(), SEQUENCE, ALL, 1),
    "own_tied_table": (TiedTable(), SEQUENCE, ALL, 1),
    "flax_einsum": (nn.Einsum((6, 4), "...d,df->...f"), SEQUENCE, ALL, 1),
    "flax_transposed_conv": (nn.ConvTranspose(4, (3,)), SEQUENCE, ALL, 1),
    "recurrent": (nn.RNN(nn.GRUCell(5)), SEQUENCE, ALL, 6),
    "gates_in_one_product": (nn.RNN(nn.OptimizedLSTMCell(5)), SEQUENCE, ALL, 8),
    "helper": (WithHelper(3), SEQUENCE, ALL, 1),
    "weight_norm_elsewhere": (nn.Sequential([nn.WeightNorm(nn.Dense(6)), nn.Dense(3)]), SEQUENCE, "layers_1/kernel", 1),
    "positions": (Positions(), long(5), ALL, 2),
    "positions_as_many_as_examples": (Positions(), long(4), ALL, 2),
    "time_major": (TimeMajor(), long(5), ALL, 1),
    "time_major_as_long_as_the_batch": (TimeMajor(), long(4), ALL, 1),
    "windows": (Windows(), long(4), ALL, 1),
    "scan_axis_1": (Stacked((1,), (3,)), SEQUENCE, ALL, 1),
    "scan_axis_1_as_many_layers_as_inputs": (Stacked((1,), (6,)), SEQUENCE, ALL, 1),
    "scan_axis_2_as_many_layers_as_features": (Stacked((-1,), (6,)), SEQUENCE, ALL, 1),
    "scan_axis_0_as_many_layers_as_inputs": (Stacked((0,), (6,)), SEQUENCE, ALL, 1),
    "nested_scans": (Stacked((0, 1), (2, 3)), SEQUENCE, ALL, 1),
    "nested_scans_of_one_length": (Stacked((1, 0), (6, 6)), SEQUENCE, ALL, 1),
}
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


FAST = (
    "einsums",
    "two_kernels",
    "positions_as_many_as_examples",
    "scan_axis_1_as_many_layers_as_inputs",
    "indexed",
    "windows",
)
"""Of the others each is a neighbour of one of these."""


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in WORKING]
)
def test_both_spaces_equal_the_ordinary_model_on_effective_params_and_a_mixed_batch_its_tasks(name):
    model, x, pattern, kernels = WORKING[name]
    base = base_variables(model, x)
    method = Share(4, 2) if name in ("einsums", "own_tied_table", "nested_scans") else SharedA(rank=2, alpha=3.0)
    spaces = [
        adapt(model, base, x, targets=pattern, method=method, space=space) for space in ("activation", "parameter")
    ]
    assert len(spaces[0].targets) == kernels
    assert spaces[0].targets == spaces[1].targets
    variables = with_adapters(spaces[0], base)

    @jax.jit
    def everything(variables, x, task, ids):
        single, mixed = (spaces[0].apply(variables, x, task_id=which) for which in (task, ids))
        return single, mixed, spaces[1].apply(variables, x, task_id=task)

    rest = {key: tree for key, tree in base.items() if key != "params"}
    answers = []
    for task in range(TASKS):
        single, mixed, parameter = everything(variables, x, jnp.int32(task), jnp.array(IDS))
        want = model.apply({**rest, "params": spaces[0].effective_params(variables, task)}, x)
        assert np.abs(want - model.apply(base, x)).max() > 1e-2
        np.testing.assert_allclose(single, want, **CLOSE)
        np.testing.assert_allclose(parameter, want, **CLOSE)
        answers.append(np.asarray(single))
    np.testing.assert_allclose(mixed, np.stack([answers[t][i] for i, t in enumerate(IDS)]), **CLOSE)


def test_the_inputs_of_an_einsum_are_the_axes_that_it_contracts():
    base = base_variables(EinsumAttention(), SEQUENCE)
    adapted = adapt(EinsumAttention(), base, SEQUENCE, targets=ALL, space="parameter")
    sizes = {target.path: (target.d_in, target.d_out) for target in adapted.targets}
    assert sizes == {"q/w": (6, 6), "kv/w": (6, 12), "out/w": (6, 6)}


def test_two_kernels_of_one_module_have_leaves_of_their_own_and_one_keeps_its_modules_name():
    base = base_variables(TwoKernels(), SEQUENCE)
    for space in ("activation", "parameter"):
        both = adapt(TwoKernels(), base, SEQUENCE, targets=["up", "down"], space=space)
        one = adapt(TwoKernels(), base, SEQUENCE, targets=["up"], space=space)
        trees = both.init(jax.random.key(0), base["params"], 2)
        assert jax.tree.map(jnp.shape, trees["shared"]) == {"up": {"lora_a": (6, 4)}, "down": {"lora_a": (6, 4)}}
        assert jax.tree.map(jnp.shape, one.init(jax.random.key(0), base["params"], 2)["shared"]) == {"lora_a": (6, 4)}
        assert both.counts(base["params"], trees, 2).shared == 2 * 6 * 4


def test_vmapped_layers_on_axis_1_are_theirs_in_parameter_space_whatever_the_numbers():
    for axis, size in ((1, 3), (1, 6), (-1, 6), (0, 6)):
        model = Several(axis, size)
        base = base_variables(model, SEQUENCE)
        adapted = adapt(model, base, SEQUENCE, targets="d/kernel", space="parameter", method=SharedA(rank=1))
        (target,) = adapted.targets
        assert (target.stacked, target.stacked_axes, target.shape) == (size, (axis % 3,), (6, 6))
        variables = with_adapters(adapted, base)
        kernel = adapted.effective_params(variables, 1)["d"]["kernel"] - base["params"]["d"]["kernel"]
        ranks = [np.linalg.matrix_rank(layer, tol=1e-4) for layer in np.moveaxis(np.asarray(kernel), axis, 0)]
        assert ranks == [1] * size


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Standardised(5), "its own param"),
        (nn.WeightNorm(nn.Dense(5)), "changed before its layer gets it"),
        (nn.Dense(5, promote_dtype=lambda x, k, b, **_: (x, k * 2, b)), "a kernel"),
    ],
    ids=["overrides_param", "weight_norm", "promotes"],
)
def test_a_layer_that_multiplies_another_kernel_than_its_leaf_is_refused_in_activation_space_alone(layer, why):
    base = base_variables(layer, SEQUENCE)
    with pytest.raises(TargetError, match=why) as caught:
        adapt(layer, base, SEQUENCE, targets=ALL.replace("|scale", ""))
    assert "\n" not in str(caught.value)
    adapted = adapt(layer, base, SEQUENCE, targets=ALL.replace("|scale", ""), space="parameter")
    variables = with_adapters(adapted, base)
    many = jnp.tile(SEQUENCE, (20, 1, 1))  # so many rows that a plain layer would merge its kernel
    want = layer.apply({"params": adapted.effective_params(variables, 1)}, many)
    np.testing.assert_allclose(adapted.apply(variables, many, task_id=1), want, **CLOSE)


@pytest.mark.parametrize(("space", "why"), [("activation", "before a scale"), ("parameter", "int8 codes")])
def test_a_kernel_of_whole_numbers_is_refused(space, why):
    class Quantised(nn.Module):
        @nn.compact
        def __call__(self, x):
            kernel = self.param("kernel", lambda key: jnp.ones((6, 3), jnp.int8))
            return nn.Dense(2, kernel_init=lambda *_: jnp.ones((3, 2), jnp.int8))(x @ (kernel / 100))

    base = Quantised().init(jax.random.key(0), SEQUENCE)
    for target in ("kernel", "Dense_0/kernel"):
        with pytest.raises(TargetError, match=why):
            adapt(Quantised(), base, SEQUENCE, targets=target, space=space)


class TiedByApply(nn.Module):
    """A layer that is applied to a table's transpose, as GPT-2's output is: its kernel is no parameter."""

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(7, 6, name="embed")
        hidden = nn.Dense(6, name="body")(embed(ids))
        return nn.Dense(7, use_bias=False, parent=None).apply({"params": {"kernel": embed.embedding.T}}, hidden)


def test_a_layer_that_is_applied_to_other_arrays_is_no_parameter():
    ids = jnp.arange(4)[None]
    base = base_variables(TiedByApply(), ids)
    adapted = adapt(TiedByApply(), base, ids, targets=[".*kernel", "embed/embedding"])
    assert [target.path for target in adapted.targets] == ["body/kernel", "embed/embedding"]
    variables = with_adapters(adapted, base)
    want = TiedByApply().apply({"params": adapted.effective_params(variables, 1)}, ids)
    np.testing.assert_allclose(adapted.apply(variables, ids, task_id=1), want, **CLOSE)


class Heads(nn.Module):
    """Heads of every kind: a norm, a table read in three ways, a convolution and a Dense."""

    @nn.compact
    def __call__(self, x):
        embed = nn.Embed(9, 6, name="embed")
        x = nn.Conv(6, (2,), name="conv")(nn.LayerNorm(name="norm")(x)) + embed(jnp.argmax(x, -1))
        return nn.Dense(3, name="out")(nn.tanh(embed.attend(x))) + (x @ embed.embedding.T)[..., :3]


@pytest.mark.slow
@pytest.mark.parametrize("heads", ["norm/.*", "embed/embedding", "conv/.*", "out/.*", ".*"])
def test_any_parameter_may_be_a_head_in_a_mixed_batch(heads):
    base = base_variables(Heads(), SEQUENCE)
    adapted = adapt(Heads(), base, SEQUENCE, targets=[], heads=heads)
    variables = with_adapters(adapted, base)
    answers = jax.jit(lambda v: [adapted.apply(v, SEQUENCE, task_id=t) for t in range(TASKS)])(variables)
    mixed = jax.jit(lambda v, ids: adapted.apply(v, SEQUENCE, task_id=ids))(variables, jnp.array(IDS))
    np.testing.assert_allclose(mixed, np.stack([answers[t][i] for i, t in enumerate(IDS)]), **CLOSE)


class Remembering(nn.Module):
    """A block with state of its examples and a count that has none."""

    @nn.compact
    def __call__(self, x, _):
        seen = self.variable("cache", "seen", jnp.zeros, x.shape)
        count = self.variable("cache", "count", jnp.zeros, ())
        seen.value, count.value = seen.value + x, count.value + 1.0
        return nn.tanh(nn.Dense(6, name="d")(seen.value) / count.value), None


class StackedState(nn.Module):
    @nn.compact
    def __call__(self, x):
        axes, rngs = {"params": 0, "cache": 0}, {"params": True}
        return nn.scan(Remembering, variable_axes=axes, split_rngs=rngs, length=4)(name="m")(x, None)[0]


def test_stacked_state_of_as_many_layers_as_examples_and_counts_without_a_batch_axis_serve_a_mixed_batch():
    x = normal(4, 6)
    base = base_variables(StackedState(), x)
    adapted = adapt(StackedState(), base, x, targets=".*kernel", mutable=["cache"])
    variables = with_adapters(adapted, base)
    mixed, state = adapted.apply(variables, x, task_id=jnp.array(IDS))
    for row, task in enumerate(IDS):
        single, of_task = adapted.apply(variables, x, task_id=task)
        np.testing.assert_allclose(mixed[row], single[row], **CLOSE)
        seen = [tree["cache"]["m"]["seen"][:, row] for tree in (state, of_task)]
        np.testing.assert_allclose(*seen, **CLOSE)

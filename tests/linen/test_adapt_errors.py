"""What cannot be adapted is refused in one line that names it; nothing falls back to the base model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import (
    IMAGE,
    SEQUENCE,
    TASKS,
    TOKENS,
    Attention,
    Ensemble,
    Scanned,
    Twice,
    base_variables,
    merged_params,
    with_adapters,
)

from share_jax import Share, SharedA, adapt
from share_jax.errors import InputError, TargetError, TaskError


def refused(error, model, x, *, matching: str, **options):
    base = base_variables(model, x)
    with pytest.raises(error, match=matching) as caught:
        adapt(model, base, x, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pattern_without_a_match_lists_near_matches():
    message = refused(TargetError, Attention(), SEQUENCE, matching="matches no path", targets=".*/quary/kernel")
    assert "query/kernel" in message
    message = refused(TargetError, Attention(), SEQUENCE, matching="to match", targets="query")
    assert "'.*query.*'" in message


def test_every_pattern_of_several_has_to_match():
    refused(TargetError, Twice(), SEQUENCE, matching="nowhere", targets=["Dense_0/kernel", "nowhere/kernel"])
    refused(TargetError, Twice(), SEQUENCE, matching="nowhere", targets="Dense_0/kernel", heads="nowhere")


def test_a_bad_regular_expression_is_shown():
    refused(TargetError, Twice(), SEQUENCE, matching="regular expression", targets="(kernel")


def test_no_target_and_no_head_is_an_error():
    refused(TargetError, Twice(), SEQUENCE, matching="no pattern", targets=())


def test_an_unknown_space_is_an_error():
    refused(TargetError, Twice(), SEQUENCE, matching="activation or parameter", targets=".*kernel", space="weights")


def test_biases_and_scales_are_never_adapted():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Attention(name="attention")(x)
            return nn.ConvLocal(3, (2,), name="local")(nn.remat(nn.DenseGeneral)((2, 3), name="general")(x)[..., 0])

    base = base_variables(Model(), SEQUENCE)
    adapted = adapt(Model(), base, SEQUENCE, targets=".*", space="parameter")
    assert {target.path.rpartition("/")[2] for target in adapted.targets} == {"kernel"}
    refused(TargetError, Model(), SEQUENCE, matching="matches no path", targets="attention/.*/bias")


@pytest.mark.parametrize(
    ("layer", "x", "name"),
    [
        (nn.ConvLocal(4, (3,)), SEQUENCE, "ConvLocal"),
        (nn.DenseGeneral(4, batch_dims=(0,)), SEQUENCE, "batch_dims"),
        (nn.Conv(4, (3,), mask=jnp.ones((3, 6, 4))), SEQUENCE, "mask"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_layer_that_activation_space_cannot_follow_is_refused_by_name(layer, x, name):
    refused(TargetError, layer, x, matching=name, targets="kernel")


def test_a_layer_with_a_computation_of_its_own_is_refused_by_name():
    class Squared(nn.Dense):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("kernel", self.kernel_init, (6, 3)) ** 2

    refused(TargetError, Squared(3), SEQUENCE, matching="Squared, which has its own __call__", targets="kernel")


def test_a_vmap_that_does_not_carry_the_collections_is_refused_with_what_to_add():
    model = Ensemble(("params",))
    message = refused(TargetError, model, SEQUENCE, matching="variable_axes", targets="heads/kernel")
    assert "'shared'" in message
    assert "'tasks'" in message
    adapt(model, base_variables(model, SEQUENCE), SEQUENCE, targets="heads/kernel", space="parameter")


class TiedByHand(nn.Module):
    """The output layer reads the embedding table itself, so no call of the layer can be intercepted there."""

    jit: bool = False

    def setup(self):
        self.embed = nn.Embed(9, 6)
        self.mix = nn.jit(nn.Dense)(6) if self.jit else nn.Dense(6)

    def __call__(self, tokens):
        return nn.relu(self.mix(self.embed(tokens))) @ self.embed.embedding.T


class ReadByHand(nn.Module):
    """The kernel of an early layer is read by hand and passes through layers that are targets themselves."""

    @nn.compact
    def __call__(self, x):
        early = nn.Dense(6, name="early")
        x = early(x)
        x = nn.relu(x @ early.variables["params"]["kernel"])
        return Scanned(remat=True, name="late")(nn.Dense(6, name="middle")(x))


@pytest.mark.parametrize(
    ("model", "x", "name", "other"),
    [
        (TiedByHand(), TOKENS, "embed/embedding", "mix/kernel"),
        (TiedByHand(jit=True), TOKENS, "embed/embedding", "mix/kernel"),
        (ReadByHand(), SEQUENCE, "early/kernel", "(middle|late/.*)/kernel"),
    ],
    ids=["tied", "tied_jit", "through_a_scan"],
)
def test_a_kernel_that_is_also_read_without_its_layer_has_its_update_there_too(model, x, name, other):
    base = base_variables(model, x)
    alone = adapt(model, base, x, targets=other)
    assert not alone.traced
    spaces = [
        adapt(model, base, x, targets=".*/(kernel|embedding)", space=space) for space in ("activation", "parameter")
    ]
    assert name in spaces[0].traced
    variables = with_adapters(spaces[0], base)
    want = jax.jit(model.apply)({"params": merged_params(variables, 1, SharedA().scale)}, x)
    for adapted in spaces:
        got = jax.jit(adapted.apply)(variables, x, task_id=jnp.int32(1))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


class ReadAsASum(nn.Module):
    """What a layer's kernel adds up to is read by hand."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(6, name="layer")
        return layer(x) + layer.variables["params"]["kernel"].sum()


def test_a_kernel_that_is_read_in_another_way_is_refused_in_activation_space_alone():
    refused(
        TargetError, ReadAsASum(), SEQUENCE, matching="without calling its layer.*reduce_sum", targets="layer/kernel"
    )
    adapt(ReadAsASum(), base_variables(ReadAsASum(), SEQUENCE), SEQUENCE, targets="layer/kernel", space="parameter")


def test_a_parameter_that_the_call_does_not_reach_is_refused():
    class Branches(nn.Module):
        @nn.compact
        def __call__(self, x, *, both: bool = False):
            y = nn.Dense(3, name="used")(x)
            return y + nn.Dense(3, name="unused")(x) if both or self.is_initializing() else y

    base = base_variables(Branches(), SEQUENCE)
    for space in ("activation", "parameter"):
        with pytest.raises(TargetError, match=r"unused.*does not reach.*; narrow .* an example call that uses"):
            adapt(Branches(), base, SEQUENCE, targets=".*kernel", space=space)
    assert len(adapt(Branches(), base, SEQUENCE, targets=".*kernel", both=True).targets) == 2


def test_a_kernel_that_the_output_does_not_depend_on_is_refused_in_both_spaces():
    class Spare(nn.Module):
        @nn.compact
        def __call__(self, x):
            nn.Dense(3, name="spare")(x)
            return nn.Dense(3, name="used")(x)

    base = base_variables(Spare(), SEQUENCE)
    for space in ("activation", "parameter"):
        with pytest.raises(TargetError, match=r"spare/kernel: got a parameter that the output does not depend on"):
            adapt(Spare(), base, SEQUENCE, targets=".*kernel", space=space)
        assert len(adapt(Spare(), base, SEQUENCE, targets="used/kernel", space=space).targets) == 1


def test_wrong_example_arguments_are_one_line():
    model = Twice()
    base = base_variables(model, SEQUENCE)
    for args in ((), (SEQUENCE[..., :5],), (SEQUENCE, SEQUENCE)):
        with pytest.raises(TargetError, match="example call") as caught:
            adapt(model, base, *args, targets=".*kernel")
        assert "\n" not in str(caught.value)


def test_what_is_no_parameterisation_is_refused():
    model = Twice()
    base = base_variables(model, SEQUENCE)
    with pytest.raises((InputError, TypeError), match=r"parameterisation|Parameterization"):  # or run-time types
        adapt(model, base, SEQUENCE, targets=".*kernel", method=object())


@pytest.mark.parametrize("method", [SharedA, Share])
def test_a_class_is_no_parameterisation(method):
    """It has every name of the protocol, so that it would pass for an instance."""
    words = rf"method: got the class {method.__name__}.*pass an instance, such as SharedA\(rank=4\)"
    refused(InputError, Twice(), SEQUENCE, matching=words, targets=".*kernel", method=method)


def test_params_without_their_name_and_with_it_where_it_does_not_belong_are_refused():
    model = Twice()
    base = base_variables(model, SEQUENCE)
    with pytest.raises(InputError, match=r"variables: got a dict of \['Dense_0'.*pass \{\"params\": params\}"):
        adapt(model, base["params"], SEQUENCE, targets=".*kernel")
    for options in ({"targets": "Dense_0/kernel", "heads": "Dense_0/bias"}, {"targets": "Dense_0/kernel"}):
        adapted = adapt(model, base, SEQUENCE, **options)
        with pytest.raises(InputError, match=r'params: got the tree \{"params"') as caught:
            adapted.init(jax.random.key(0), base, 2)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="params: got a tree without Dense_0/bias"):
        adapt(model, base, SEQUENCE, targets=(), heads="Dense_0/bias").init(jax.random.key(0), {}, 2)


def test_boxed_parameters_are_refused_with_how_to_unbox_them():
    model = nn.Dense(3, kernel_init=nn.with_partitioning(nn.initializers.zeros, (None, None)))
    base = {"params": {"kernel": nn.Partitioned(jnp.zeros((6, 3)), (None, None)), "bias": jnp.zeros(3)}}
    with pytest.raises(InputError, match="unbox"):
        adapt(model, base, SEQUENCE, targets="kernel")
    assert len(adapt(model, nn.unbox(base), SEQUENCE, targets="kernel").targets) == 1


def test_a_helper_module_outside_the_model_is_left_alone():
    class Helper(nn.Module):
        def double(self, x):
            return 2 * x

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Helper(parent=None).double(nn.Dense(3)(x))

    base = base_variables(Model(), SEQUENCE)
    adapted = adapt(Model(), base, SEQUENCE, targets=".*kernel")
    variables = with_adapters(adapted, base)
    assert np.abs(adapted.apply(variables, SEQUENCE, task_id=0) - Model().apply(base, SEQUENCE)).max() > 1e-2


def test_task_ids_are_checked_and_required():
    model = Twice()
    base = base_variables(model, SEQUENCE)
    adapted = adapt(model, base, SEQUENCE, targets=".*kernel")
    variables = with_adapters(adapted, base)
    with pytest.raises(TypeError, match="task_id"):
        adapted.apply(variables, SEQUENCE)
    for bad in (TASKS, -1, np.array([0, 1, 2, TASKS])):
        with pytest.raises(TaskError):
            adapted.apply(variables, SEQUENCE, task_id=bad)
        if np.ndim(bad) == 0:
            with pytest.raises(TaskError):
                adapted.effective_params(variables, bad)


def test_zero_tasks_are_refused():
    base = base_variables(nn.Conv(4, (3, 3)), IMAGE)
    adapted = adapt(nn.Conv(4, (3, 3)), base, IMAGE, targets="kernel")
    with pytest.raises(InputError, match="num_tasks"):
        adapted.init(jax.random.key(0), base["params"], 0)


def test_what_matched_is_shown():
    base = base_variables(Attention(), SEQUENCE)
    adapted = adapt(Attention(), base, SEQUENCE, targets=".*/(query|out)/kernel", heads=".*/out/bias")
    shown = str(adapted)
    assert "MultiHeadDotProductAttention_0/out/kernel    DenseGeneral  6 x 6" in shown
    assert "2 kernels" in shown
    assert "owned by each task: MultiHeadDotProductAttention_0/out/bias" in shown

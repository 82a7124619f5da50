"""Further models as they are: at the start the base, after two tasks the ordinary model on effective parameters.

Every one of them has activation space, mixed batches and a `Learner` without a wrapper, for the kernels that `targets`
names; those that are left out are refused in one line, by `REFUSED`.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from gemma_modules import gemma_module, recurrentgemma_module
from tunix_modules import tunix_module

import share_jax
from share_jax.errors import TargetError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROWS = 4
IDS = jnp.asarray(np.random.default_rng(0).integers(4, 30, (ROWS, 6)))
PLACES = jnp.broadcast_to(jnp.arange(6), IDS.shape)
MASK = jnp.broadcast_to(jnp.tril(jnp.ones((6, 6), bool)), (ROWS, 6, 6))
IMAGES = np.random.default_rng(1).standard_normal((ROWS, 16, 16, 3)).astype(np.float32)
SIZES = {"num_layers": 2, "embed_dim": 16, "hidden_dim": 24, "num_heads": 2, "head_dim": 8, "num_kv_heads": 1}
CLOSE = {"rtol": 2e-4, "atol": 1e-5}


@pytest.fixture(autouse=True, scope="module")
def _ranks_may_differ() -> Any:
    with jax.numpy_rank_promotion("allow"):
        yield


class Case(NamedTuple):
    """A model, its variables (None of an NNX module), an example call, the kernels, and where its logits are."""

    model: Any
    base: Any
    inputs: Any
    targets: list[str]
    output: Any
    train: dict[str, Any] | None = None


def last(out: Any) -> Any:
    """Logits, or hidden values, of the last place."""
    logits = getattr(out, "logits", None)
    if logits is None:
        logits = out["last_hidden_state"] if isinstance(out, dict) else out[0]
    return logits[:, -1]


class Older:
    """jax.numpy with arguments that newer versions no longer have."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    def clip(self, x: Any, a_min: Any = None, a_max: Any = None) -> Any:
        return jnp.clip(x, a_min, a_max)

    def reshape(self, x: Any, newshape: Any) -> Any:
        return jnp.reshape(x, newshape)


def transformers_of(name: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="make test-models installs it")
    return getattr(transformers, name, None) or pytest.skip("this transformers has no Flax models")


def gpt2(patch: pytest.MonkeyPatch) -> Case:
    config = transformers_of("GPT2Config")(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    model = transformers_of("FlaxGPT2LMHeadModel")(config, seed=0)
    inputs = share_jax.Inputs(IDS, jnp.ones_like(IDS), PLACES)
    return Case(model.module, {"params": model.params}, inputs, [".*kernel", ".*wte/embedding"], last)


def t5(patch: pytest.MonkeyPatch) -> Case:
    model_of = transformers_of("FlaxT5ForConditionalGeneration")
    patch.setattr("transformers.models.t5.modeling_flax_t5.jnp", Older())
    sizes = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    model = model_of(transformers_of("T5Config")(**sizes, decoder_start_token_id=0), input_shape=(1, 6), seed=0)
    ones = jnp.ones_like(IDS)
    inputs = share_jax.Inputs(IDS, ones, IDS[:, ::-1], ones)
    targets = [".*kernel", ".*relative_attention_bias/embedding"]
    return Case(model.module, {"params": model.params}, inputs, targets, last)


def gemma(patch: pytest.MonkeyPatch, **other: Any) -> Case:
    config, modules, transformer = (gemma_module(f"gm.nn.{name}") for name in ("_config", "_modules", "_transformer"))
    kinds = modules.AttentionType.GLOBAL, modules.AttentionType.LOCAL_SLIDING
    sizes = {name: size for name, size in SIZES.items() if name != "num_layers"}
    norms = {"use_post_attn_norm": True, "use_post_ffw_norm": True, "use_qk_norm": True, "final_logit_softcap": None}
    whole = config.TransformerConfig(
        num_embed=32, **sizes, **norms, attention_types=kinds, sliding_window_size=4, **other
    )
    model = transformer.Transformer(config=whole, dtype=jnp.float32)
    targets = [".*(attn|mlp)/.*(w|gating_einsum|linear)"]
    return Case(model, model.init(jax.random.key(0), IDS), share_jax.Inputs(IDS), targets, last)


def gemma_turned(patch: pytest.MonkeyPatch) -> Case:
    return gemma(patch, transpose_gating_einsum=True)


def griffin(patch: pytest.MonkeyPatch) -> Case:
    common, jax_griffin = recurrentgemma_module("common"), recurrentgemma_module("jax.griffin")
    blocks = common.TemporalBlockType.RECURRENT, common.TemporalBlockType.ATTENTION
    sizes = {"vocab_size": 32, "width": 16, "mlp_expanded_width": 24, "num_heads": 2, "attention_window_size": 8}
    others = {"embeddings_scale_by_sqrt_dim": True, "logits_soft_cap": 30.0}
    config = common.GriffinConfig(**sizes, **others, block_types=blocks, scan_type=common.ScanType.LINEAR_NATIVE)
    model = jax_griffin.Griffin(config, gradient_checkpointing=False)
    targets = [r".*(kernel|(?<!conv_1d/)(?<!_gate/)w)"]
    return Case(model, model.init(jax.random.key(0), IDS, PLACES), share_jax.Inputs(IDS, PLACES), targets, last)


def flaxmodels_gpt2(patch: pytest.MonkeyPatch) -> Case:
    module = pytest.importorskip("flaxmodels.gpt2.gpt2", reason="make test-models installs it")
    for each in (module, module.ops):
        patch.setattr(each, "jnp", Older())
    dropped = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.1)
    sizes = {"vocab_size": 32, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_inner": None}
    others = {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "scale_attn_weights": True}
    model = module.GPT2Model(config=SimpleNamespace(**sizes, **dropped, **others))
    base = model.init(jax.random.key(0), IDS)
    return Case(model, base, share_jax.Inputs(IDS), [".*kernel"], last, {"training": True})


def flaxmodels_resnet(patch: pytest.MonkeyPatch) -> Case:
    module = pytest.importorskip("flaxmodels.resnet.resnet", reason="make test-models installs it")
    model = module.ResNet18(output="logits", pretrained=None, num_classes=3, normalize=False)
    base = model.init(jax.random.key(0), IMAGES, train=False)
    return Case(model, base, share_jax.Inputs(IMAGES, train=False), [".*kernel"], None)


def tunix(name: str, kind: str, **other: Any) -> Callable[[pytest.MonkeyPatch], Case]:
    def make(patch: pytest.MonkeyPatch) -> Case:
        module = tunix_module(f"models.{name}.model")
        usual = {"vocab_size": 32, "rope_theta": 10_000, "norm_eps": 1e-5}
        if name == "gemma3":
            usual = {"num_embed": 32, "sliding_window_size": 4, "param_dtype": jnp.float32}
        model = getattr(module, kind)(module.ModelConfig(**SIZES, **usual, **other), rngs=nnx.Rngs(0))
        targets = [".*(_proj/w|_proj/kernel|einsum/w|embedding)"]
        if "num_experts" in other:
            targets += [".*router/kernel", ".*mlp/(gate|up|down)_proj"]
        return Case(model, None, share_jax.Inputs(IDS, PLACES, None, MASK), targets, last)

    return make


MODELS = {
    "transformers GPT-2": gpt2,
    "transformers T5": t5,
    "gemma": gemma,
    "gemma, turned gating": gemma_turned,
    "recurrentgemma": griffin,
    "flaxmodels GPT-2": flaxmodels_gpt2,
    "flaxmodels ResNet": flaxmodels_resnet,
    "tunix Llama 3": tunix("llama3", "Llama3"),
    "tunix Llama 3, tied": tunix("llama3", "Llama3", weight_tying=True),
    "tunix Gemma 3": tunix("gemma3", "Gemma3"),
    "tunix Qwen 3": tunix("qwen3", "Qwen3"),
    "tunix Qwen 3, experts": tunix("qwen3", "Qwen3", num_experts=3, num_experts_per_tok=2),
}

REFUSED = {
    "recurrentgemma": [
        (r".*conv_1d/w", "a kernel that is no factor of a matrix product: it is read by (slice|mul)"),
        (r".*a_gate/w", "a kernel of several experts or groups, each with its own inputs"),
    ],
}
"""Kernels without activation space, and why."""


def adapt(case: Case, **options: Any) -> Any:
    whole = (case.model,) if case.base is None else (case.model, case.base)
    return share_jax.adapt(*whole, *case.inputs.args, **case.inputs.kwargs, **options)


def ordinary(case: Case, adapted: Any, variables: Any) -> Any:
    """The output of the model that is not adapted."""
    model = adapted.model if case.base is None else case.model
    return model.apply(variables, *case.inputs.args, **case.inputs.kwargs)


def picked(case: Case, out: Any) -> Any:
    return np.asarray(out if case.output is None else case.output(out))


@pytest.mark.parametrize("name", MODELS)
def test_start_effective_parameters_two_tasks_and_a_batch_of_both(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = MODELS[name](monkeypatch)
    adapted = adapt(case, targets=case.targets)
    base = adapted.variables(case.model) if case.base is None else dict(case.base)
    options = {"output": case.output, "train_kwargs": case.train or {}}
    learner = share_jax.Learner(adapted, base, optax.adam(3e-3), **options)
    bank = learner.start(adapted.init(jax.random.key(0), base["params"], 2))
    variables = {**base, "shared": bank.shared, "tasks": bank.tasks}
    started = adapted.apply(variables, *case.inputs.args, **case.inputs.kwargs, task_id=0)
    np.testing.assert_allclose(picked(case, started), picked(case, ordinary(case, adapted, base)), **CLOSE)
    single = []
    for task, labels in (("one", np.arange(ROWS) % 2), ("two", 1 - np.arange(ROWS) % 2)):
        bank = learner.learn(bank, task, [{"inputs": case.inputs, "labels": labels}] * 4)
        single.append(np.asarray(learner.predict(bank, task, case.inputs)))
    np.testing.assert_array_equal(learner.predict(bank, "one", case.inputs), single[0])
    assert not np.allclose(single[0], single[1])
    variables = {**base, "shared": bank.shared, "tasks": bank.tasks}
    for task, got in enumerate(single):
        params = adapted.effective_params(variables, task)
        want = picked(case, ordinary(case, adapted, {**base, "params": params}))
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5 * max(1.0, float(np.abs(want).max())))
    ids = np.arange(ROWS) % 2
    mixed = learner.predict(bank, ids, case.inputs)
    np.testing.assert_allclose(mixed, [single[task][row] for row, task in enumerate(ids)], **CLOSE)


@pytest.mark.parametrize("name", REFUSED)
def test_other_kernels_are_refused_in_one_line_and_have_parameter_space(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = MODELS[name](monkeypatch)
    for targets, reason in REFUSED[name]:
        with pytest.raises(TargetError, match=reason) as told:
            adapt(case, targets=targets)
        assert "\n" not in str(told.value)
    targets = [pattern for pattern, _ in REFUSED[name]]
    adapted = adapt(case, targets=targets, space="parameter")
    base = adapted.variables(case.model) if case.base is None else dict(case.base)
    learner = share_jax.Learner(adapted, base, optax.adam(1e-2), output=case.output)
    bank = learner.start(adapted.init(jax.random.key(0), base["params"], 1))
    bank = learner.learn(bank, "one", [{"inputs": case.inputs, "labels": np.arange(ROWS) % 2}] * 4)
    variables = {**base, "shared": bank.shared, "tasks": bank.tasks}
    want = ordinary(case, adapted, {**base, "params": adapted.effective_params(variables, 0)})
    np.testing.assert_allclose(learner.predict(bank, "one", case.inputs), picked(case, want), **CLOSE)
    assert not np.allclose(picked(case, want), picked(case, ordinary(case, adapted, base)))

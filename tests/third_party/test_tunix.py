"""tunix beside a bank: what its trainer has trained becomes task one, goes out again, and its sampler runs a task."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tunix_modules import tunix_module

import share_jax

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

llama3 = tunix_module("models.llama3.model")
peft_trainer = tunix_module("sft.peft_trainer")
sft_utils = tunix_module("sft.utils")
sampler = tunix_module("generate.sampler")
qwix = pytest.importorskip("qwix", reason="make test-models installs it")

IDS = np.random.default_rng(0).integers(1, 30, (4, 6))
MASK = np.ones_like(IDS, bool)
CALL = (IDS, np.broadcast_to(np.arange(6), IDS.shape), None, np.broadcast_to(np.tril(np.ones((6, 6), bool)), (4, 6, 6)))
PROJECTIONS = ".*(q_proj|o_proj|gate_proj|down_proj)"
RULE = {"module_path": PROJECTIONS, "rank": 2, "alpha": 8.0}
METHOD = share_jax.SeparateLoRA(rank=2, alpha=8.0)
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(autouse=True, scope="module")
def _ranks_may_differ() -> Any:
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    sizes = {"num_layers": 2, "vocab_size": 32, "embed_dim": 8, "hidden_dim": 12}
    heads = {"num_heads": 2, "head_dim": 4, "num_kv_heads": 1, "rope_theta": 10_000, "norm_eps": 1e-5}
    return llama3.Llama3(llama3.ModelConfig(**sizes, **heads), rngs=nnx.Rngs(0))


def model_inputs(batch: Any) -> dict[str, Any]:
    positions = sft_utils.build_positions_from_mask(batch.input_mask)
    mask = sft_utils.make_causal_attn_mask(batch.input_mask)
    tokens = {"input_tokens": batch.input_tokens, "input_mask": batch.input_mask}
    return {**tokens, "positions": positions, "attention_mask": mask}


def trained(model: Any, **codes: Any) -> Any:
    """The model with LoRA of qwix, four steps of tunix's trainer after its start."""
    with_lora = qwix.apply_lora_to_model(model, qwix.LoraProvider(**RULE, **codes), *CALL, rngs=nnx.Rngs(1))
    config = peft_trainer.TrainingConfig(eval_every_n_steps=100, max_steps=4)
    trainer = peft_trainer.PeftTrainer(with_lora, optax.adam(1e-2), config).with_gen_model_input_fn(model_inputs)
    trainer.train([peft_trainer.TrainingInput(input_tokens=IDS, input_mask=MASK)] * 4)
    assert trainer.train_steps == 4
    return trainer.model


def learner_of(model: Any) -> tuple[share_jax.Learner, Any]:
    adapted = share_jax.adapt(model, *CALL, targets=f"{PROJECTIONS}/(w|kernel)", method=METHOD)
    assert len(adapted.targets) == 8
    learner = share_jax.Learner(adapted, adapted.variables(model), optax.adam(3e-2), output=lambda out: out[0][:, -1])
    return learner, learner.start(adapted.init(jax.random.key(0), learner.base["params"], 2))


@pytest.fixture(scope="module")
def banked(model: Any) -> tuple[Any, share_jax.Learner, Any]:
    theirs = trained(model)
    learner, empty = learner_of(model)
    one, _ = share_jax.nnx.import_lora(theirs, learner.model, empty, "tunix", alpha=8.0)
    batch = {"inputs": share_jax.Inputs(*CALL), "labels": np.array([3, 5, 3, 5])}
    return theirs, learner, learner.learn(one, "ours", [batch] * 8)


def test_what_its_trainer_trained_is_task_one_and_keeps_its_output(banked: Any, model: Any) -> None:
    theirs, learner, bank = banked
    want = theirs(*CALL)[0][:, -1]
    assert np.abs(want - model(*CALL)[0][:, -1]).max() > 1e-2
    np.testing.assert_allclose(learner.predict(bank, "tunix", share_jax.Inputs(*CALL)), want, **CLOSE)


def test_tasks_go_out_into_its_model(banked: Any) -> None:
    theirs, learner, bank = banked
    back = share_jax.nnx.export_lora(bank, learner.model, "tunix", theirs, alpha=8.0)
    pairs = [nnx.to_flat_state(nnx.state(each, nnx.LoRAParam)) for each in (back, theirs)]
    for (_, ours), (_, own) in zip(*pairs, strict=True):
        np.testing.assert_array_equal(ours[...], own[...])
    out = share_jax.nnx.export_lora(bank, learner.model, "ours", theirs, alpha=8.0)
    want = learner.predict(bank, "ours", share_jax.Inputs(*CALL))
    np.testing.assert_allclose(out(*CALL)[0][:, -1], want, rtol=1e-5, atol=1e-6)


def test_qlora_comes_in_on_the_same_codes(model: Any) -> None:
    codes = {"weight_qtype": "nf4", "tile_size": 4}
    theirs = trained(model, **codes)
    rule = qwix.QuantizationRule(module_path=PROJECTIONS, **codes)
    learner, empty = learner_of(qwix.quantize_model(model, qwix.PtqProvider([rule]), *CALL))
    bank, _ = share_jax.nnx.import_lora(theirs, learner.model, empty, "tunix", alpha=8.0)
    got = learner.predict(bank, "tunix", share_jax.Inputs(*CALL))
    np.testing.assert_allclose(got, theirs(*CALL)[0][:, -1], rtol=1e-5, atol=1e-6)


class Letters:
    """A tokenizer of a character each."""

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) % 29 + 1 for letter in text]

    def decode(self, ids: Any, **_: Any) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 1

    def eos_id(self) -> int:
        return 31

    def pad_id(self) -> int:
        return 0


def sampled(model: Any) -> list[list[int]]:
    cache = sampler.CacheConfig(cache_size=16, num_layers=2, num_kv_heads=1, head_dim=4)
    out = sampler.Sampler(model, Letters(), cache)(["abc", "xyzabc", "abc"], max_generation_steps=6, echo=False)
    return [np.asarray(tokens).tolist() for tokens in out.tokens]


def test_its_sampler_runs_a_task_and_a_batch_of_tasks(banked: Any, model: Any) -> None:
    theirs, learner, bank = banked
    by_task = {
        "tunix": sampled(theirs),
        "ours": sampled(share_jax.nnx.export_lora(bank, learner.model, "ours", theirs, alpha=8.0)),
    }
    assert by_task["tunix"] != by_task["ours"]
    for name, want in by_task.items():
        assert sampled(share_jax.nnx.ChosenTask(learner.model, model, bank, name)) == want
    names = ["ours", "tunix", "tunix"]
    mixed = sampled(share_jax.nnx.ChosenTask(learner.model, model, bank, names))
    assert mixed == [by_task[name][row] for row, name in enumerate(names)]


def test_the_trees_are_those_that_jit_takes(banked: Any, model: Any) -> None:
    _, learner, bank = banked
    graph, state = nnx.split(share_jax.nnx.ChosenTask(learner.model, model, bank, "ours"))
    logits = jax.jit(lambda state: nnx.merge(graph, state)(*CALL)[0][:, -1])(state)
    want = learner.predict(bank, "ours", share_jax.Inputs(*CALL))
    np.testing.assert_allclose(jnp.asarray(logits), want, rtol=1e-5, atol=1e-6)

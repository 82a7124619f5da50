"""L2P: a pool of prompts that all tasks train; each input chooses a few by itself, and they are put before its tokens.

The frozen model's pooled vector is the query; the prompts whose keys have the highest cosine with it are chosen.
loss = CE + lambda * mean over examples of sum over chosen keys of (1 - cosine), which pulls chosen keys to the query;
a prompt that is not chosen has no gradient.

Where the model reads `hidden`, computed once below `first_layer`, the prompts enter there and not before layer 0. Heads
of a model that sees its first token alone see the mean of the prompts' last states, as in the paper; those of a model
that sees the mean over its tokens see the mean over tokens and prompts.

Class-incremental, the loss of a task is over its own outputs, as in the authors' code; answers are over all.

Source: Wang et al. 2022, "Learning to Prompt for Continual Learning" (arXiv 2112.08654), equations 3 to 5, without its
optional penalty on often-chosen prompts. Defaults: as in the paper, 10
prompts (`--prompt-pool`) of 5 tokens (`--prompt-length`), 5 chosen (`--prompt-top`) and lambda = 0.5 (`--prompt-pull`);
`--prompt-learning-rate` by measurement, stream by stream (`TUNED`). Prompts and keys are drawn uniformly from -1
to 1.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.algorithms.heads import features
from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import Extension, MethodContext, Plan
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers, out_of_range
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.losses import LossSums
from share_jax.train.step import Forward, Loss
from share_jax.trees import at, flat, nested
from share_jax.typing import PRNGKey, Tree

POOL, KEYS = "prompt/pool", "prompt/keys"


@dataclass(frozen=True)
class PromptNumbers(MethodNumbers):
    """What only L2P reads."""

    prompt_pool: int = 10
    """l2p: prompts in the pool."""
    prompt_length: int = 5
    """l2p: tokens per prompt."""
    prompt_top: int = 5
    """l2p: prompts that are put before each input."""
    prompt_pull: float = 0.5
    """l2p: weight of the term that pulls chosen keys towards the query."""
    prompt_learning_rate: float = 0.01
    """l2p: peak rate of prompts and keys."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self.at_least(1, "prompt_pool", "prompt_length", "prompt_top")
        if self.prompt_top > self.prompt_pool:
            expected = f"at most {self.prompt_pool}, the prompts in the pool"
            raise out_of_range("prompt_top", self.prompt_top, expected)
        self.at_least(0, "prompt_pull")
        self.above_zero("prompt_learning_rate")


def cosines(query: Float[Array, "batch d"], keys: Float[Array, "m d"]) -> Float[Array, "batch m"]:
    """The cosine of every query with every key."""

    def unit(x: Array) -> Array:
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    return unit(query) @ unit(keys).T


def chosen(pool: Float[Array, "m l d"], similar: Float[Array, "batch m"], top: int) -> tuple[Array, Array]:
    """The prompts with the highest cosines.

    Returns:
        Their tokens one prompt after another, (batch, top l, d), and the pull, (batch,): sum of 1 - cosine.
    """
    values, places = jax.lax.top_k(similar, top)
    tokens = jnp.take(pool, places, axis=0)
    return tokens.reshape(len(tokens), -1, tokens.shape[-1]), jnp.sum(1 - values, axis=-1)


def prepended(inputs: dict[str, Any], tokens: Float[Array, "batch p d"]) -> dict[str, Any]:
    """Inputs at the level of `hidden` with tokens before their own, which count in the mask."""
    longer = {**inputs, "hidden": jnp.concatenate([tokens.astype(inputs["hidden"].dtype), inputs["hidden"]], axis=1)}
    if "attention_mask" in inputs:
        mask = inputs["attention_mask"]
        longer["attention_mask"] = jnp.concatenate([jnp.ones(tokens.shape[:2], mask.dtype), mask], axis=1)
    return longer


def mean_of_first(count: int) -> Any:
    """An interceptor under which a model's pooled vector is the mean over the last states of its first tokens."""

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        here = module.scope is not None and module.path == () and context.method_name == "pooled"
        return args[0][:, :count].mean(axis=1) if here else next_fun(*args, **kwargs)

    return intercept


@dataclass(frozen=True)
class L2P(Extension):
    """The pool.

    Attributes:
        pool: prompts in it, M.
        length: tokens per prompt.
        top: prompts that an input chooses.
        pull: lambda.
    """

    pool: int
    length: int
    top: int
    pull: float

    def leaves(self, scene: MethodContext, key: PRNGKey) -> dict[str, Any]:
        """Prompts (M, length, d) and keys (M, d)."""
        split = scene.job.stream.tasks[0].train
        example = {name: array[:1] for name, array in split.inputs.items()}
        width = jax.eval_shape(lambda: self._hidden(scene, scene.job.backbone.params, example)["hidden"]).shape[-1]
        key_pool, key_keys = jax.random.split(key)
        return {
            POOL: jax.random.uniform(key_pool, (self.pool, self.length, width), minval=-1, maxval=1),
            KEYS: jax.random.uniform(key_keys, (self.pool, width), minval=-1, maxval=1),
        }

    @staticmethod
    def _hidden(scene: MethodContext, params: Tree, inputs: Any) -> dict[str, Any]:
        """The inputs with `hidden`, where they are still images or token ids."""
        if "hidden" in inputs:
            return dict(inputs)
        hidden = scene.job.backbone.model.apply({"params": params}, **inputs, method="prefix")
        return {**{name: x for name, x in inputs.items() if name == "attention_mask"}, "hidden": hidden}

    def forward(self, scene: MethodContext) -> Forward:
        """The logits behind the chosen prompts, and how far their keys are from the query."""
        plain, model = features(scene), scene.job.backbone.model
        alone = getattr(model, "sees_first", False)  # else a prompt would be in that token's place

        def behind(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            if not alone:
                return scene.forward(base, shared, slot, inputs, key)
            with nn.intercept_methods(mean_of_first(self.top * self.length)):
                return scene.forward(base, shared, slot, inputs, key)

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            prompt, leaves = at(slot, ("prompt",)), flat(slot)
            rest = nested({path: leaf for path, leaf in leaves.items() if path not in (POOL, KEYS)})
            inputs = self._hidden(scene, base["params"], inputs)
            query = jax.lax.stop_gradient(plain(base, shared, rest, inputs, key))
            tokens, apart = chosen(prompt["pool"], cosines(query, prompt["keys"]), self.top)
            return {"logits": behind(base, shared, rest, prepended(inputs, tokens), key), "apart": apart}

        return run

    def answer(self, scene: MethodContext) -> Forward:
        """The logits behind the chosen prompts."""
        inner = self.forward(scene)

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            return inner(base, shared, slot, inputs, key)["logits"]

        return run

    def loss(self, inner: Loss) -> Loss:
        """The inner loss and the pull."""

        def pulled(out: Any, batch: Any) -> LossSums:
            sums = inner(out["logits"], batch)
            return sums._replace(total=sums.total + self.pull * jnp.sum(batch["weights"] * out["apart"]))

        return pulled


def run(job: Job) -> Outcome:
    """Goes on training one pool of prompts."""
    own = job.config.of(PromptNumbers)
    extension = L2P(own.prompt_pool, own.prompt_length, own.prompt_top, own.prompt_pull)
    unused = SeparateLoRA(job.config.rank, job.config.alpha)
    return learn(job, Plan(unused, "adapter", adapts=False, own_outputs=True, extension=extension))


TUNED = {
    "split_mnist5": {"prompt_learning_rate": 3e-4},
    "split_fashion5": {"prompt_learning_rate": 3e-4},  # nothing was tried on it
    "digits5": {"prompt_learning_rate": 3e-4},
    "clinc150-class": {"prompt_learning_rate": 0.01},
    "rotated_mnist10": {"prompt_learning_rate": 0.03},
}
_WHY = "a decoder, which takes no prompts"
METHODS = (Method("l2p", run, (PromptNumbers,), "prompt_learning_rate", TUNED, _WHY),)

"""Houlsby adapters: a small bottleneck behind each attention and each feed-forward layer, and layer norms of one's own.

h + W_up gelu(W_down h + b_down) + b_up, before the residual is added; W_up and both biases start at zero, so that the
model starts as it was. Two forms: an adapter per task, which forgets nothing and shares nothing, and one adapter that
goes on training from task to task.

Source: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP" (arXiv 1902.00751), section 2.1. Defaults:
width 16 (`--adapter-size`; the paper tries 8, 64 and 256 for BERT), rate 2e-3
(`--adapter-learning-rate`; the paper's is not known here). Layer norms train, as in the paper; W_down is drawn
with deviation d^-1/2, since W_up at zero already makes it the identity (the paper draws both near zero).
"""

import re
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import AdapterLifetime, Extension, MethodContext, Plan
from experiments.algorithms.used_params import patterns, reached
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers
from share_jax.adapted import TASKS
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.step import Forward
from share_jax.trees import flat
from share_jax.typing import Array, Leaves, PRNGKey, Tree

PLACES = re.compile(r".*/(attention/out|ffn_down)/kernel")
"""Kernels behind whose layers the bottlenecks stand."""

NORMS = re.compile(r".*norm/(scale|bias)")

LEAVES = ("adapter_down", "adapter_down_bias", "adapter_up", "adapter_up_bias")


@dataclass(frozen=True)
class HoulsbyNumbers(MethodNumbers):
    """What only Houlsby adapters read."""

    adapter_size: int = 16
    """houlsby_adapters: width of each bottleneck."""
    adapter_learning_rate: float = 2e-3
    """houlsby_adapters: peak rate of adapters and layer norms."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self.at_least(1, "adapter_size")
        self.above_zero("adapter_learning_rate")


def bottleneck(leaves: Leaves, h: Array) -> Array:
    """h + W_up gelu(W_down h + b_down) + b_up, over the last axis, in the type of h."""
    down, down_bias, up, up_bias = (leaves[name].astype(h.dtype) for name in LEAVES)
    rows = h.reshape(-1, h.shape[-1])
    return h + (nn.gelu(rows @ down + down_bias[None]) @ up + up_bias[None]).reshape(h.shape)


def layers(job: Job) -> dict[str, int]:
    """Path of every layer that gets a bottleneck, and the width of its output."""
    leaves = flat(job.backbone.params)
    places = [path for path in reached(job) if PLACES.fullmatch(path)]
    return {path.rpartition("/")[0]: leaves[path].shape[-1] for path in places}


@dataclass(frozen=True)
class Houlsby(Extension):
    """The bottlenecks.

    Attributes:
        size: width of each.
    """

    size: int

    def leaves(self, scene: MethodContext, key: PRNGKey) -> dict[str, Any]:
        """Four leaves for each layer."""
        made = {}
        for number, (path, width) in enumerate(layers(scene.job).items()):
            down = jax.random.normal(jax.random.fold_in(key, number), (width, self.size)) * width**-0.5
            zeros = jnp.zeros(self.size), jnp.zeros((self.size, width)), jnp.zeros(width)
            made |= {f"{path}/{name}": leaf for name, leaf in zip(LEAVES, (down, *zeros), strict=True)}
        return made

    def forward(self, scene: MethodContext) -> Forward:
        """The model with every such layer's output passed through its bottleneck."""
        places = {tuple(path.split("/")) for path in layers(scene.job)}

        def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
            out, module = next_fun(*args, **kwargs), context.module
            if module.scope is None or module.path not in places or context.method_name != "__call__":
                return out
            own = module.variables[TASKS]  # of the module, not of a closure: a trace that is kept stays right
            return bottleneck({name: own[name] for name in LEAVES}, out)

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            with nn.intercept_methods(intercept):
                return scene.forward(base, shared, slot, inputs, key)

        return run

    def answer(self, scene: MethodContext) -> Forward:
        """The same."""
        return self.forward(scene)


def _run(job: Job, carry: AdapterLifetime) -> Outcome:
    own = job.config.of(HoulsbyNumbers)
    norms = patterns(tuple(path for path in reached(job) if NORMS.fullmatch(path)))
    unused = SeparateLoRA(job.config.rank, job.config.alpha)
    return learn(job, Plan(unused, carry, adapts=False, owned=norms, extension=Houlsby(own.adapter_size)))


def run(job: Job) -> Outcome:
    """Bottlenecks and layer norms of each task's own."""
    return _run(job, "nothing")


def run_sequential(job: Job) -> Outcome:
    """One set of bottlenecks and layer norms that goes on training."""
    return _run(job, "adapter")


_PARTS: dict[str, Any] = {
    "numbers": (HoulsbyNumbers,),
    "rate": "adapter_learning_rate",
    "not_tokens": "a decoder, whose blocks have no places for adapter layers",
}
METHODS = (
    Method("houlsby_adapters", run, **_PARTS),
    Method("houlsby_adapters_sequential", run_sequential, **_PARTS),
)

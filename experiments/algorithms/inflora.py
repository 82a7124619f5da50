"""InfLoRA: a new LoRA for each task on top of the frozen ones before it, in a space where old inputs do not reach it.

Before a task, its A (d_in, r) is designed and frozen: the top r left singular vectors of the task's inputs H to the
kernel, projected out of the space M that earlier tasks' inputs take up; only B trains. An input within M is multiplied
by M^T A = 0: the new update does not touch it. After the task, M grows by the directions that are missing to hold a
share e of the energy |H|_F^2 of the task's inputs (gradient projection memory, as the gradient of a linear layer lies
in the span of its inputs). M is kept as an orthonormal basis; the paper's DualGPM keeps its complement where that is
smaller, which changes the storage and not the method.

Class-incremental, the loss of a task is over its own outputs, as in the authors' code, where each task has a classifier
that is frozen after it and all of them answer. That code adapts the key and value kernels; here it is those of the run.

Source: Liang and Li 2024, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning" (arXiv 2404.00228),
sections 3.2 and 3.3. Defaults: e rises linearly over the stream to 1, from 0.95 (`--inflora-energy`);
the paper's own e is not known here. A's columns have length 1 / sqrt(3), as in the
authors' code.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.algorithms.batches import classes_of
from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import Extension, MethodContext, Plan
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers, out_of_range
from experiments.data.batch_order import LEARNT
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.errors import TargetError, message
from share_jax.linen.adapted_model import Adapted
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.batches import eval_batches
from share_jax.train.step import forward_of
from share_jax.trees import flat, merged, nested
from share_jax.typing import Array, Tree

_LENGTH = 3**-0.5
_NONE = 1e-9
"""Share of the energy below which a direction counts as absent."""


@partial(jax.jit, static_argnames="adapted")
def input_energy(adapted: Adapted, params: Tree, slot: Tree, batch: Any) -> dict[str, Array]:
    """H H^T of every adapted kernel over a batch, (d_in, d_in) by the path of the kernel's layer; padding left out.

    Of texts that are completed all tokens count, and not those alone whose next token is learnt.
    """
    targets = {target.module_path: target for target in adapted.targets}
    weights = batch["weights"]
    mask = batch["inputs"].get("attention_mask")
    found: dict[str, Array] = {}

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if module.scope is not None and module.path in targets and context.method_name == "__call__":
            target = targets[module.path]
            rows = args[0].reshape(*args[0].shape[: args[0].ndim - target.in_axes], target.d_in).astype(jnp.float32)
            counts = weights.reshape(-1, *(1,) * (rows.ndim - 2))
            if mask is not None and rows.shape[1:2] == mask.shape[1:]:
                counts = counts * mask
            rows = (rows * jnp.sqrt(counts)[..., None]).reshape(-1, target.d_in)
            found["/".join(module.path)] = rows.T @ rows
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(intercept):
        inputs = {name: array for name, array in batch["inputs"].items() if name not in LEARNT}
        forward_of(adapted)({"params": params}, {}, slot, inputs, None)
    return found


@dataclass(frozen=True)
class InfLoraNumbers(MethodNumbers):
    """What only InfLoRA reads."""

    inflora_energy: float = 0.95
    """inflora: share of a task's input energy that the kept space has to hold; rises to 1 over the stream."""

    def __post_init__(self) -> None:
        """Checks the range."""
        if not 0 < self.inflora_energy <= 1:
            raise out_of_range("inflora_energy", self.inflora_energy, "above 0 and at most 1")


def outside(energy: Float[np.ndarray, "d d"], basis: Float[np.ndarray, "d k"]) -> Float[np.ndarray, "d d"]:
    """The energy of inputs projected out of a space, (I - M M^T) H H^T (I - M M^T)."""
    half = energy - basis @ (basis.T @ energy)
    return half - (half @ basis) @ basis.T


def designed(energy: Float[np.ndarray, "d d"], basis: Float[np.ndarray, "d k"], rank: int) -> np.ndarray:
    """A (d, rank), float64: top directions of the inputs outside of the space; zeros where there are no more."""
    values, vectors = np.linalg.eigh(outside(energy, basis))
    top = vectors[:, ::-1][:, :rank]
    top = top - basis @ (basis.T @ top)
    there = values[::-1][:rank] > _NONE * np.trace(energy)
    unit = np.linalg.qr(top)[0] if there.all() else top
    return _LENGTH * unit * there


def grown(energy: Float[np.ndarray, "d d"], basis: Float[np.ndarray, "d k"], share: float) -> np.ndarray:
    """The space with the fewest further directions that make it hold a share of the inputs' energy, (d, k')."""
    whole = np.trace(energy)
    values, vectors = np.linalg.eigh(outside(energy, basis))
    values, vectors = values[::-1], vectors[:, ::-1]
    held = np.sum(basis * (energy @ basis))
    room = energy.shape[0] - basis.shape[1]
    missing = share * whole - held - np.cumsum(np.concatenate([[0.0], values[:room]]))
    enough = np.flatnonzero(missing <= _NONE * whole)
    count = int(enough[0]) if enough.size else room
    count = min(count, int(np.sum(values[:room] > _NONE * whole)))
    return np.linalg.qr(np.concatenate([basis, vectors[:, :count]], axis=1))[0]


@dataclass(frozen=True)
class InfLoRA(Extension):
    """The design of each task's A, and the space that is kept.

    Attributes:
        rank: columns of A.
        energy: share of the first task's input energy that the space has to hold.
    """

    rank: int
    energy: float

    def memory(self, scene: MethodContext, bank: TaskBank) -> dict[str, Any]:
        """For each kernel an orthonormal basis (d_in, d_in), zeros after its first `columns` columns."""
        made = {}
        for target in scene.adapted.targets:
            if target.stacked is not None or target.layer not in ("Dense", "DenseGeneral"):
                expected, fix = "a Dense layer that is not stacked", "narrow --targets"
                raise TargetError(message(f"target {target.path}", got=target.layer, expected=expected, fix=fix))
            path = "/".join(target.module_path)
            made[f"{path}/basis"] = np.zeros((target.d_in, target.d_in), np.float32)
            made[f"{path}/columns"] = np.int32(0)
        return nested(made)

    def start(
        self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int, slot: dict[str, Any]
    ) -> dict[str, Any]:
        """The fresh slot with A designed from the task's inputs as the model sees them now."""
        energy, leaves = self._energy(scene, bank, index, read_slot(bank.tasks, index)), flat(memory)
        new = {path: designed(e, _basis(leaves, path), self.rank).astype(np.float32) for path, e in energy.items()}
        return merged(slot, nested({f"{path}/lora_a": jnp.asarray(a) for path, a in new.items()}))

    def after(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """The spaces, grown by the task's inputs as the model sees them after it."""
        energy, leaves = self._energy(scene, bank, index, read_slot(bank.tasks, index)), flat(memory)
        share = self.energy + (1 - self.energy) * index / scene.tasks
        for path, e in energy.items():
            basis = grown(e, _basis(leaves, path), share)
            whole = np.zeros_like(leaves[f"{path}/basis"])
            whole[:, : basis.shape[1]] = basis
            leaves |= {f"{path}/basis": whole, f"{path}/columns": np.int32(basis.shape[1])}
        return nested(leaves)

    def _energy(self, scene: MethodContext, bank: TaskBank, index: int, slot: Tree) -> dict[str, np.ndarray]:
        """H H^T of every kernel over the task's training inputs, float64."""
        job, split = scene.job, scene.job.stream.tasks[index].train
        params, whole = scene.params(bank, index), {}
        size, classes = job.config.eval_batch_size, classes_of(job, index)
        for batch in eval_batches(split.inputs, split.labels, batch_size=size, classes=classes):
            for path, part in input_energy(scene.adapted, params, slot, batch).items():
                whole[path] = whole.get(path, 0) + np.asarray(part, np.float64)
            job.preemption.point()
        return whole

    def findings(self, scene: MethodContext, bank: TaskBank, memory: Tree) -> dict[str, Any]:
        """How many directions each kernel's space has come to, of how many."""
        leaves = flat(memory)
        paths = ["/".join(target.module_path) for target in scene.adapted.targets]
        return {"kept_columns": {p: [int(leaves[f"{p}/columns"]), len(leaves[f"{p}/basis"])] for p in paths}}


def _basis(leaves: dict[str, Any], path: str) -> np.ndarray:
    return np.asarray(leaves[f"{path}/basis"], np.float64)[:, : int(leaves[f"{path}/columns"])]


def run(job: Job) -> Outcome:
    """Trains a B per task on a designed A, and answers with all of them."""
    config = job.config
    extension = InfLoRA(config.rank, config.of(InfLoraNumbers).inflora_energy)
    method = SeparateLoRA(config.rank, config.alpha)
    return learn(job, Plan(method, "sum", frozen=("lora_a",), own_outputs=True, extension=extension))


METHODS = (Method("inflora", run, (InfLoraNumbers,)),)

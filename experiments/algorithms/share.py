"""Share, form 2: one evolving orthonormal subspace per kernel, and a few coefficients per task.

Task 1 is learnt as an ordinary LoRA, whose factors give the first bases. Every later task trains phi temporary
directions per side, copies of the top directions of the main bases, with their coefficients and its head; its factors
are then merged: new bases by SVD of what is known and what is new, and analytic coefficients for all tasks.
`share_coefficients` trains coefficients alone on the frozen bases of the tasks before `adapt_tasks`.

Source: "Shared LoRA Subspaces for almost Strict Continual Learning", Kaushik et al. 2026 (arXiv 2602.06043), its three
phases. Defaults stand in `experiments/config/run_config.py`, with a preset for each stream: `--rank`; `--num-basis`,
which is k; `--phi`, in the default presets as many temporary directions as the LoRA's rank; and `--adapt-tasks`. The
paper's own values are known here of its language table alone, rank 8 and k = 32, as `glue6` has them
(`experiments/config/large_presets.py`); of phi, that it is at most k / 4; of the number of tasks to adapt, nothing.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.algorithms.batches import task_pipeline_of, task_pipelines
from experiments.algorithms.evaluation import Predict, by_slots
from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.kept_adapters import read_adapter, write_adapter
from experiments.algorithms.loop import adapted_model, optimizer_of
from experiments.algorithms.objective import loss_of
from experiments.algorithms.scoring import predictions
from experiments.algorithms.store import bytes_of_files, open_store
from experiments.algorithms.timing import with_tasks
from experiments.algorithms.training import run_steps
from experiments.data.shapes import samples_of
from share_jax.adapters.factors import Adapter
from share_jax.bank.accounting import ParameterCounts, count, separate_lora_count
from share_jax.bank.router import Router
from share_jax.bank.slots import read_slot
from share_jax.checkpoint import arrays
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.linen.adapted_model import Adapted
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.serving import (
    adapter_of,
    coefficient_arrays,
    shared_leaves,
    state_arrays,
    state_of,
    task_leaves,
)
from share_jax.subspace.state import ShareState, factors_of, report
from share_jax.subspace.temporary_directions import temporary
from share_jax.train.step import StepState, init_state
from share_jax.trees import at, flat, merged, nested
from share_jax.typing import Leaves, Tree


@dataclass(frozen=True)
class Phase:
    """One way of training a task: an adapted model, its optimizer and its compiled step."""

    adapted: Adapted
    optimizer: Any
    step: Any

    @property
    def trained(self) -> int:
        """Adapter parameters that one task trains in this phase, heads apart."""
        shapes = jax.eval_shape(
            lambda key: [self.adapted.method.init_task(key, t.d_in, t.d_out) for t in self.adapted.targets],
            jax.random.key(0),
        )
        return count(shapes)


@dataclass(frozen=True)
class StreamState:
    """How far the stream has been learnt."""

    store: Checkpoint
    state: ShareState
    heads: tuple[dict[str, Any], ...]
    untrained: tuple[float | None, ...]
    rows: tuple[tuple[float | None, ...], ...] = ()
    measured: tuple[dict[str, float], ...] = ()
    found: tuple[dict[str, Any], ...] = ()
    router: Router | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class ShareSequence:
    """The three phases on one job."""

    def __init__(self, job: Job, *, coefficients_alone: bool) -> None:
        """Adapts the model for each phase and compiles its step."""
        config = job.config
        self.job, self.alone, self.answers = job, coefficients_alone, by_slots(job)
        self.choice = Choice(k=config.num_basis)
        key_init, self.key_train = jax.random.split(jax.random.key(job.seed))
        self.serving = adapted_model(job, Share(config.num_basis, config.rank))
        self.base = job.devices.base({"params": job.backbone.params}, self.serving)
        self.fresh = self.serving.init(key_init, job.backbone.params, 1)
        self.keys = {target.path: target.module_path for target in self.serving.targets}
        self.predictor = job.devices.predictor(self._forward(self.serving), self.serving, job.backbone.params)
        self.first = self._phase(adapted_model(job, SeparateLoRA(config.rank, config.alpha)))
        self.adapt = self._phase(adapted_model(job, ShareAdapt(config.phi, config.rank, config.alpha)))
        self.coefficients = self._phase(self.serving) if coefficients_alone else None
        self.originals: dict[str, Adapter] = {}
        self.kept_in = job.folder.with_name(f"{job.folder.name}-originals")

    def _phase(self, adapted: Adapted) -> Phase:
        optimizer = optimizer_of(self.job, adapted, self.job.config.steps, train_shared=False)
        parts = self._forward(adapted), loss_of(self.job.stream), optimizer, adapted, self.job.backbone.params
        step = self.job.devices.train_step(*parts, train_shared=False, label=self.job.name)
        begun = self._begin(adapted, optimizer, ShareState(), 0)
        return Phase(adapted, optimizer, step.compile(begun, self.base, samples_of(task_pipelines(self.job))))

    def _forward(self, adapted: Adapted) -> Any:
        return self.job.devices.forward(adapted, self.job.backbone.blocks)

    def phase(self, index: int) -> Phase:
        """How a task is trained."""
        if index == 0:
            return self.first
        alone = self.coefficients is not None and index >= self.job.config.adapt_tasks
        return self.coefficients if alone and self.coefficients is not None else self.adapt

    def _begin(self, adapted: Adapted, optimizer: Any, state: ShareState, index: int) -> StepState:
        key = jax.random.fold_in(self.key_train, index)
        key_init, key_steps = jax.random.split(key)
        fresh = adapted.init(key_init, self.job.backbone.params, 1)
        slot, shared = read_slot(fresh["tasks"], 0), fresh["shared"]
        if adapted is self.serving and state.layers:
            shared = self.served(state)
        elif state.layers:
            slot = merged(slot, self._temporary(state))
        return init_state(shared, slot, optimizer, key_steps)

    def _temporary(self, state: ShareState) -> dict[str, Any]:
        """Copies of the top phi directions of each main basis; a basis with fewer leaves the fresh ones in place."""
        phi, leaves = self.job.config.phi, {}
        for path, module in self.keys.items():
            layer = state.layers[path]
            for name, basis in (("basis_a", layer.basis_a), ("basis_b", layer.basis_b)):
                if basis.shape[1] >= phi:
                    leaves["/".join((*module, name))] = jnp.asarray(temporary(basis, phi))
        return nested(leaves)

    def served(self, state: ShareState) -> dict[str, Any]:
        """The shared tree of the served model."""
        size = self.job.config.num_basis
        return self._tree({p: shared_leaves(layer, size) for p, layer in state.layers.items()})

    def slot(self, state: ShareState, heads: tuple[dict[str, Any], ...], index: int) -> dict[str, Any]:
        """The slot that answers for a task: its coefficients and head, or fresh ones before it is learnt."""
        config = self.job.config
        if index >= len(state.tasks):
            return read_slot(self.fresh["tasks"], 0)
        own = {p: task_leaves(x, index, config.num_basis, config.rank) for p, x in state.layers.items()}
        return merged(self._tree(own), nested(heads[index]))

    def _tree(self, leaves: Mapping[str, Leaves]) -> dict[str, Any]:
        return nested({"/".join((*self.keys[p], n)): x for p, own in leaves.items() for n, x in own.items()})

    def predict(self, shared: Tree, state: ShareState, heads: tuple[dict[str, Any], ...]) -> Predict:
        """How the tasks' slots answer now."""
        size, point = self.job.config.eval_batch_size, self.job.preemption.point

        def logits(index: int, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            slot = self.slot(state, heads, index)
            return predictions(self.predictor, self.base, shared, slot, inputs, size, point)

        return logits

    def learn_next(self, course: StreamState) -> StreamState:
        """Learns one more task, merges it, evaluates it and those before it, and saves."""
        index, tasks = len(course.rows), self.job.stream.tasks
        task, phase = tasks[index], self.phase(index)
        self.job.progress.begin(method=self.job.name, task_index=index, task_count=len(tasks), task_name=task.name)
        began = time.perf_counter()
        store, end = run_steps(
            self.job,
            course.store,
            phase.step,
            self._begin(phase.adapted, phase.optimizer, course.state, index),
            self.base,
            task_pipeline_of(self.job, index),
            self.job.config.steps,
            task.name,
        )
        jax.block_until_ready(end.slot)
        trained = time.perf_counter()
        learnt = adapter_of(
            phase.adapted.method,
            {path: at(end.shared, module) for path, module in self.keys.items()},
            {path: at(end.slot, module) for path, module in self.keys.items()},
        )
        self.originals[task.name] = learnt
        write_adapter(self.kept_in, index, learnt)
        state = (
            merge(course.state, {task.name: learnt}, self.choice, limit=self.job.config.max_error)
            if index
            else initialize({task.name: learnt}, self.choice)
        )
        self.job.preemption.point()
        whole = flat(end.slot)
        heads = (*course.heads, {path: whole[path] for path in self.serving.heads})
        joined = time.perf_counter()
        shared = self.served(state)
        router = self.answers.learnt(course.router, index)
        row = self.answers.row(self.predict(shared, state, heads), index, router)
        self.job.progress.scored(row.accuracies)
        measured = {n: relative_distance(x, factors_of(state, n)) for n, x in self.originals.items()}
        seconds = dict(course.seconds)
        for name, spent in (
            ("train", trained - began),
            ("merge", joined - trained),
            ("evaluate", time.perf_counter() - joined),
        ):
            seconds[name] = seconds.get(name, 0.0) + spent
        info = {"row": row.accuracies, "untrained": course.untrained, "seconds": seconds, "measured": measured}
        info |= {"found": row.found} if row.found else {}
        store = self.save(store, state, heads, info, router)
        self.job.preemption.released()
        rows, all_measured = (*course.rows, row.accuracies), (*course.measured, measured)
        found = (*course.found, row.found)
        return StreamState(store, state, heads, course.untrained, rows, all_measured, found, router, seconds)

    def save(
        self,
        store: Checkpoint,
        state: ShareState,
        heads: tuple[dict[str, Any], ...],
        info: dict[str, Any],
        router: Router | None,
    ) -> Checkpoint:
        """One new version of the bases, of every task's coefficients, and the new task's head."""
        slots = {
            name: {"adapter": _as_tree(coefficient_arrays(state, t)), "head": nested(heads[t])}
            for t, name in enumerate(state.tasks)
        }
        new = state.tasks[-1]
        changed = {name: slot for name, slot in slots.items() if name != new}
        shared = _as_tree(state_arrays(state))
        return ckpt.save_task(store, new, slots[new], info, shared=shared, changed=changed, router=router)

    def restored(self) -> StreamState:
        """The course as the checkpoint has it."""
        store = open_store(self.job, self.serving)
        if not store.names:
            untrained = self.answers.untrained(self.predict(self.fresh["shared"], ShareState(), ()))
            return StreamState(store, ShareState(), (), untrained)
        shared = ckpt.load_shared(store, arrays.like_of(store.manifest.shared or {}))
        slots = [ckpt.load_task(store, n, arrays.like_of(store.record(n))) for n in store.names]
        state = state_of(store.names, _as_arrays(shared), [_as_arrays(slot["adapter"]) for slot in slots])
        for index, name in enumerate(store.names):
            if (original := read_adapter(self.kept_in, index)) is not None:
                self.originals[name] = original
        infos = [store.info(name) for name in store.names]
        self.job.progress.skip(self.job.config.steps * len(infos))
        return StreamState(
            store,
            state,
            tuple(flat(slot["head"]) for slot in slots),
            tuple(infos[0]["untrained"]),
            tuple(tuple(info["row"]) for info in infos),
            tuple(info["measured"] for info in infos),
            tuple(info.get("found", {}) for info in infos),
            self.answers.restored(store),
            dict(infos[-1]["seconds"]),
        )

    def outcome(self, course: StreamState) -> Outcome:
        """What was found, with the error of every task's update measured and bounded."""
        config, state = self.job.config, course.state
        tasks = len(state.tasks)
        shared = sum(layer.basis_a.size + layer.basis_b.size for layer in state.layers.values())
        stored = sum(sum(x.num_basis) * x.pseudo_rank for x in state.layers.values())
        heads = count(list(course.heads[0].values()))
        base = {path: leaf for path, leaf in flat(self.job.backbone.params).items() if path not in self.serving.heads}
        kernels = [(t.d_in, t.d_out) for t in self.serving.targets]
        counts = ParameterCounts(
            base=count(base),
            shared=shared,
            per_task=stored,
            heads_per_task=heads,
            tasks=tasks,
            separate_per_task=separate_lora_count(kernels, config.rank),
            head_sets=tasks,
        )
        bounds = {name: each.error_bound for name, each in report(state).items()}
        return Outcome(
            accuracy=np.array([[np.nan if a is None else a for a in row] for row in course.rows]),
            untrained=np.array(course.untrained, np.float64),
            seconds=with_tasks(course.seconds, course.store),
            params={**counts.as_dict(), "trained_per_later_task": self.phase(tasks - 1).trained},
            bytes={
                **bytes_of_files(course.store),
                "arrays_shared": 4 * shared,
                "arrays_per_task": 4 * stored,
                "arrays_head": 4 * heads,
            },
            extra={
                "error_bound": bounds,
                "measured_error": _known(course.measured, state.tasks),
                "num_basis": {name: list(layer.num_basis) for name, layer in state.layers.items()},
                **self.answers.findings(course.found),
            },
        )


def _as_tree(arrays: Mapping[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    return nested({f"{target}/{name}": array for (target, name), array in arrays.items()})


def _as_arrays(tree: Tree) -> dict[tuple[str, str], np.ndarray]:
    leaves = [(path.rpartition("/"), leaf) for path, leaf in flat(tree).items()]
    return {(target, name): np.asarray(leaf) for (target, _, name), leaf in leaves}


def _known(measured: tuple[dict[str, float], ...], tasks: tuple[str, ...]) -> dict[str, float | None]:
    """The last measured error of each task; None where its update as learnt is no longer there to be measured with."""
    latest: dict[str, float | None] = dict.fromkeys(tasks)
    for each in measured:
        latest.update(each)
    return latest


def _learn(job: Job, *, coefficients_alone: bool) -> Outcome:
    began = time.perf_counter()
    sequence = ShareSequence(job, coefficients_alone=coefficients_alone)
    course = sequence.restored()
    course = replace(course, seconds={"prepare": time.perf_counter() - began, **course.seconds})
    while len(course.rows) < len(job.stream.tasks):
        course = sequence.learn_next(course)
    return sequence.outcome(course)


def run(job: Job) -> Outcome:
    """Adapts with temporary directions and merges, task after task."""
    return _learn(job, coefficients_alone=False)


def run_coefficients(job: Job) -> Outcome:
    """Coefficients alone, on the frozen bases, from task `adapt_tasks` on."""
    return _learn(job, coefficients_alone=True)

"""Share, form 2: one evolving orthonormal subspace per kernel, and a few coefficients per task.

Task 1 is learnt as an ordinary LoRA, whose factors give the first bases. Every later task trains phi temporary
directions per side, copies of the top directions of the main bases, with their coefficients and its head; its factors
are then merged: new bases by SVD of what is known and what is new, and analytic coefficients for all tasks.
`share_coefficients` trains coefficients alone on the frozen bases of the tasks before `adapt_tasks`.

Source: "Shared LoRA Subspaces for almost Strict Continual Learning", Kaushik et al. 2026 (arXiv 2602.06043), its three
phases. Each stream has defaults of its own in its file of `experiments/config`: `--rank`; `--num-basis`, which is k;
`--phi`, in the default presets as many temporary directions as the LoRA's rank; and `--adapt-tasks`. The paper's own
values are known here of its language table alone, rank 8 and k = 32, as `glue6` has them; of phi, that it is at most
k / 4; of the number of tasks to adapt, nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.algorithms.batches import task_pipeline_of, task_pipelines
from experiments.algorithms.evaluation import Predict, by_slots
from experiments.algorithms.hooks import Prefetched, hooks_of
from experiments.algorithms.job import Job, Outcome, peak_rate, transform
from experiments.algorithms.kept_adapters import read_adapter, write_adapter
from experiments.algorithms.loop import adapted_model
from experiments.algorithms.objective import loss_of
from experiments.algorithms.samples import written_samples
from experiments.algorithms.store import bytes_of_files, open_store
from experiments.algorithms.stream_state import StreamState, learn_stream, lengthened, restored
from experiments.algorithms.token_checks import executed_answers
from experiments.algorithms.token_scoring import outputs_of
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers
from experiments.data.shapes import samples_of
from share_jax.adapters.factors import Adapter
from share_jax.bank.accounting import ParameterCounts, count, separate_lora_count
from share_jax.bank.slots import read_slot
from share_jax.checkpoint.inflight_folder import InflightStore
from share_jax.checkpoint.share_tasks import save_last_task, saved_tasks
from share_jax.parameterizations.share import Share
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.from_bank import bank_heads
from share_jax.subspace.share_bank import ShareBank
from share_jax.subspace.state import factors_of
from share_jax.train.share_learner import ShareLearner
from share_jax.trees import flat


@dataclass(frozen=True)
class ShareNumbers(MethodNumbers):
    """What only Share reads."""

    behind = "prefix_cache_bytes"

    num_basis: int = 48
    """Columns of each basis of `share`."""
    phi: int = 16
    """Temporary directions per side while `share` learns a task."""
    adapt_tasks: int = 4
    """Tasks that `share_coefficients` learns with temporary directions before it trains coefficients alone."""
    max_error: float | None = None
    """Proven relative error that `share` may let any task's update reach; bases grow as needed. No limit if None."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self.at_least(1, "num_basis", "phi", fix="raise it")


class ShareSequence:
    """A `ShareLearner` on one job."""

    def __init__(self, job: Job, *, coefficients_alone: bool) -> None:
        """Adapts the model and compiles the step of each phase."""
        config, params, devices = job.config, job.backbone.params, job.devices
        numbers = config.of(ShareNumbers)
        self.job, self.answers = job, by_slots(job)
        adapted = adapted_model(job, Share(numbers.num_basis, config.rank))
        key_init, self.key_train = jax.random.split(jax.random.key(job.seed))
        self.learner = ShareLearner(
            adapted,
            {"params": params},
            transform(config, peak_rate(job), config.steps, wait=config.head_first),
            loss_of(job.stream),
            transform(config, config.head_learning_rate, config.steps),
            alpha=config.alpha,
            phi=numbers.phi,
            coefficients_from=numbers.adapt_tasks if coefficients_alone else None,
            start_from=config.start_from,
            max_error=numbers.max_error,
            layout=devices.layout(adapted, params),
            accumulate=devices.accumulate,
            remat=devices.remat(job.backbone.blocks),
            samples=samples_of(task_pipelines(job)),
        )
        for phase in self.learner.phases:
            devices.tell_memory(phase.step, job.name)
        self.fresh = self.learner.start(adapted.init(key_init, params, 1))
        self.originals: dict[str, Adapter] = {}
        self.kept_in = job.folder.with_name(f"{job.folder.name}-originals")

    def predict(self, bank: ShareBank) -> Predict:
        """How the tasks' slots answer now; one that is not learnt yet answers as a fresh one."""
        fresh = read_slot(self.fresh.tasks, 0)

        def logits(index: int, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            slot = read_slot(bank.tasks, index) if index < len(bank.names) else fresh
            return outputs_of(self.job, self.learner.answer, self.learner.placed, bank.shared, slot, inputs)

        return logits

    def learn_next(self, course: StreamState) -> StreamState:
        """Learns one more task, merges it, evaluates it and those before it, and saves."""
        index, tasks = len(course.rows), self.job.stream.tasks
        task = tasks[index]
        self.job.progress.begin(method=self.job.name, task_index=index, task_count=len(tasks), task_name=task.name)
        times = [time.perf_counter()]
        inflight, batches = InflightStore(course.store), Prefetched(self.job, task_pipeline_of(self.job, index))
        hooks = hooks_of(self.job, inflight, len(batches))
        trained = self.learner.train(course.bank, task.name, batches, self.key_train, hooks)
        times.append(time.perf_counter())
        self.originals[task.name] = trained.adapter
        write_adapter(self.kept_in, index, trained.adapter)
        bank = self.learner.merge(course.bank, task.name, trained)
        self.job.preemption.point()
        times.append(time.perf_counter())
        router = self.answers.learnt(course.router, index)
        row = self.answers.row(self.predict(bank), index, router)
        self.job.progress.scored(row.accuracies)
        measured = {n: relative_distance(x, factors_of(bank.state, n)) for n, x in self.originals.items()}
        times.append(time.perf_counter())
        train, merge, evaluate = np.diff(times).tolist()
        seconds = lengthened(course.seconds, train=train, merge=merge, evaluate=evaluate)
        info = course.info(row, seconds, measured=measured)
        store = save_last_task(inflight.store, self.learner, bank, info, router)
        self.job.preemption.released()
        return StreamState(store, bank, {}, course.untrained, (*course.infos, info), router, seconds)

    def restored(self) -> StreamState:
        """The course as the checkpoint has it."""
        store = open_store(self.job, self.learner.model)
        if not store.names:
            return StreamState(store, self.fresh, untrained=self.answers.untrained(self.predict(self.fresh)))
        for index, name in enumerate(store.names):
            if (original := read_adapter(self.kept_in, index)) is not None:
                self.originals[name] = original
        return restored(self.job, store, self.answers, saved_tasks(store, self.learner, self.fresh), {})

    def outcome(self, course: StreamState) -> Outcome:
        """What was found, with the error of every task's update measured and bounded."""
        state, model = course.bank.state, self.learner.model
        shared = sum(layer.basis_a.size + layer.basis_b.size for layer in state.layers.values())
        stored = sum(sum(x.num_basis) * x.pseudo_rank for x in state.layers.values())
        heads = sum(leaf.size for leaf in bank_heads(course.bank, model)[course.bank.names[0]].values())
        counts = ParameterCounts(
            base=count([leaf for path, leaf in flat(self.job.backbone.params).items() if path not in model.heads]),
            shared=shared,
            per_task=stored,
            heads_per_task=heads,
            tasks=len(state.tasks),
            separate_per_task=separate_lora_count([(t.d_in, t.d_out) for t in model.targets], self.job.config.rank),
            head_sets=len(state.tasks),
        )
        arrays = {"arrays_shared": 4 * shared, "arrays_per_task": 4 * stored, "arrays_head": 4 * heads}
        return course.outcome(
            self.answers,
            {**counts.as_dict(), "trained_per_later_task": self.trained(len(state.tasks) - 1)},
            {**bytes_of_files(course.store), **arrays},
            error_bound={name: each.error_bound for name, each in course.bank.report().items()},
            measured_error=_known(course.infos, state.tasks),
            **written_samples(self.job, model, course.bank),
            **executed_answers(self.job, model, course.bank, course.found[-1].get("right", {})),
            num_basis={name: list(layer.num_basis) for name, layer in state.layers.items()},
        )

    def trained(self, index: int) -> int:
        """Adapter parameters that a task of this number trains, heads apart."""
        model, key = self.learner.phase(index).model, jax.random.key(0)
        slots = jax.eval_shape(lambda: [model.method.init_task(key, t.d_in, t.d_out) for t in model.targets])
        return count(slots)


def _known(infos: Sequence[Mapping[str, Any]], tasks: tuple[str, ...]) -> dict[str, float | None]:
    """The last measured error of each task; None where its update as learnt is no longer there to be measured with."""
    latest: dict[str, float | None] = dict.fromkeys(tasks)
    for info in infos:
        latest.update(info["measured"])
    return latest


def _learn(job: Job, *, coefficients_alone: bool) -> Outcome:
    began = time.perf_counter()
    return learn_stream(ShareSequence(job, coefficients_alone=coefficients_alone), began)


def run(job: Job) -> Outcome:
    """Adapts with temporary directions and merges, task after task."""
    return _learn(job, coefficients_alone=False)


def run_coefficients(job: Job) -> Outcome:
    """Coefficients alone, on the frozen bases, from task `adapt_tasks` on."""
    return _learn(job, coefficients_alone=True)


METHODS = (Method("share", run, (ShareNumbers,)), Method("share_coefficients", run_coefficients, (ShareNumbers,)))

"""Learning a stream of tasks in one evolving subspace (method, form 2): learn, adapt, merge.

The first task is learnt as an ordinary LoRA, whose factors give the first bases. Every later task trains temporary
directions, copies of the top ones of the main bases, with their coefficients and its heads. Its factors are merged:
new bases by SVD of what is known and what is new, and analytic coefficients for all tasks. Old data are never needed.

Source: "Shared LoRA Subspaces for almost Strict Continual Learning", Kaushik et al. 2026 (arXiv 2602.06043).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.bank.bank import TaskBank, check_new_name
from share_jax.errors import InputError, message
from share_jax.layers.kernel_trees import as_tree, by_kernel
from share_jax.number_checks import finite_number, whole_number
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.subspace.from_bank import bank_heads
from share_jax.subspace.initialization import initialize
from share_jax.subspace.into_bank import bank_of_state
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.serving import adapter_of
from share_jax.subspace.share_bank import ShareBank, with_record
from share_jax.subspace.state import ShareState, relative
from share_jax.subspace.temporary_directions import last_task_leaves, temporary_leaves
from share_jax.train.learner import Learner
from share_jax.train.loop import Hooks
from share_jax.train.phase import Phase, make_phase
from share_jax.train.start_from import StartFrom, check_start
from share_jax.train.starting_slot import fresh_slot, started
from share_jax.train.task_learner import TaskLearner
from share_jax.train.update import StepState
from share_jax.trees import flat, merged
from share_jax.typing import PRNGKey, Tree


class TrainedTask(NamedTuple):
    """A task as it was trained, before it is merged.

    Attributes:
        adapter: its update as plain factors, scale folded in.
        heads: the parameters that it owns whole, by path.
    """

    adapter: Adapter
    heads: dict[str, Any]


@dataclass(frozen=True)
class ShareLearner(TaskLearner[ShareBank]):
    """A frozen model whose tasks share one subspace that evolves. Holds compiled steps, and no state of any task.

    Attributes:
        model: an `Adapted` with `Share(num_basis, pseudo_rank)`.
        base: the frozen variables, {"params": ..., ...}; never changed.
        transform: optimizer of what trains; clip by global norm inside it.
        loss: (model output, batch) to `LossSums`: sums over the batch's examples, never means.
        head_transform: optimizer of the heads; `transform` when None.
        alpha: numerator of the scale alpha / pseudo_rank of an update while it is learnt.
        phi: temporary directions per side; a quarter of `num_basis` when None.
        coefficients_from: the number of the task, counted from 0, from which on coefficients alone are trained, on the
            frozen bases; never when None. The first task is learnt as a LoRA in any case.
        start_from: where a later task's update starts: "zero", so that the model is the frozen one; or "last", the last
            task's update, which helps where tasks are alike. Heads start fresh.
        k: columns that a merge keeps; the model's `num_basis` when None.
        max_error: no task's proven error, relative to its update's norm, may pass it; not limited when None.
        on_limit: what a merge does that would pass it: "grow" takes more columns, up to the model's `num_basis`;
            "refuse" is an error.
        layout: where arrays lie on a mesh, from `layout_of`; one device when None.
        accumulate: microbatches of each batch, computed one after another.
        remat: what the backward pass computes again instead of keeping it; nothing when None.
        samples: one batch of each shape to come: the steps of all phases are compiled for them now, and take no others.
            Compiled when they are first used if there are none.

    Raises:
        InputError: if the model is not one with `Share`, or a number is out of range.

    Example:
        >>> import flax.linen as nn
        >>> import optax
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.eye(4, dtype=np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=Share(num_basis=4, pseudo_rank=2))
        >>> learner = ShareLearner(adapted, base, optax.adam(0.1))
        >>> bank = learner.start(adapted.init(jax.random.key(1), base["params"], num_tasks=2))
        >>> bank = learner.learn(bank, "weather", [{"inputs": x, "labels": np.array([0, 1, 2, 0])}] * 20)
        >>> learner.predict(bank, "weather", x).argmax(axis=1)
        Array([0, 1, 2, 0], dtype=int32)
        >>> bank.report()["weather"].error_bound < 1e-5
        True
    """

    alpha: float = field(default=8.0, kw_only=True)
    phi: int | None = field(default=None, kw_only=True)
    coefficients_from: int | None = field(default=None, kw_only=True)
    start_from: StartFrom = field(default="zero", kw_only=True)
    k: int | None = field(default=None, kw_only=True)
    max_error: float | None = field(default=None, kw_only=True)
    on_limit: Literal["grow", "refuse"] = field(default="grow", kw_only=True)
    samples: Sequence[Any] = field(default=(), kw_only=True, repr=False, compare=False)
    _serving: Learner = field(init=False, repr=False, compare=False)
    _lora: Phase = field(init=False, repr=False, compare=False)
    _adapt: Phase = field(init=False, repr=False, compare=False)
    _coefficients: Phase = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_start(self.start_from)
        self._check_limits()
        method = getattr(self.model, "method", None)
        if not isinstance(method, Share):
            fix = "adapt the model with method=share_jax.Share(num_basis, pseudo_rank)"
            raise InputError(message("model of the ShareLearner", got=method, expected="one with Share", fix=fix))
        if self.k is not None and not 1 <= self.k <= method.num_basis:
            fix = "adapt the model with a larger num_basis"
            raise InputError(message("k", got=self.k, expected=f"1 to num_basis = {method.num_basis}", fix=fix))
        object.__setattr__(self, "_serving", Learner(self.model, self.base, **self.options))
        methods = {
            "_lora": SeparateLoRA(method.pseudo_rank, self.alpha),
            "_adapt": ShareAdapt(self.directions, method.pseudo_rank, self.alpha),
            "_coefficients": method,
        }
        for name, own in methods.items():
            model = replace(self.model, method=own)
            layout = None if self.layout is None else replace(self.layout, model=model)
            phase = make_phase(model, train_shared=False, **self.training | {"layout": layout})
            needed = name != "_coefficients" or self.coefficients_from is not None
            object.__setattr__(self, name, self._ahead(phase) if needed and self.samples else phase)

    def _check_limits(self) -> None:
        """Refuses what a merge would stumble over after a whole task was trained.

        Raises:
            InputError: naming it.
        """
        for name, least in (("k", 1), ("phi", 1), ("coefficients_from", 0)):
            if (value := getattr(self, name)) is not None:
                expected = f"a whole number of at least {least}, or None"
                object.__setattr__(self, name, whole_number(name, value, least, expected=expected))
        if self.max_error is not None:
            range_of = {"expected": "0 or more, or None", "fits": lambda number: number >= 0}
            object.__setattr__(self, "max_error", finite_number("max_error", self.max_error, **range_of))
        if self.on_limit not in ("grow", "refuse"):
            got, expected = repr(self.on_limit), "grow or refuse"
            raise InputError(message("on_limit", got=got, expected=expected, fix="correct on_limit"))

    def _ahead(self, phase: Phase) -> Phase:
        state = phase.begin(*fresh_slot(phase.model, jax.random.key(0), self.base["params"]), jax.random.key(0))
        return phase.compiled(state, self.placed, self.samples)

    @property
    def directions(self) -> int:
        """Temporary directions per side, phi."""
        return max(1, self.model.method.num_basis // 4) if self.phi is None else self.phi

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in which tasks are trained: as a LoRA, with temporary directions, coefficients alone."""
        both = self._lora, self._adapt
        return both if self.coefficients_from is None else (*both, self._coefficients)

    @property
    def placed(self) -> Tree:
        """`base` where steps and `answer` read it."""
        return self._serving.placed

    @property
    def answer(self) -> Any:
        """(base variables, shared, slot, inputs) to the model's output, compiled."""
        return self._serving.answer

    def phase(self, index: int) -> Phase:
        """How the task of a number, counted from 0, is trained."""
        if index == 0:
            return self._lora
        alone = self.coefficients_from is not None and index >= self.coefficients_from
        return self._coefficients if alone else self._adapt

    def start(self, variables: Tree) -> ShareBank:
        """An empty bank on what `Adapted.init` returned.

        Raises:
            InputError: if there are no "tasks".
        """
        bank = self._serving.start(variables)
        return ShareBank(bank.shared, bank.tasks)

    def restore(self, bank: TaskBank, state: ShareState, heads: Sequence[Mapping[str, Any]]) -> ShareBank:
        """The bank that serves a subspace, to learn the next task from.

        Args:
            bank: an empty one, as of `start`.
            state: what has been learnt.
            heads: of every task, by path.

        Raises:
            InputError: if the state has more columns than the model.
        """
        return bank_of_state(self.model, self._serving.with_room(bank, len(state.tasks)), state, heads)

    def _learnt(self, bank: ShareBank, name: str, batches: Any, key: PRNGKey, hooks: Hooks) -> ShareBank:
        bank = with_record(bank, self.model)
        return self.merge(bank, name, self.train(bank, name, batches, key, hooks))

    def train(self, bank: ShareBank, name: str, batches: Any, key: PRNGKey, hooks: Hooks) -> TrainedTask:
        """Trains one more task and does not merge it yet: the first two phases.

        Args:
            bank: what has been learnt.
            name: the new task's name.
            batches: as of `Learner.learn`.
            key: of fresh leaves and the dropout; the task's number is folded in.
            hooks: what is done beside the steps; its checks are the learner's own if it has none.

        Raises:
            TaskError, InputError, DivergedError, Preempted: as `learn`.
        """
        check_new_name(bank, name)
        bank, index = with_record(bank, self.model), len(bank.names)
        phase, base = self.phase(index), self.placed
        hooks = hooks if hooks.checks is not None else replace(hooks, checks=phase.checks(name, base))
        end = phase.train(self.begin(bank, jax.random.fold_in(key, index)), base, name, batches, hooks)
        parts = (by_kernel(self.model.targets, tree) for tree in (end.shared, end.slot))
        leaves = flat(end.slot)
        return TrainedTask(adapter_of(phase.model.method, *parts), {path: leaves[path] for path in self.model.heads})

    def merge(self, bank: ShareBank, name: str, trained: TrainedTask) -> ShareBank:
        """Puts a trained task into the subspace: the third phase.

        Raises:
            TaskError, InputError, LimitError: as `learn`.
        """
        bank = with_record(bank, self.model)
        choice = Choice(k=self.model.method.num_basis if self.k is None else self.k)
        new = {name: trained.adapter}
        limit = {"limit": self.max_error, "on_limit": self.on_limit}
        if bank.names:
            state = merge(bank.state, new, choice, **limit)
        else:
            state = initialize(new, choice)
            if self.max_error is not None and np.any(relative(state, "bound") > self.max_error):
                state = merge(ShareState(), new, choice, **limit)
        return self.restore(bank, state, (*bank_heads(bank, self.model).values(), trained.heads))

    def with_room(self, bank: TaskBank, needed: int) -> TaskBank:
        """The bank with a stack of at least `needed` slots; learnt slots keep their bits."""
        return self._serving.with_room(bank, needed)

    def predict(self, bank: TaskBank, name: Any, inputs: Any, *, state: Tree | None = None) -> Any:
        """The model's output for a learnt task, or for a batch of different tasks; see `Learner.predict`."""
        return self._serving.predict(bank, name, inputs, state=state)

    def begin(self, bank: ShareBank, key: PRNGKey) -> StepState:
        """The state in which the next task's training starts."""
        bank = with_record(bank, self.model)
        phase = self.phase(len(bank.names))
        key_init, key_steps = jax.random.split(key)
        shared, slot = fresh_slot(phase.model, key_init, self.base["params"])
        if phase is self._coefficients:
            shared, slot = bank.shared, started(slot, bank, self.start_from, self.model.heads)
        elif phase is self._adapt:
            slot = merged(slot, self._temporary(bank.state, slot))
        return phase.begin(shared, slot, key_steps)

    def _temporary(self, state: ShareState, fresh: Tree) -> dict[str, Any]:
        """Copies of the top phi directions of each main basis, or the last task's, with its coefficients.

        A basis with fewer leaves the fresh ones in place.
        """
        if self.start_from == "zero":
            leaves = {name: temporary_leaves(layer, self.directions) for name, layer in state.layers.items()}
        else:
            own, scale = by_kernel(self.model.targets, fresh), self._adapt.model.method.scale
            leaves = {name: last_task_leaves(layer, own[name], scale) for name, layer in state.layers.items()}
        return as_tree(self.model.targets, leaves)

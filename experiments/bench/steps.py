"""Our train steps and forward passes on a subject, as cases: built with the library's public parts alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.bench.subjects import ALPHA, RANK, TARGETS, Subject
from experiments.bench.timing import Case, timed
from share_jax.bank.slots import read_slot
from share_jax.linen.adapted_model import Adapted, adapt
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.parameterizations.shared_a import SharedA
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import forward_of, init_state, make_train_step

OURS = "share_jax"


@dataclass(frozen=True)
class Form:
    """A way of training one task: a parameterisation, whether what is shared trains, whether bars are read from it."""

    name: str
    method: Parameterization
    first: bool = False
    barred: bool = False


def forms(rank: int = RANK, alpha: float = ALPHA) -> tuple[Form, ...]:
    """What a task may be trained as, at the rank; `share` with k = 4 r, the top of its paper's range for phi."""
    return (
        Form("separate LoRA", SeparateLoRA(rank, alpha), barred=True),
        Form("shared_a first task", SharedA(rank, alpha), first=True),
        Form("shared_a later task", SharedA(rank, alpha), barred=True),
        Form("share adapt", ShareAdapt(rank, rank, alpha)),
        Form("share coefficients", Share(4 * rank, rank)),
    )


def adapted_of(subject: Subject, targets: str, method: Parameterization) -> Adapted:
    """The subject with adapters on the targets, a name in `TARGETS` or a pattern, and its heads per task."""
    pattern = TARGETS.get(targets, targets)
    return adapt(subject.model, subject.base, targets=[pattern], method=method, heads=subject.heads, **subject.example)


def first_call(call: Callable[[], Any]) -> float:
    """Seconds of the first call: tracing, compiling, and one run."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


RARELY = 4
"""What no bar is read from takes part in every so many rounds."""


def forward_case(subject: Subject, prefix: str) -> Case:
    """The frozen model's forward pass."""
    run = jax.jit(lambda params, inputs: subject.model.apply({"params": params}, **inputs))
    call = lambda: run(subject.params, subject.inputs)  # noqa: E731
    return Case(f"{prefix}frozen forward", OURS, timed(call), {"first_call_s": first_call(call)})


def full_case(subject: Subject, prefix: str) -> Case:
    """A step that trains every parameter."""
    optimizer = optax.adamw(1e-3)

    def update(params: Any, state: Any, batch: Any) -> tuple[Any, Any, Any]:
        def loss(params: Any) -> Any:
            logits: Any = subject.model.apply({"params": params}, **batch["inputs"])
            sums = subject.loss(logits, batch)
            return sums.total / sums.weight

        value, slope = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    run = jax.jit(update, donate_argnums=(0, 1))
    params = jax.tree.map(lambda x: jnp.array(x, copy=True), subject.params)
    held: list[Any] = [params, optimizer.init(params)]

    def call() -> Any:
        held[0], held[1], value = run(held[0], held[1], subject.batch)
        return held, value

    facts = {"first_call_s": first_call(call)}
    return Case(f"{prefix}full fine-tune", OURS, timed(call), facts, every=RARELY)


def stepper(
    subject: Subject,
    adapted: Adapted,
    *,
    first: bool = False,
    slots: int = 1,
    inputs: Callable[[], dict[str, Any]] | None = None,
) -> tuple[Callable[[], Any], Any]:
    """A function that does one train step of a task, and the compiled step's account of its memory.

    Args:
        subject: whose batch is learnt from.
        adapted: the subject's.
        first: whether what is shared trains.
        slots: of the stack that the task's slot is lifted from.
        inputs: gives each step's inputs, of the subject's shapes; the subject's own when None.
    """
    optimizer = task_optimizer(optax.adamw(1e-3), adapted.heads, train_shared=first)
    step = make_train_step(forward_of(adapted), subject.loss, optimizer, train_shared=first)
    fresh = adapted.init(jax.random.key(3), subject.params, slots)
    held = [init_state(fresh["shared"], read_slot(fresh["tasks"], slots - 1), optimizer, jax.random.key(4))]
    compiled = step.lower(held[0], subject.base, subject.batch).compile()

    def call() -> Any:
        batch = subject.batch if inputs is None else {**subject.batch, "inputs": inputs()}
        held[0], metrics = step(held[0], subject.base, batch)
        return held[0], metrics

    return call, compiled.memory_analysis()


def step_case(subject: Subject, targets: str, form: Form, prefix: str) -> Case:
    """One train step in a form."""
    adapted = adapted_of(subject, targets, form.method)
    began = time.perf_counter()
    call, memory = stepper(subject, adapted, first=form.first)
    jax.block_until_ready(call())
    facts = {"first_call_s": time.perf_counter() - began, "temporary_bytes": int(memory.temp_size_in_bytes)}
    return Case(f"{prefix}{form.name}", OURS, timed(call), facts, every=1 if form.barred else RARELY)

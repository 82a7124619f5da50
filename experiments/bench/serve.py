"""Suite `serve`: a batch of 32 with 1, 4, 16 or 32 different tasks, out of 10, 100 and 1,000 that are stored.

Ours through `Learner.predict`, as a user calls it: ids are checked, slots are gathered, one compiled program answers
any mix. PEFT's ways: `adapter_names` (one name per example), switching from adapter to adapter with a part of the
batch each, and merged kernels for one task. The text encoder with 32 tokens; rank 8 on all kernels, and on query and
value.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.bench.compiles import compilations
from experiments.bench.model_twins import agreed_twin
from experiments.bench.peer import Peer
from experiments.bench.steps import OURS, adapted_of, forms, forward_case
from experiments.bench.subjects import ALPHA, EVERY, QUERY_VALUE, RANK, Subject, minilm
from experiments.bench.suite import Options, SuiteResult, merged_results, raced
from experiments.bench.timing import Case, Key, ratio, timed
from share_jax.bank.accounting import nbytes
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.linen.adapted_model import Adapted
from share_jax.parameterizations.base import Parameterization
from share_jax.train.learner import Learner
from share_jax.trees import flat, nested

PEFT = "PEFT"
MIXES = (1, 4, 16, 32)
STORED = (10, 100, 1000)
PEER_STORED = 100
"""PEFT looks up the adapters of the batch by name: more stored ones cost it memory and start-up, not time per batch."""


def named(tasks: int) -> str:
    """How many different tasks, in words."""
    return "one task" if tasks == 1 else f"{tasks} tasks"


def bank_of(subject: Subject, adapted: Adapted, stored: int) -> TaskBank:
    """A bank of so many tasks whose adapters all do something: fresh slots with noise on them."""
    fresh = adapted.init(jax.random.key(5), subject.params, stored)
    leaves, keys = flat(fresh["tasks"]), iter(jax.random.split(jax.random.key(6), 1000))
    tasks = {path: leaf + 0.02 * jax.random.normal(next(keys), leaf.shape) for path, leaf in leaves.items()}
    return TaskBank(fresh["shared"], nested(tasks), tuple(f"t{number}" for number in range(stored)))


def our_cases(
    subject: Subject, targets: str, stored: int, method: Parameterization, mixes: tuple[int, ...]
) -> list[Case]:
    """Ours with so many tasks stored."""
    adapted = adapted_of(subject, targets, method)
    learner, bank = Learner(adapted, subject.base, optax.adamw(1e-3)), bank_of(subject, adapted, stored)
    size = next(iter(subject.inputs.values())).shape[0]
    prefix = f"{subject.name}, {targets}, {stored:,} stored: {method.name}, "
    facts = {"adapter_bytes": nbytes(bank.tasks) + nbytes(bank.shared)}
    cases, calls = [], {}
    for tasks in mixes:
        which = [stored * (row % tasks) // tasks for row in range(size)]  # spread over the whole stack
        names = [bank.names[index] for index in which]
        if tasks == 1:
            calls[tasks] = lambda: learner.predict(bank, "t1", subject.inputs)
        else:
            calls[tasks] = lambda names=names: learner.predict(bank, names, subject.inputs)
        cases.append(Case(prefix + named(tasks), OURS, timed(calls[tasks]), facts))

    def every_mix() -> Any:
        return [call() for call in calls.values()], learner.predict(bank, bank.names[-1], subject.inputs)

    other = [bank.names[row % 2] for row in range(size)]
    mixed = len(mixes) > 1
    facts["compilations"] = compilations(every_mix)
    facts["compilations_of_other_mixes"] = compilations(
        lambda: (every_mix(), learner.predict(bank, other, subject.inputs) if mixed else None)
    )
    cases.append(Case(prefix + "switch", OURS, timed(_alternating(lambda t: read_slot(bank.tasks, t))), facts))
    return cases


def _alternating(call: Callable[[int], Any]) -> Callable[[], Any]:
    turn = [0]

    def run() -> Any:
        turn[0] = 1 - turn[0]
        return call(turn[0])

    return run


def merged_cases(subject: Subject, targets: str) -> list[Case]:
    """One task in the kernels: what it takes to get there, and a forward pass after it."""
    adapted = adapted_of(subject, targets, forms()[2].method)
    bank = bank_of(subject, adapted, 10)
    variables = {**subject.base, "shared": bank.shared, "tasks": bank.tasks}
    fold = jax.jit(adapted.effective_params)
    params = fold(variables, jnp.int32(1))
    run = jax.jit(lambda params, inputs: subject.model.apply({"params": params}, **inputs))
    prefix = f"{subject.name}, {targets}: "
    return [
        Case(f"{prefix}merged kernels, one task", OURS, timed(lambda: run(params, subject.inputs))),
        Case(f"{prefix}merged kernels, switch", OURS, timed(_alternating(lambda t: fold(variables, jnp.int32(t))))),
    ]


def peer_cases(subject: Subject, targets: str, peer: Peer, files: dict[str, Any], options: Options) -> list[Case]:
    """PEFT's ways, in one model with all its adapters."""
    stored = 4 if options.tiny else PEER_STORED
    key = f"serving {targets}"
    facts = peer.make(key, "serving", files=files, targets=targets, stored=stored, rank=RANK, alpha=ALPHA)
    prefix = f"{subject.name}, {targets}, {stored:,} stored: "

    def case(name: str, way: str, tasks: int, every: int = 1) -> Case:
        return Case(prefix + name, PEFT, peer.runner(key, way=way, tasks=tasks), facts, every)

    mixes = (4,) if options.tiny else MIXES[1:]
    cases = [case("one task", "one", 1), case("switch", "switch", 1), case("merge and unmerge", "merge", 1, every=4)]
    cases += [case(f"{named(tasks)} mixed", "mixed", tasks) for tasks in mixes]
    cases += [case(f"{named(tasks)}, switching", "switching", tasks, every=4) for tasks in mixes]
    return cases


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite, one set of targets after the other."""
    subject = minilm(8 if options.tiny else 32, tiny=options.tiny)
    files = agreed_twin(subject, peer, options.folder / "serve") if peer else {}
    shared_a, share = forms()[2].method, forms()[4].method
    parts = []
    for targets in (QUERY_VALUE,) if options.tiny else (EVERY, QUERY_VALUE):
        if not options.takes(f"{subject.name}, {targets}"):
            continue
        cases = [forward_case(subject, f"{subject.name}: "), *merged_cases(subject, targets)]
        stored = (2, 8) if options.tiny else STORED
        for count in stored:
            mixes = tuple(mix for mix in MIXES if mix <= min(count, 4 if options.tiny else 32))
            cases += our_cases(subject, targets, count, shared_a, mixes)
        cases += our_cases(subject, targets, stored[-1], share, (1, 4) if options.tiny else (1, 32))
        if peer:
            cases.append(peer.case(f"{subject.name}: frozen forward", "torch", "forward", files=files))
            cases += peer_cases(subject, targets, peer, files, options)
        times, rows = raced(cases, options.rounds, options)
        parts.append(SuiteResult(rows, ratios_of(times, subject, targets)))
        if peer:
            peer.drop([f"serving {targets}"])
    return merged_results(parts)


def ratios_of(times: dict[Key, dict[int, float]], subject: Subject, targets: str) -> dict[str, float]:
    """Ours to the frozen forward pass, many stored to few, and ours to PEFT's."""
    forward = times[f"{subject.name}: frozen forward", OURS]
    start = f"{subject.name}, {targets}"
    found: dict[str, float] = {}

    def ours(stored: str, tasks: str, method: str = "shared_a") -> Any:
        return times.get((f"{start}, {stored} stored: {method}, {tasks}", OURS))

    for tasks in map(named, MIXES):
        if (at_100 := ours("100", tasks)) is not None:
            found[f"{start}: {tasks} / frozen forward"] = ratio(at_100, forward)
        few, many = ours("10", tasks), ours("1,000", tasks)
        if few is not None and many is not None:
            found[f"{start}: 1,000 stored / 10 stored, {tasks}"] = ratio(many, few)
        if (share := ours("1,000", tasks, "share")) is not None:
            found[f"{start}: share, {tasks} / frozen forward"] = ratio(share, forward)
        for way in (f"{tasks} mixed", f"{tasks}, switching", tasks):
            peft = times.get((f"{start}, {PEER_STORED} stored: {way}", PEFT))
            if peft is not None and at_100 is not None:
                found[f"{start}: {way}, ours / PEFT"] = ratio(at_100, peft)
                found[f"{start}: {way}, frozen forward / PEFT"] = ratio(forward, peft)
    found[f"{start}: merged kernels, one task / frozen forward"] = ratio(
        times[f"{start}: merged kernels, one task", OURS], forward
    )
    return found

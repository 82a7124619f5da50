"""Forms of whole programs: of `share`'s core, scanned layers, donated buffers, kept programs, and shorter batches."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.compilation_cache import compilation_cache

from experiments.bench.steps import OURS, RARELY, adapted_of, forms, stepper
from experiments.bench.subjects import EVERY, HEADS, KERNELS, RANK, Subject, minilm, vit
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, ratio, timed, total
from experiments.studies.alternatives.equal import hold_equal
from experiments.studies.alternatives.scanned import LOOP, ScannedVit, stacked
from share_jax.bank.slots import read_slot
from share_jax.linen.adapted_model import Adapted, adapt
from share_jax.ops.products import up_product
from share_jax.parameterizations.share import Share
from share_jax.train.losses import classification
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import StepState, forward_of, init_state, make_predict
from share_jax.train.update import make_update
from share_jax.typing import Array, Leaves

COMPILED_EVERY = 10
"""Compilations take part in every so many rounds."""


@dataclass(frozen=True)
class TwoProducts(Share):
    """`share` with the coefficients applied one after the other: h @ coeff_a, then @ coeff_b.T, k to p to k columns."""

    def up(self, shared: Leaves, slot: Leaves, h: Array) -> Array:
        """As the method, without the core."""
        inner = up_product(up_product(h, slot["coeff_a"]), jnp.swapaxes(slot["coeff_b"], -1, -2))
        return up_product(inner, shared["basis_b"].T)


def noisy(tree: Any, seed: int = 11) -> Any:
    """The tree with every leaf moved a little, so that nothing hides behind a zero."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [leaf + 0.02 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def updated(subject: Subject, adapted: Adapted, shared: Any, slot: Any) -> tuple[Any, Any]:
    """The slot's gradient and the loss of one batch: SGD of rate 1 moves the slot by just that."""
    optimizer = task_optimizer(optax.sgd(1.0), adapted.heads, train_shared=False)
    update = jax.jit(make_update(forward_of(adapted), classification, optimizer, train_shared=False))
    after, metrics = update(init_state(shared, slot, optimizer, jax.random.key(4)), subject.base, subject.batch)
    return jax.tree.map(jnp.subtract, slot, after.slot), metrics["loss"]


def core_part(options: Options) -> SuiteResult:
    """A step that trains coefficients alone, and a forward pass of a batch of different tasks, k = 4 r and p = r."""
    subject = vit(tiny=options.tiny)
    batch = subject.labels.shape[0]
    cases, equal = [], {}
    for name, method in (("one core", Share(4 * RANK, RANK)), ("two products", TwoProducts(4 * RANK, RANK))):
        adapted = adapted_of(subject, EVERY, method)
        trees = noisy(adapted.init(jax.random.key(3), subject.params, batch))
        slots = adapted.slot(trees["tasks"], list(range(batch)))
        predict = make_predict(forward_of(adapted))
        args = subject.base, trees["shared"], slots, subject.inputs
        equal[name] = updated(subject, adapted, trees["shared"], read_slot(trees["tasks"], 0)), predict(*args)
        call, memory = stepper(subject, adapted)
        facts = {"temporary_bytes": int(memory.temp_size_in_bytes)}
        cases.append(Case(f"share core: step, {name}", OURS, timed(call), facts))
        forward = timed(lambda predict=predict, args=args: predict(*args))
        cases.append(Case(f"share core: forward, different tasks, {name}", OURS, forward))
    hold_equal("share core, two products", equal["two products"], equal["one core"])
    times, rows = raced(cases, options.rounds, options)
    return SuiteResult(
        rows, _against(times, "share core: ", ("step", "forward, different tasks"), "two products", "one core")
    )


def _against(times: Any, prefix: str, parts: tuple[str, ...], other: str, ours: str) -> dict[str, float]:
    return {
        f"{prefix}{part}, {other} / {ours}": ratio(
            times[f"{prefix}{part}, {other}", OURS], times[f"{prefix}{part}, {ours}", OURS]
        )
        for part in parts
    }


def compiling(update: Callable[..., Any], *args: Any, whole: bool = True) -> Callable[[], float]:
    """Traces, lowers and, if `whole`, compiles the function anew every time; the seconds of that."""

    def run() -> float:
        fresh = lambda *args: update(*args)  # noqa: E731  (another function: JAX has seen nothing of it)
        began = time.perf_counter()
        lowered = jax.jit(fresh).lower(*args)
        if whole:
            lowered.compile()
        return time.perf_counter() - began

    return run


def step_of(subject: Subject, adapted: Adapted) -> tuple[Any, StepState]:
    """A later task's step as a plain function, and the state that it starts from."""
    optimizer = task_optimizer(optax.adamw(1e-3), adapted.heads, train_shared=False)
    update = make_update(forward_of(adapted), classification, optimizer, train_shared=False)
    fresh = adapted.init(jax.random.key(3), subject.params, 1)
    return update, init_state(fresh["shared"], read_slot(fresh["tasks"], 0), optimizer, jax.random.key(4))


def scan_part(options: Options) -> SuiteResult:
    """The vision transformer's later-task step, unrolled and scanned, on one set of weights and adapters."""
    unrolled, method = vit(tiny=options.tiny), forms()[2].method
    layers = unrolled.twin["num_layers"]
    model = ScannedVit(unrolled.model.config, unrolled.model.num_classes)  # pyright: ignore[reportAttributeAccessIssue]
    scanned = replace(unrolled, model=model, params=stacked(unrolled.params, layers))
    plain = adapted_of(unrolled, EVERY, method)
    pattern = rf"encoder/{LOOP}/{KERNELS}"
    looped = adapt(model, scanned.base, targets=[pattern], method=method, heads=HEADS, **scanned.inputs)
    trees = noisy(plain.init(jax.random.key(3), unrolled.params, 1))
    shared, slot = trees["shared"], read_slot(trees["tasks"], 0)
    want = updated(unrolled, plain, shared, slot)
    got = updated(scanned, looped, stacked(shared, layers), stacked(slot, layers))
    hold_equal("scanned layers", got, (stacked(want[0], layers), want[1]))
    cases = []
    for name, subject, adapted in (("unrolled", unrolled, plain), ("scanned", scanned, looped)):
        call, memory = stepper(subject, adapted)
        facts = {"temporary_bytes": int(memory.temp_size_in_bytes)}
        cases.append(Case(f"scanned layers: step, {name}", OURS, timed(call), facts))
        update, state = step_of(subject, adapted)
        for what, whole in (("tracing alone", False), ("tracing and compiling", True)):
            run = compiling(update, state, subject.base, subject.batch, whole=whole)
            cases.append(Case(f"scanned layers: {what}, {name}", OURS, run, every=COMPILED_EVERY, warm=False))
    times, rows = raced(cases, options.rounds, options)
    return SuiteResult(
        rows,
        _against(times, "scanned layers: ", ("step", "tracing alone", "tracing and compiling"), "scanned", "unrolled"),
    )


def resident(memory: Any) -> int:
    """Bytes of a program's arguments, results and temporaries; a result in a donated argument's place counts once."""
    sizes = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
    return int(sum(sizes) - memory.alias_size_in_bytes)


def donation_part(options: Options) -> SuiteResult:
    """A later task's step, whose state is small, and a full fine-tune's, whose state is three times the model."""
    subject = minilm(8 if options.tiny else 32, tiny=options.tiny)
    update, state = step_of(subject, adapted_of(subject, EVERY, forms()[2].method))
    full, start = full_step(subject)
    cases = []
    for what, function, begun, every in (
        ("later task", lambda state, base: update(state, base, subject.batch), state, 1),
        ("full fine-tune", lambda state, base: full(state, subject.batch), start, RARELY),
    ):
        results = {}
        for name, donate in (("donated", (0,)), ("kept", ())):
            run = jax.jit(function, donate_argnums=donate)
            held = [jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), begun)]
            memory: Any = run.lower(held[0], subject.base).compile().memory_analysis()
            held[0], found = run(held[0], subject.base)
            results[name] = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), found)

            def call(run: Any = run, held: list[Any] = held) -> Any:
                held[0], found = run(held[0], subject.base)
                return held[0], found

            facts = {"resident_bytes": resident(memory), "temporary_bytes": int(memory.temp_size_in_bytes)}
            cases.append(Case(f"donated buffers: {what}, {name}", OURS, timed(call), facts, every=every))
        hold_equal(f"donated buffers, {what}", results["kept"], results["donated"], 0.0)
    times, rows = raced(cases, options.rounds, options)
    found = _against(times, "donated buffers: ", ("later task", "full fine-tune"), "kept", "donated")
    sizes = {case.case: case.facts["resident_bytes"] for case in cases}
    for what in ("later task", "full fine-tune"):
        start_of = f"donated buffers: {what}, "
        found[f"{start_of}memory, kept / donated"] = sizes[f"{start_of}kept"] / sizes[f"{start_of}donated"]
    return SuiteResult(rows, found)


def full_step(subject: Subject) -> tuple[Any, Any]:
    """A step that trains every parameter, and its state."""
    optimizer = optax.adamw(1e-3)

    def update(state: Any, batch: Any) -> tuple[Any, Any]:
        params, moments = state

        def loss(params: Any) -> Any:
            sums = classification(subject.model.apply({"params": params}, **batch["inputs"]), batch)  # pyright: ignore
            return sums.total / sums.weight

        value, slope = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(slope, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    return update, (subject.params, optimizer.init(subject.params))


@contextmanager
def keeping(folder: Path | None) -> Iterator[None]:
    """JAX's persistent compilation cache in the folder, for every program however small; none when None."""
    settings = {
        "jax_compilation_cache_dir": None if folder is None else str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX looks at the settings when it first uses the cache
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def cache_part(options: Options) -> SuiteResult:
    """The text encoder's later-task step compiled without a cache, into an empty one, and out of one that has it."""
    subject = minilm(8 if options.tiny else 32, tiny=options.tiny)
    update, state = step_of(subject, adapted_of(subject, EVERY, forms()[2].method))
    compiled = compiling(update, state, subject.base, subject.batch)
    empty, filled = options.folder / "programs", options.folder / "programs-kept"

    def into() -> float:
        shutil.rmtree(empty, ignore_errors=True)
        with keeping(empty):
            return compiled()

    def within(folder: Path | None) -> Callable[[], float]:
        def run() -> float:
            with keeping(folder):
                return compiled()

        return run

    within(filled)()
    runs = {"without": within(None), "into an empty one": into, "out of a filled one": within(filled)}
    prefix = "compilation cache: compiling "
    cases = [Case(prefix + name, OURS, run, every=COMPILED_EVERY, warm=False) for name, run in runs.items()]
    times, rows = raced(cases, options.rounds, options)
    without = times[f"{prefix}without", OURS]
    names = [name for name in runs if name != "without"]
    return SuiteResult(
        rows, {f"{prefix}{name} / without": ratio(times[prefix + name, OURS], without) for name in names}
    )


BATCHES = {8: 315, 12: 669, 16: 309, 24: 117}
"""Batches of each length among 1,410 of CLINC150, 32 texts each, three passes over ten tasks: what
`python -m experiments.bench input --experiments clinc150` counts in the default preset."""


def bucket_part(options: Options) -> SuiteResult:
    """A later task's step at each length; their mean in the shares that batches have against the longest's."""
    shares = {4: 3, 8: 1} if options.tiny else BATCHES
    cases = []
    for tokens in shares:
        subject = minilm(tokens, tiny=options.tiny)
        call, memory = stepper(subject, adapted_of(subject, EVERY, forms()[2].method))
        facts = {"temporary_bytes": int(memory.temp_size_in_bytes)}
        cases.append(Case(f"length buckets: step, {tokens} tokens", OURS, timed(call), facts))
    times, rows = raced(cases, options.rounds, options)
    each = {tokens: times[f"length buckets: step, {tokens} tokens", OURS] for tokens in shares}
    whole = sum(shares.values())
    mean = total(*((count / whole, each[tokens]) for tokens, count in shares.items()))
    return SuiteResult(rows, {"length buckets: mean step / longest": ratio(mean, each[max(shares)])})

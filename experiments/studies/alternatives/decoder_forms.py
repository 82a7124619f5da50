"""Forms of a decoder's programs: tokens written in one loop or one by one, and short texts padded, sorted or packed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.decoders import ALL_LAYERS, CONFIGS, LAST_TEN, decoder, pattern_of
from experiments.bench.lm_decode import prompts_of
from experiments.bench.steps import OURS, adapted_of, forms, stepper
from experiments.bench.subjects import Subject
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, Rounds, ratio, timed, total
from experiments.studies.alternatives.equal import hold_equal
from share_jax.bank.slots import TaskSlots, read_slot
from share_jax.linen.adapted_model import Adapted
from share_jax.models import decoding
from share_jax.models.sampling import likeliest
from share_jax.typing import Array, Tree

ROWS, WRITTEN = 8, 32
"""Prompts, and tokens behind each."""

LENGTHS = (25, 28, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 39, 41, 41, 43, 45, 47, 49, 51, 52, 56, 59, 68)
"""Tokens of 24 texts: queries10's training questions with their answers, at every 24th part of their order."""

BUCKETS, LONGEST, TOGETHER = (48, 64), 72, 4
"""Lengths that batches are cut to, the longest text's length, and texts of a batch."""


def form_of(options: Options) -> str:
    """The decoder's name."""
    return "tiny" if options.tiny else "smollm2-135m"


def loop_part(options: Options) -> SuiteResult:
    """Greedy decoding: the library's one compiled loop, against a call of a compiled step for each token."""
    form, written = form_of(options), 4 if options.tiny else WRITTEN
    subject = decoder(form, 1, 32)
    adapted = adapted_of(subject, pattern_of(CONFIGS[form], ALL_LAYERS), forms()[2].method)
    trees = adapted.init(jax.random.key(3), subject.params, 1)
    variables = {"params": subject.params, "shared": trees["shared"]}
    ids = jnp.asarray(prompts_of(subject, ROWS), jnp.int32)
    filled = partial(
        decoding.prefill, adapted, variables, TaskSlots(read_slot(trees["tasks"], 0)), ids, jnp.ones_like(ids), written
    )
    ways = {
        "one loop": partial(looped, adapted, variables, trees["tasks"], filled, written),
        **{
            f"a call per token, cache {name}": partial(
                one_by_one, token_step(adapted, donated=donated), variables, trees["tasks"], filled, written
            )
            for name, donated in (("donated", True), ("kept", False))
        },
    }
    want = ways["one loop"]()
    for name, way in ways.items():
        hold_equal(f"written tokens, {name}", way(), want, 0.0)
    cases = [Case(f"written tokens: {name}", OURS, timed(way)) for name, way in ways.items()]
    times, rows = raced(cases, options.rounds, options)
    ours = times["written tokens: one loop", OURS]
    found = {name: times[f"written tokens: {name}", OURS] for name in ways if name != "one loop"}
    return SuiteResult(
        rows, {f"written tokens: {name} / one loop": ratio(spent, ours) for name, spent in found.items()}
    )


def looped(adapted: Adapted, variables: Tree, tasks: Tree, filled: Callable[[], Any], most: int) -> Array:
    """(rows, most) tokens, by the library's loop."""
    logits, cache = filled()
    rows, slots = logits.shape[0], TaskSlots(read_slot(tasks, 0))
    starts, keys = jnp.zeros((rows,), jnp.int32), jax.random.split(jax.random.key(0), rows)
    ends, limit = jnp.full((8,), -1, jnp.int32), jnp.int32(most)
    return decoding.write(adapted, variables, slots, logits, cache, starts, limit, ends, None, keys, most)[0]


def token_step(adapted: Adapted, *, donated: bool) -> Callable[..., Any]:
    """A compiled function of one token: the likeliest next one, and the cache with the token in it."""

    def step(variables: Tree, slot: Tree, token: Array, cache: Any, place: Array) -> tuple[Array, Any]:
        starts = jnp.zeros(token.shape, jnp.int32)
        found: Any = adapted.apply_slot(variables, TaskSlots(slot), token, cache, place, starts, method="decode")
        logits, cache = found
        return likeliest(logits), cache

    return jax.jit(step, donate_argnums=(3,) if donated else ())


def one_by_one(step: Callable[..., Any], variables: Tree, tasks: Tree, filled: Callable[[], Any], most: int) -> Array:
    """(rows, most) tokens, by a call for each."""
    logits, cache = filled()
    slot, first = read_slot(tasks, 0), cache[0].key.shape[2] - most
    out = [likeliest(logits)]
    for number in range(most - 1):
        token, cache = step(variables, slot, out[-1], cache, jnp.int32(first + number))
        out.append(token)
    return jnp.stack(out, axis=1)


def shapes_of(lengths: Sequence[int], buckets: Sequence[int]) -> dict[tuple[int, int], int]:
    """How many batches of each (texts, tokens), if each takes texts of one bucket; a last one may hold fewer texts.

    >>> shapes_of([3, 9, 4, 4, 4, 5], [5, 10])
    {(4, 5): 1, (1, 5): 1, (1, 10): 1}
    """
    found: dict[tuple[int, int], int] = {}
    least = 0
    for most in buckets:
        own = sum(least < length <= most for length in lengths)
        for texts, count in ((TOGETHER, own // TOGETHER), (own % TOGETHER, 1)):
            if texts and count:
                found[texts, most] = found.get((texts, most), 0) + count
        least = most
    return found


def packed_rows(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Texts by number in rows of so many tokens, each in the first row that has room, the longest first.

    >>> packed_rows([3, 9, 4, 4], 10)
    [[1], [2, 3], [0]]
    """
    rows: list[list[int]] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        fits = (row for row in rows if sum(lengths[other] for other in row) + lengths[text] <= room)
        row = next(fits, None)
        if row is None:
            rows.append([text])
        else:
            row.append(text)
    return rows


def packed(subject: Subject, lengths: Sequence[int], room: int) -> Subject:
    """The subject on all texts packed into rows, with document masks; the last half of each text is learnt."""
    rows = packed_rows(lengths, room)
    mask = np.zeros((len(rows), room), np.int32)
    learnt: list[list[int]] = []
    for row, texts in enumerate(rows):
        ends = np.cumsum([lengths[text] for text in texts])
        learnt.append([])
        for number, (text, end) in enumerate(zip(texts, ends, strict=True), start=1):
            mask[row, end - lengths[text] : end] = number
            learnt[-1] += range(end - lengths[text] // 2, end)
    widest = max(map(len, learnt))
    columns, targets = np.zeros((len(rows), widest), np.int32), np.full((len(rows), widest), -1, np.int32)
    for row, own in enumerate(learnt):
        columns[row, : len(own)], targets[row, : len(own)] = own, 1
    ids = np.random.default_rng(1).integers(1, 60, mask.shape).astype(np.int32)
    inputs = {"input_ids": ids, "attention_mask": mask, "columns": columns, "targets": targets}
    arrays = {name: jnp.asarray(array) for name, array in inputs.items()}
    return replace(subject, inputs=arrays, labels=arrays["targets"])


def length_part(options: Options) -> SuiteResult:
    """All texts learnt from once: padded to the longest, sorted into length buckets, and packed with document masks.

    Half of each text is learnt; of padded texts half of the row, which is what a batch has room for. Packed rows are
    one batch of as many texts as all batches of the others together.
    """
    form, prefix = form_of(options), "short texts: "
    targets = pattern_of(CONFIGS[form], LAST_TEN)
    ways = {"padded": shapes_of(LENGTHS, (LONGEST,)), "in buckets": shapes_of(LENGTHS, (*BUCKETS, LONGEST))}
    subjects = {shape: decoder(form, *shape) for way in ways.values() for shape in way}
    whole = {"packed": packed(decoder(form, 1, LONGEST), LENGTHS, 4 * LONGEST)}
    cases = []
    for name, subject in (*((f"{texts} x {tokens}", x) for (texts, tokens), x in subjects.items()), *whole.items()):
        call, memory = stepper(subject, adapted_of(subject, targets, forms()[2].method))
        facts = {"temporary_bytes": int(memory.temp_size_in_bytes)}
        cases.append(Case(f"{prefix}step, {name}", OURS, timed(call), facts))
    times, rows = raced(cases, options.rounds, options)

    def spent(way: str) -> Rounds:
        each = ((n, times[f"{prefix}step, {texts} x {tokens}", OURS]) for (texts, tokens), n in ways[way].items())
        return total(*each)

    ours = spent("in buckets")
    return SuiteResult(
        rows,
        {
            f"{prefix}padded to the longest / in buckets": ratio(spent("padded"), ours),
            f"{prefix}packed into rows of {4 * LONGEST} / in buckets": ratio(
                times[f"{prefix}step, packed", OURS], ours
            ),
        },
    )

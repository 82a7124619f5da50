"""Part `decode` of the suite `lm`: greedy decoding with many tasks, stored and in the batch.

Ours through `share_jax.models.generate`, as a user calls it; PEFT's through `generate` with `adapter_names`, with one
adapter for all rows, and with merged kernels. A case writes one token behind each prompt, another `TOKENS`; the
difference is what decoding takes, and tokens per second are read off it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.decoders import ALL_LAYERS, CONFIGS, agreed_decoder, decoder, decoder_files, pattern_of
from experiments.bench.peer import Peer
from experiments.bench.serve import bank_of, named
from experiments.bench.steps import OURS, RARELY, adapted_of, forms
from experiments.bench.subjects import ALPHA, RANK, Subject
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, Key, Rounds, ratio, summary, timed, total
from share_jax.bank.bank import TaskBank
from share_jax.linen.adapted_model import Adapted
from share_jax.models.generation import generate
from share_jax.typing import Tree

PEFT = "PEFT"
PROMPT, TOKENS = 32, 33
"""Tokens of a prompt, and behind it."""

FIRST = "first token"


@dataclass(frozen=True)
class Mix:
    """Rows of a batch, different tasks in it, and tasks that are stored."""

    rows: int
    tasks: int
    stored: int

    @property
    def name(self) -> str:
        """As it stands in the results."""
        return f"{self.rows} rows, {named(self.tasks)}, {self.stored} stored"


OUR_MIXES = (
    Mix(1, 1, 10), Mix(8, 1, 10), Mix(8, 8, 10), Mix(8, 8, 100), Mix(32, 1, 10), Mix(32, 8, 10), Mix(32, 8, 100),
    Mix(32, 16, 100), Mix(32, 32, 100),
)  # fmt: skip
PEER_MIXES = (Mix(1, 1, 32), Mix(8, 8, 32), Mix(32, 1, 32), Mix(32, 16, 32), Mix(32, 32, 32))
"""PEFT looks its adapters up by name: more stored ones cost it memory and start-up, not time per token."""
BARRED = {(8, 8), (32, 1), (32, 8), (32, 16), (32, 32)}
"""(rows, tasks) of ours that bars are read from: they are in every round, the others in a few."""
PEER_BARRED = {(32, 16)}

TINY_OURS = (Mix(2, 1, 2), Mix(2, 2, 2), Mix(2, 2, 4))
TINY_PEER = (Mix(2, 2, 4),)


@dataclass(frozen=True)
class Merged:
    """A decoder whose params have one task's update in their kernels, as `generate` takes an adapted one."""

    model: Any
    space: str = "parameter"

    def apply_slot(self, variables: Tree, slot: Any, *args: Any, **kwargs: Any) -> Any:
        """The decoder itself; the slot is in the kernels."""
        return self.model.apply({"params": variables["params"]}, *args, **kwargs)


def every(mix: Mix, barred: Collection[tuple[int, int]]) -> int:
    """In which rounds a batch is written: a bar is read from all of them."""
    return 1 if (mix.rows, mix.tasks) in barred else RARELY


def prompts_of(subject: Subject, rows: int) -> list[list[int]]:
    """Drawn prompts."""
    model: Any = subject.model
    words = model.config.vocab_size
    return np.random.default_rng(2).integers(1, words, (rows, PROMPT)).tolist()


def written(adapted: Any, bank: TaskBank, params: Tree, mix: Mix, prompts: Sequence[Sequence[int]], most: int) -> Any:
    """A function that writes so many tokens behind each prompt."""
    names = [bank.names[mix.stored * (row % mix.tasks) // mix.tasks] for row in range(mix.rows)]

    def call() -> Any:
        out = generate(adapted, bank, names, prompts, params=params, max_tokens=most, batch_size=mix.rows)
        return jnp.asarray([len(each.tokens) for each in out])

    return call


def our_cases(subject: Subject, adapted: Adapted, prefix: str, mixes: Sequence[Mix], tokens: int) -> list[Case]:
    """Every mix, with one token and with all, and one task in the kernels."""
    banks = {stored: bank_of(subject, adapted, stored) for stored in {mix.stored for mix in mixes}}
    cases = []
    for mix in mixes:
        for most, what in ((1, f"{FIRST}, {mix.name}"), (tokens, mix.name)):
            call = written(adapted, banks[mix.stored], subject.params, mix, prompts_of(subject, mix.rows), most)
            cases.append(Case(prefix + what, OURS, timed(call), every=every(mix, BARRED)))
    bank = banks[mixes[0].stored]
    variables = {**subject.base, "shared": bank.shared, "tasks": bank.tasks}
    kernels = jax.jit(adapted.effective_params)(variables, jnp.int32(1))
    largest = max(mix.rows for mix in mixes)
    for rows in sorted({mixes[0].rows, largest}):
        mix = Mix(rows, 1, mixes[0].stored)
        for most, what in ((1, f"{FIRST}, {rows} rows, merged"), (tokens, f"{rows} rows, merged")):
            call = written(Merged(adapted.model), bank, kernels, mix, prompts_of(subject, rows), most)
            cases.append(Case(prefix + what, OURS, timed(call), every=RARELY))
    return cases


def peer_cases(
    subject: Subject, peer: Peer, prefix: str, mixes: Sequence[Mix], tokens: int, files: dict[str, Any], **where: str
) -> list[Case]:
    """PEFT's ways, in one model with all its adapters."""
    key, stored = "generation", max(mix.stored for mix in mixes)
    spec: dict[str, Any] = {"files": files, "stored": stored, "first_layer": 0, "rank": RANK, "alpha": ALPHA}
    facts = peer.make(key, "decoder generation", **spec, **where)
    cases = []
    for mix in mixes:
        way = "one" if mix.tasks == 1 else "mixed"
        ways = [(way, mix.name), *([("merged", f"{mix.rows} rows, merged")] if mix.tasks == 1 else [])]
        for how, name in ways:
            for most, what in ((1, f"{FIRST}, {name}"), (tokens, name)):
                asked = {"prompts": prompts_of(subject, mix.rows), "tokens": most, "tasks": mix.tasks, "way": how}
                often = RARELY if how == "merged" else every(mix, PEER_BARRED)
                cases.append(Case(prefix + what, PEFT, peer.runner(key, **asked), facts, often))
    return cases


def decode_part(
    form: str, peer: Peer | None, options: Options, *, dtype: str = "float32", device: str = "cpu"
) -> SuiteResult:
    """The part; all kernels are adapted, by `shared_a` on our side.

    Args:
        form: the decoder's.
        peer: None without peers.
        options: of the suite.
        dtype: of parameters and products; the logits of both sides are compared in float32 alone.
        device: where the peer computes.
    """
    tokens = 3 if options.tiny else TOKENS
    subject, prefix = decoder(form, 1, PROMPT, dtype), f"decode, {dtype}: "
    adapted = adapted_of(subject, pattern_of(CONFIGS[form], ALL_LAYERS), forms()[2].method)
    cases = our_cases(subject, adapted, prefix, TINY_OURS if options.tiny else OUR_MIXES, tokens)
    if peer:
        mixes = TINY_PEER if options.tiny else PEER_MIXES
        make = agreed_decoder if dtype == "float32" else lambda subject, peer, folder: decoder_files(subject, folder)
        files = make(subject, peer, options.folder / f"lm-{dtype}")
        cases += peer_cases(subject, peer, prefix, mixes, tokens, files, dtype=dtype, device=device)
    times, rows = raced(cases, options.rounds, options)
    if peer:
        peer.drop(["generation"])
    note_rates(rows, times, prefix, tokens)
    return SuiteResult(rows, decode_ratios(times, prefix))


def note_rates(rows: list[dict[str, Any]], times: dict[Key, dict[int, float]], prefix: str, tokens: int) -> None:
    """Puts the tokens per second behind the first token beside every batch's row."""
    for row in rows:
        name = row["case"].removeprefix(prefix)
        if not name.startswith(FIRST):
            spent = summary(Case(name, row["system"], lambda: 0.0), decoding(times, prefix, name, row["system"]))
            row["tokens_per_s"] = int(name.split()[0]) * (tokens - 1) / max(spent["median_s"], 1e-9)


def decoding(times: dict[Key, dict[int, float]], prefix: str, name: str, system: str) -> Rounds:
    """Each round's seconds for all tokens but the first."""
    return total((1, times[prefix + name, system]), (-1, times[f"{prefix}{FIRST}, {name}", system]))


def decode_ratios(times: dict[Key, dict[int, float]], prefix: str) -> dict[str, float]:
    """Many tasks to one, 100 stored to 10, and ours to PEFT's, for all tokens but the first; and for the first."""
    names = {case.removeprefix(prefix): system for case, system in times if FIRST not in case}
    ours = [mix for mix in (*OUR_MIXES, *TINY_OURS) if (prefix + mix.name, OURS) in times]
    found: dict[str, float] = {}

    def spent(name: str, system: str = OURS) -> Rounds:
        return decoding(times, prefix, name, system)

    for mix in ours:
        if mix.tasks > 1:
            for one in (other for other in ours if other.rows == mix.rows and other.tasks == 1):
                found[f"{mix.name} / one task"] = ratio(spent(mix.name), spent(one.name))
        for few in ours:
            if (few.rows, few.tasks) == (mix.rows, mix.tasks) and few.stored < mix.stored:
                pair = spent(mix.name), spent(few.name)
                found[f"{mix.rows} rows, {named(mix.tasks)}: {mix.stored} stored / {few.stored} stored"] = ratio(*pair)
    for mix in (*PEER_MIXES, *TINY_PEER):
        if (prefix + mix.name, PEFT) not in times:
            continue
        own = [other for other in ours if (other.rows, other.tasks) == (mix.rows, mix.tasks)][-1:]
        for other in own:
            what = f"{mix.rows} rows, {named(mix.tasks)}"
            found[f"{what}, ours / PEFT"] = ratio(spent(other.name), spent(mix.name, PEFT))
            first = times[f"{prefix}{FIRST}, {other.name}", OURS], times[f"{prefix}{FIRST}, {mix.name}", PEFT]
            found[f"{what}, first token, ours / PEFT"] = ratio(*first)
    for name in (name for name in names if name.endswith("merged")):
        if (prefix + name, PEFT) in times and (prefix + name, OURS) in times:
            found[f"{name}, ours / PEFT"] = ratio(spent(name), spent(name, PEFT))
    return {prefix + name: value for name, value in found.items()}

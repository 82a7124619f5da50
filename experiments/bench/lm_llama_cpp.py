"""Part `llama.cpp` of the suite `lm`: greedy decoding beside llama.cpp's, with one LoRA on all kernels for all rows.

It runs where `llama-cpp-python` is installed beside the peers (experiments/bench/llama_cpp.txt; it is built from its
source). One LoRA is all that a context of llama.cpp applies at a time. Cases are those of `lm_decode`.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.decoders import AGREE, ALL_LAYERS, CONFIGS, decoder, pattern_of
from experiments.bench.llama_files import llama_files
from experiments.bench.lm_decode import FIRST, PROMPT, TOKENS, Mix, decoding, note_rates, prompts_of, written
from experiments.bench.model_twins import check_logits
from experiments.bench.peer import Peer
from experiments.bench.serve import bank_of
from experiments.bench.steps import OURS, adapted_of, forms
from experiments.bench.subjects import Subject
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, Key, ratio, timed

LLAMA_CPP, PACKAGE = "llama.cpp", "llama-cpp-python"
MIXES, TINY_MIXES = (Mix(1, 1, 1), Mix(8, 1, 1), Mix(32, 1, 1)), (Mix(2, 1, 1),)
PREFIX = "llama.cpp, float32: "


def llama_cpp_part(form: str, peer: Peer, options: Options) -> SuiteResult:
    """The part; every case is in every round.

    Raises:
        PeerError: llama.cpp's logits are not those of the decoder.
    """
    tokens, mixes = (3, TINY_MIXES) if options.tiny else (TOKENS, MIXES)
    subject = decoder(form, 1, PROMPT)
    adapted = adapted_of(subject, pattern_of(CONFIGS[form], ALL_LAYERS), forms()[2].method)
    bank = bank_of(subject, adapted, 1)
    make_agreed(subject, peer, mixes, tokens, options.folder / LLAMA_CPP)
    cases = []
    for mix in mixes:
        prompts = prompts_of(subject, mix.rows)
        for most, what in ((1, f"{FIRST}, {mix.rows} rows"), (tokens, f"{mix.rows} rows")):
            ours = timed(written(adapted, bank, subject.params, mix, prompts, most))
            cases.append(Case(PREFIX + what, OURS, ours))
            cases.append(Case(PREFIX + what, LLAMA_CPP, peer.runner(LLAMA_CPP, prompts=prompts, tokens=most)))
    times, rows = raced(cases, options.rounds, options)
    peer.drop([LLAMA_CPP])
    note_rates(rows, times, PREFIX, tokens)
    return SuiteResult(rows, ratios(times))


def make_agreed(subject: Subject, peer: Peer, mixes: tuple[Mix, ...], tokens: int, folder: Path) -> None:
    """Makes llama.cpp load the decoder and a LoRA, and compares logits without the LoRA."""
    probe = prompts_of(subject, 1)[0]
    spec: dict[str, Any] = {"files": llama_files(subject, folder), "rows": [mix.rows for mix in mixes]}
    facts = peer.make(LLAMA_CPP, "llama.cpp generation", **spec, length=PROMPT + tokens, probe=probe)
    theirs, ids = np.array(facts["logits"]), jnp.asarray([probe], jnp.int32)
    ours = np.asarray(jax.jit(subject.model.apply)(subject.base, ids, jnp.ones_like(ids)), np.float32)
    check_logits(subject.name, ours[0, -1, : len(theirs)], theirs, AGREE)


def ratios(times: dict[Key, dict[int, float]]) -> dict[str, float]:
    """Ours to llama.cpp's, for all tokens but the first, and for the first."""
    found = {}
    for case, system in times:
        name = case.removeprefix(PREFIX)
        if system == OURS and not name.startswith(FIRST):
            own, theirs = (decoding(times, PREFIX, name, each) for each in (OURS, LLAMA_CPP))
            found[f"{case}, ours / llama.cpp"] = ratio(own, theirs)
            first = f"{PREFIX}{FIRST}, {name}"
            found[f"{case}, first token, ours / llama.cpp"] = ratio(times[first, OURS], times[first, LLAMA_CPP])
    return found

"""The names of the tensors in a PEFT file: which belong to a pair, and which stay as they are."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from share_jax.errors import FormatError, message
from share_jax.formats.expressions import matching, saved_expression
from share_jax.formats.other_kinds import kind_of
from share_jax.storage.untrusted import shown

PREFIX = "base_model.model."

SAME_NAMES = 8192
"""Names that are remembered with what they are: the adapters of a folder mostly have the same."""

_OWN = re.compile(
    r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)((?:\.[^.]+){0,2})", re.DOTALL
)
_FOREIGN = re.compile(
    r"(?:hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|oft_[rR]|boft_[Rs]|hra_u|ia3_l|prompt_embeddings|lora_E"
    r"|vera_(?:lambda_[bd]|[AB])|randlora_(?:lambda|gamma|[AB])|fourierft_spectrum)"
)
"""Whole names of parameters of other methods."""
TRAINING = "lora_velora_embed"
"""A buffer of training alone, which PEFT loads or not."""
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of a name that torch.compile, FSDP and checkpointing of activations put in."""


@dataclass(frozen=True)
class PeftKeys:
    """The tensors of a file by what they are."""

    pairs: Mapping[str, tuple[str, str]]  # module -> names of A and B
    embeddings: frozenset[str]  # modules whose pair is an embedding's
    biases: Mapping[str, str]  # module -> name of lora_B's bias
    magnitudes: Mapping[str, str]  # module -> name of DoRA's magnitude vector
    extras: Mapping[
        str, str
    ]  # what stays as it is, biases and magnitudes too: name to keep it under -> name in the file


@dataclass(frozen=True)
class _Part:
    module: str
    role: str  # "A", "B", "bias" or "magnitude"
    embedding: bool
    adapter: str | None  # its name, where the key holds it
    plain: str  # the name without the adapter's


@lru_cache(SAME_NAMES)
def unwrapped(name: str) -> str:
    """The name without what wrappers of the model put into it, PEFT's own prefix of a model wrapped twice among them.

    >>> unwrapped("_orig_mod.model.layers.0.q_proj")
    'model.layers.0.q_proj'
    >>> unwrapped("module.base_model.model.q_proj.lora_A.weight")
    'base_model.model.q_proj.lora_A.weight'
    >>> unwrapped("base_model.model.base_model.model.q_proj.lora_A.weight")
    'base_model.model.q_proj.lora_A.weight'
    """
    wrapped = any(part in name for part in _WRAPPERS)
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS) if wrapped else name
    plain = plain.removeprefix("module.") if plain.startswith(f"module.{PREFIX}") else plain
    while plain.startswith(2 * PREFIX):
        plain = plain.removeprefix(PREFIX)
    return plain


def sort_keys(names: Iterable[str], label: str, saved: Iterable[str] = ()) -> PeftKeys:
    """What each of a file's tensors is.

    Args:
        names: of the tensors.
        label: for messages.
        saved: entries of `modules_to_save`: what lies in those modules stays as it is, whatever its name.

    Raises:
        FormatError: a kind that is not supported, a half of a pair, a module named twice, or no pair at all.
    """
    found: dict[str, dict[str, _Part]] = {}
    keys: dict[str, dict[str, str]] = {}
    extras: dict[str, str] = {}
    adapters = {}
    plain = {key: unwrapped(key) for key in names}
    within = {key: name.removeprefix(PREFIX) for key, name in plain.items()}
    each = [saved_expression(name) for name in saved]
    whole = frozenset[str]().union(*matching(each, sorted(set(within.values()))))
    for key, kept in plain.items():
        part = None if within[key] in whole else _part_of(kept)
        if part is None:
            if kept in extras:
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got="a name twice", expected="each tensor once",
                         fix="save the adapter again")
                )  # fmt: skip
            if within[key] not in whole and _is_foreign(key, within):
                kind = kind_of(key)
                got = "a kind that is not supported" if kind is None else f"{kind}, which is no low-rank pair"
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got=got, fix="leave it out of the adapter",
                         expected="lora_A and lora_B, and what belongs to them")
                )  # fmt: skip
            extras[kept] = key
            continue
        adapters[part.adapter] = key
        if not part.module.isprintable() or part.role in found.setdefault(part.module, {}):
            raise FormatError(
                message(f"{label} tensor {shown(key)}", got="a module named twice or unprintably",
                     expected="one pair per module", fix="save the adapter again")
            )  # fmt: skip
        found[part.module][part.role] = part
        keys.setdefault(part.module, {})[part.role] = key
        if part.role not in "AB":
            extras[part.plain] = key
    if not found:
        raise FormatError(
            message(label, got="no lora_A and lora_B tensors", expected="at least one pair", fix="check the file")
        )
    if len(adapters) > 1:
        raise FormatError(
            message(label, got=f"tensors of several adapters, as {shown(', '.join(adapters.values()), 120)}",
                 expected="those of one", fix="save each adapter in its own folder")
        )  # fmt: skip
    for module, parts in found.items():
        if "A" not in parts or "B" not in parts or parts["A"].embedding != parts["B"].embedding:
            raise FormatError(
                message(f"{label} {shown(module)}", got=f"{shown(', '.join(keys[module].values()))} alone",
                     expected="lora_A and lora_B", fix="save the adapter again")
            )  # fmt: skip
    return PeftKeys(
        {module: (each["A"], each["B"]) for module, each in keys.items()},
        frozenset(module for module, parts in found.items() if parts["A"].embedding),
        {module: each["bias"] for module, each in keys.items() if "bias" in each},
        {module: each["magnitude"] for module, each in keys.items() if "magnitude" in each},
        extras,
    )


def _is_foreign(key: str, within: Mapping[str, str]) -> bool:
    """Whether the tensor is a parameter of another method, or an unknown one of a module that has a pair."""
    parts = key.split(".")[-3:]
    if any(_FOREIGN.fullmatch(part) for part in parts):
        return True
    own = next((part for part in parts if part.startswith("lora_")), None)
    if own is None or own == TRAINING:
        return False
    module = f"{within[key].rpartition(f'.{own}')[0]}.lora_"
    return any(name != within[key] and name.startswith(module) for name in within.values())


@lru_cache(SAME_NAMES)
def _part_of(key: str) -> _Part | None:
    match = _OWN.fullmatch(key)
    if match is None:
        return None
    module, what, rest = match[1].removeprefix(PREFIX), match[2], match[3].split(".")[1:]
    last = rest.pop() if rest and rest[-1] in ("weight", "bias") else None
    if len(rest) > 1:
        return None
    stem, adapter = f"{match[1]}.{what}", rest[0] if rest else None
    if adapter == "default":
        adapter = None
    plain = stem if last is None else f"{stem}.{last}"
    if what == "lora_magnitude_vector" and last != "bias":
        return _Part(module, "magnitude", False, adapter, plain)
    if what.startswith("lora_embedding_"):
        return _Part(module, what[-1], True, adapter, plain) if last is None else None
    if last == "bias":
        return _Part(module, "bias", False, adapter, plain) if what == "lora_B" else None
    return _Part(module, what[-1], False, adapter, plain) if last == "weight" else None


def pair_names(module: str, embedding: bool) -> tuple[str, str]:
    """The names under which PEFT keeps a module's A and B.

    >>> pair_names("embed_tokens", True)[0], pair_names("q_proj", False)[1]
    ('base_model.model.embed_tokens.lora_embedding_A', 'base_model.model.q_proj.lora_B.weight')
    """
    if embedding:
        return f"{PREFIX}{module}.lora_embedding_A", f"{PREFIX}{module}.lora_embedding_B"
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"

"""The names of a LoRA pair's tensors, as the tools of image models write them, one grammar for all of them.

A name is a module's, then what the tensor is of its pair: `.lora_A.weight`, `.lora.down.weight`, `.lora_down.weight`
and their like are A; one file may mix them. What belongs to other decompositions is refused by the name of its kind.

Source: diffusers `utils/state_dict_utils.py`; sd-scripts `networks/lora.py`; ComfyUI `comfy/weight_adapter`; LyCORIS.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from share_jax.errors import FormatError, message
from share_jax.formats.other_kinds import kind_of
from share_jax.formats.pairs import Pair, Place, number_in
from share_jax.formats.tensor_files import open_tensors
from share_jax.storage.untrusted import shown

_ENDS = {
    "a": (".lora_A.weight", ".lora_A.default.weight", ".lora_A", ".lora_down.weight", ".lora.down.weight",
          ".lora_linear_layer.down.weight", "_lora.down.weight", ".lora_embedding_A"),
    "b": (".lora_B.weight", ".lora_B.default.weight", ".lora_B", ".lora_up.weight", ".lora.up.weight",
          ".lora_linear_layer.up.weight", "_lora.up.weight", ".lora_embedding_B"),
    "middle": (".lora_mid.weight",),
    "alpha_key": (".alpha",),
    "magnitude": (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight"),
    "bias": (".lora_B.bias", ".lora.up.bias", ".lora_up.bias"),
}  # fmt: skip
"""What a tensor is of its pair, a field of `Pair` -> the ends of its name."""

_ORDER = sorted(((end, role) for role, ends in _ENDS.items() for end in ends), key=lambda each: -len(each[0]))


def role_of(key: str) -> tuple[str, str] | None:
    """(the module, as the file names it; the field of `Pair`), or None where the name has no such end.

    >>> role_of("unet.mid.to_q.lora.down.weight"), role_of("lora_te_x.alpha")
    (('unet.mid.to_q', 'a'), ('lora_te_x', 'alpha_key'))
    """
    for end, role in _ORDER:
        if key.endswith(end) and len(key) > len(end):
            return key[: -len(end)], role
    return None


def has_pairs(names: Iterable[str]) -> bool:
    """Whether some of the names are those of pairs, or of LyCORIS."""
    return any(role_of(name) is not None or kind_of(name) is not None for name in names)


def read_pairs(place: Place, module_of: Callable[[str], str], *, zero_is_rank: bool = False) -> dict[str, Pair]:
    """The pairs of a file by module, each with its alpha.

    Args:
        place: the file.
        module_of: the module for a name of the file without its end; may raise a `FormatError`.
        zero_is_rank: whether an alpha of 0 stands for the rank, as sd-scripts and LyCORIS have it.

    Raises:
        FormatError: a tensor is of another kind, a pair is half, or two names stand for one module.
    """
    label = place.label
    found: dict[str, dict[str, Any]] = {}
    with open_tensors(place.folder, place.name) as file:
        for key in file.tensors:
            role = role_of(key)
            if role is None:
                kind = kind_of(key)
                of = " of LyCORIS" if kind in ("LoHa", "LoKr") else ""
                got = "a kind that is not known" if kind is None else f"{kind}{of}, which is no low-rank pair"
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got=got, expected="the parts of LoRA pairs",
                         fix="leave it out of the adapter, or merge it into the base model")
                )  # fmt: skip
            parts = found.setdefault(role[0], {})
            if role[1] in parts:
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got=f"the same as {shown(parts[role[1]])}",
                         expected="one of the two", fix="save the adapter again")
                )  # fmt: skip
            parts[role[1]] = key
        alphas = {
            name: number_in(file, parts["alpha_key"], label) for name, parts in found.items() if "alpha_key" in parts
        }
    out: dict[str, Pair] = {}
    for name, parts in found.items():
        if not {"a", "b"} <= set(parts):
            raise FormatError(
                message(f"{label} {shown(name)}", got=f"{', '.join(map(shown, parts.values()))} alone",
                     expected="both factors of a pair", fix="save the adapter again")
            )  # fmt: skip
        module = module_of(name)
        if module in out:
            raise FormatError(
                message(f"{label} {shown(name)}", got=f"a second name of {shown(module)}", expected="one",
                     fix="save the adapter again")
            )  # fmt: skip
        embedding = ".lora_embedding_" in parts["a"]
        out[module] = Pair(**parts, embedding=embedding)
        if name in alphas and not (zero_is_rank and alphas[name] == 0):
            out[module] = replace(out[module], alpha=alphas[name])
    return out

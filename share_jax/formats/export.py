"""Writing a task, or a merge of tasks, as a PEFT folder that PEFT and vLLM load."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.errors import InputError, message
from share_jax.formats.pair_layouts import expert_of
from share_jax.formats.peft import write_adapter
from share_jax.formats.peft_config import LoraSettings, owner_of, parse_config
from share_jax.formats.peft_keys import PREFIX
from share_jax.formats.peft_modules import (
    exact_expression,
    fitting_config,
    rules_for,
    saved_whole,
    targeting,
    which_modules,
    with_owners_rank,
)
from share_jax.storage.safetensors_file import RawTensor, raw_of
from share_jax.storage.untrusted import shown

_KEYS = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
_HEAD_KEYS = ("modules_to_save", "bias", "task_type", "trainable_token_indices")
_EMPTY = {"modules_to_save": None, "bias": "none", "trainable_token_indices": None}
"""What a configuration says of tensors beside the factors where there are none."""


SCALES = 2.0**16
"""A scale above it, or below its inverse, is not divided out of factors: half precision would not hold them."""


def export_adapter(
    folder: Path,
    adapter: Adapter,
    config: Mapping[str, Any],
    extras: Mapping[str, RawTensor],
    metadata: Mapping[str, str],
    dtype: str,
    forms: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes the adapter into an existing folder and returns the configuration that was written.

    When every rank is the one that the configuration gives, the configuration is written as it is. Its scale is then
    divided out of the factors, if it is neither 0 nor extreme (`SCALES`). Otherwise rank and alpha are rewritten so
    that the scale is 1 for every module: vLLM, which knows no patterns, then scales rightly too. PEFT scales a bias of
    lora_B as it scales the update, so such a bias is divided likewise.

    Args:
        folder: an existing one, without an adapter.
        adapter: factors by module name.
        config: what `adapter_config.json` is to hold, with "r" and "lora_alpha".
        extras: tensors beside the factors, by their names in the file.
        metadata: of the safetensors file.
        dtype: of the factors: "f32", "bf16" or "f16".
        forms: how a pair lies in the file, by module name, where it is not as two matrices; see `pair_layouts`.

    Example:
        >>> from share_jax.formats import open_adapter
        >>> Path("mine").mkdir()
        >>> adapter = {"layers.0.q_proj": Factors(np.ones((6, 2)), np.ones((2, 4)), scale=2.0)}
        >>> config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
        >>> written = export_adapter(Path("mine"), adapter, config, extras={}, metadata={}, dtype="f32")
        >>> open_adapter("mine").layers["layers.0.q_proj"].scale
        2.0
    """
    forms = forms or {}
    adapter = with_owners_rank(adapter)
    if any(expert_of(form) for form in forms.values()):
        adapter = padded_to(adapter, max(factors.rank for factors in adapter.values()))
    config = fitting_config(config, adapter)
    settings = old = parse_config(config, "adapter").of_modules(adapter)
    ranks = {module: factors.rank for module, factors in adapter.items()}
    if not _fits(settings, ranks):
        config.update(_plain(ranks))
        settings = parse_config(config, "adapter").of_modules(adapter)
    pairs = {}
    for module, factors in adapter.items():
        ratio = float(factors.scale) / settings.scale_of(module)
        half = np.float32(abs(ratio) ** 0.5)
        lora_a, lora_b = np.asarray(factors.lora_a, np.float32), np.asarray(factors.lora_b, np.float32)
        pairs[module] = (lora_a * half, lora_b * np.copysign(half, np.float32(ratio)))
    if settings.lora_bias:
        extras = {key: _rescaled(key, raw, old, settings) for key, raw in extras.items()}
    write_adapter(folder, config, pairs, extras, metadata, dtype, forms)
    return config


def padded_to(adapter: Adapter, rank: int) -> dict[str, Factors]:
    """Every pair with columns of zeros up to a common rank: the parameters of experts have no patterns of ranks."""
    out = {}
    for name, factors in adapter.items():
        more = ((0, 0), (0, rank - factors.rank))
        out[name] = Factors(np.pad(factors.lora_a, more), np.pad(factors.lora_b, more[::-1]), factors.scale)
    return out


def check_mergeable(config: Mapping[str, Any], what: str) -> None:
    """Refuses a task whose update is more than its pairs.

    Raises:
        InputError: it has magnitudes (DoRA), biases of lora_B, or experts.
    """
    for key in ("use_dora", "lora_bias", "target_parameters"):
        if config.get(key):
            raise InputError(
                message(f"merge of {what}", got=f"an adapter with {key}", expected="its pairs alone",
                     fix="leave it out of the merge")
            )  # fmt: skip


def _rescaled(key: str, raw: RawTensor, old: LoraSettings, new: LoraSettings) -> RawTensor:
    if not key.endswith(".lora_B.bias"):
        return raw
    module = key.removesuffix(".lora_B.bias").removeprefix(PREFIX)
    ratio = old.scale_of(module) / new.scale_of(module)
    return raw if ratio == 1 else raw_of(np.asarray(raw.array(), np.float32) * np.float32(ratio))


def _fits(settings: LoraSettings, ranks: Mapping[str, int]) -> bool:
    plain = not settings.rank_rules and not settings.alpha_rules
    divides = all(1 / SCALES <= abs(settings.scale_of(module)) <= SCALES for module in ranks)
    return plain and divides and all(rank == settings.rank for rank in ranks.values())


def _plain(ranks: Mapping[str, int]) -> dict[str, Any]:
    common = Counter(ranks.values()).most_common(1)[0][0]
    other = rules_for({owner_of(module): rank for module, rank in ranks.items()}, common)
    return dict(zip(_KEYS, (common, common, False, other, other), strict=True))


def new_config(adapter: Mapping[str, Any], saved: Sequence[str], base_model: str | None) -> dict[str, Any]:
    """The configuration of an adapter that no file had yet; its scales are the adapter's, exactly.

    Args:
        adapter: factors, or layers of a file, by module name.
        saved: modules whose own parameters lie beside the factors.
        base_model: its name.
    """
    ranks = {module: factors.rank for module, factors in adapter.items()}
    alphas = {module: exact_alpha(factors) for module, factors in adapter.items()}
    rank, alpha = (Counter(x.values()).most_common(1)[0][0] if x else 1 for x in (ranks, alphas))
    targets = sorted(adapter) if all("." in module for module in adapter) else exact_expression(adapter)
    return {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base_model, "inference_mode": True,
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "use_rslora": False, "use_dora": False,
        "fan_in_fan_out": False, "init_lora_weights": True, "target_modules": targets,
        "modules_to_save": list(saved) or None, "rank_pattern": rules_for(ranks, rank),
        "alpha_pattern": rules_for(alphas, alpha),
    }  # fmt: skip


def exact_alpha(pair: Any) -> int | float:
    """The alpha of a pair: the one that its file gives, else the one that follows from its scale."""
    alpha = getattr(pair, "alpha", None)
    if alpha is None or alpha / pair.rank != pair.scale:
        return alpha_of(float(pair.scale), pair.rank)
    return int(alpha) if alpha == int(alpha) else float(alpha)


def alpha_of(scale: float, rank: int) -> int | float:
    """The alpha with which `alpha / rank` is the scale, to the bit where a number is; a whole one as an int.

    >>> alpha_of(8 / 3, 3), alpha_of(0.125, 4)
    (8, 0.5)
    """
    near = scale * rank
    exact = [
        x for x in (round(near), near, math.nextafter(near, 0), math.nextafter(near, math.inf)) if x / rank == scale
    ]
    alpha = exact[0] if exact else near
    return int(alpha) if alpha == int(alpha) else float(alpha)


def merged_config(
    configs: Mapping[str, Mapping[str, Any]], adapter: Adapter, heads: str | None = None
) -> dict[str, Any]:
    """The first task's configuration, under which PEFT creates exactly the modules of the merged adapter.

    What says which tensors lie beside the factors comes from one task's configuration, or is left out.

    Args:
        configs: of the tasks that were merged, by their names.
        adapter: their merge.
        heads: the task whose uncompressed tensors are written with it.

    Raises:
        InputError: that task holds a module whole on which another has a pair.
    """
    first, *others = configs.values()
    said = first if heads is None else configs[heads]
    config = {key: value for key, value in first.items() if key not in _HEAD_KEYS}
    config.update({key: said[key] for key in _HEAD_KEYS if key in said})
    if heads is None:
        config.update({key: value for key, value in _EMPTY.items() if config.get(key)})
    if heads is not None and (both := sorted(saved_whole(said, adapter))):
        raise InputError(
            message(f"merge, module {shown(both[0])}", got=f"saved whole by {shown(heads)}, adapted by another task",
                 expected="one of the two", fix=f"merge without {shown(heads)}, or take the heads of another task")
        )  # fmt: skip
    alike = all(which_modules(other) == which_modules(first) for other in others)
    return fitting_config(config, adapter) if alike else targeting(config, adapter)

"""A task with other names for its modules, or made of several: read from the same files."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from share_jax.formats.adapter_file import Part, Source
from share_jax.formats.export import new_config
from share_jax.formats.peft_keys import PREFIX
from share_jax.storage.safetensors_file import RawTensor
from share_jax.storage.untrusted import shown


def renamed(source: Source, names: Mapping[str, str]) -> Source:
    """The modules that `names` has, each by its new name; the others are left out.

    Args:
        source: the task; what lies beside its pairs must belong to them.
        names: new name by old name, each once.
    """
    old = {new: module for module, new in names.items()}
    layers = {new: source.layers[module] for module, new in names.items()}
    kept = {
        name: f"{PREFIX}{names[part.module]}{name.removeprefix(PREFIX)[len(part.module) :]}"
        for name, part in source.companions.items()
        if part.module in names
    }

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        wanted = [new for new in (layers if chosen is None else chosen) if new in layers]
        read = source.read_factors(tuple(old[new] for new in wanted))
        return {new: read[old[new]] for new in wanted}

    def read_extras() -> dict[str, RawTensor]:
        return {kept[name]: raw for name, raw in source.read_extras().items() if name in kept}

    config = {
        **new_config(layers, (), source.base_model),
        "use_dora": bool(source.config.get("use_dora")),
        "lora_bias": bool(source.config.get("lora_bias")),
    }
    parts = {key: Part(part.role, names[part.module]) for key, part in source.parts.items() if part.module in names}
    return replace(
        source, config=config, layers=layers, extra_names=tuple(kept.values()), read_factors=read_factors,
        read_extras=read_extras, parts=parts,
    )  # fmt: skip


def joined(parts: Mapping[str, Source], name: str) -> Source:
    """One task of several components, each module's name with its component before it.

    Args:
        parts: the components' tasks; what lies beside their pairs must belong to them.
        name: the task's.
    """
    each = {
        component: renamed(source, {module: f"{component}.{module}" for module in source.layers})
        for component, source in parts.items()
    }
    layers = {module: layer for source in each.values() for module, layer in source.layers.items()}

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {module: pair for source in each.values() for module, pair in source.read_factors(chosen).items()}

    def read_extras() -> dict[str, RawTensor]:
        return {key: raw for source in each.values() for key, raw in source.read_extras().items()}

    first = next(iter(each.values()))
    config = dict(new_config(layers, (), first.base_model))
    for flag in ("use_dora", "lora_bias"):
        config[flag] = any(source.config[flag] for source in each.values())
    return replace(
        first, name=name, label=f"adapter {shown(name)}", config=config, layers=layers,
        extra_names=tuple(key for source in each.values() for key in source.extra_names),
        bytes_in=sum(source.bytes_in for source in each.values()), read_factors=read_factors, read_extras=read_extras,
        parts={f"{component}/{key}": part for component, source in each.items() for key, part in source.parts.items()},
    )  # fmt: skip

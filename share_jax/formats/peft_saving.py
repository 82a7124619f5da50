"""A task of any format as a PEFT folder, number for number: what `convert` writes."""

import json
from pathlib import Path

import numpy as np

from share_jax.formats import components
from share_jax.formats.adapter_file import Part, Source
from share_jax.formats.pair_layouts import EMBEDDING, LINEAR, expert_of, join_experts, module_of, tensors_of_factors
from share_jax.formats.peft import CONFIG, WEIGHTS
from share_jax.formats.peft_keys import PREFIX, pair_names
from share_jax.formats.peft_modules import fitting_config
from share_jax.formats.renamed import renamed
from share_jax.formats.saving import as_dtype, metadata_for
from share_jax.storage.atomic_write import write_new
from share_jax.storage.safetensors_file import RawTensor, raw_of, write_tensors


def save_peft(folder: Path, source: Source, dtype: str | None = None) -> dict[Part, str]:
    """Writes a task as a PEFT folder; returns what each of its parts has become.

    Of an image model each component has its own folder within: PEFT adapts one model at a time. A main model that is
    alone has none.

    Args:
        folder: an existing, empty folder.
        source: the task.
        dtype: of the factors; their own when None.

    Raises:
        InputError: a value does not fit the dtype.
    """
    found = {components.split(module)[0] for module in source.layers}
    if "" in found:
        return _save(folder, source, dtype)
    alone = len(found) == 1 and found <= set(components.MAIN)
    written = {}
    for component in sorted(found):
        inner = folder if alone else folder / component
        inner.mkdir(exist_ok=True)
        own = [module for module in source.layers if components.split(module)[0] == component]
        part = renamed(source, {module: components.split(module)[1] for module in own})
        place = "" if alone else f"{component}/"
        for each, name in _save(inner, part, dtype).items():
            written[Part(each.role, f"{component}.{each.module}")] = f"{place}{name}"
    return written


def _save(folder: Path, source: Source, dtype: str | None) -> dict[Part, str]:
    tensors: dict[str, RawTensor] = {}
    written: dict[Part, str] = {}
    experts: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}

    def put(module: str, form: str, a: np.ndarray, b: np.ndarray) -> None:
        for role, key, values in zip(("lora_a", "lora_b"), pair_names(module, form == EMBEDDING), (a, b), strict=True):
            tensors[key] = raw_of(np.ascontiguousarray(as_dtype(values, dtype, module)))
            written[Part(role, module)] = key
        written[Part("alpha", module)] = f"{CONFIG} lora_alpha or alpha_pattern"

    for layer, pair in source.read_factors(None).items():
        form = source.layers[layer].form
        expert = expert_of(form)
        if expert is None:
            put(layer, form, *tensors_of_factors(*pair, form))
        else:
            experts.setdefault(module_of(layer, form), {})[expert[0]] = pair
    for module, pairs in experts.items():
        put(module, LINEAR, *join_experts(pairs))
    companions = source.companions
    for kept, raw in source.extras().items():
        name = kept if kept.startswith(PREFIX) else PREFIX + kept  # PEFT leaves out what has none
        tensors[name] = raw
        written[companions.get(kept, Part("whole", kept))] = name
    write_tensors(folder / WEIGHTS, tensors, metadata_for(source, "pt"))
    config = fitting_config(source.config, source.layers)
    write_new(folder / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    return written

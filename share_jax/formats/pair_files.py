"""One file of pairs and numbers by module, as kohya's scripts and ComfyUI read it; they differ in names and alphas."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from share_jax.formats.adapter_file import Layer, Part, Source
from share_jax.formats.export import exact_alpha
from share_jax.formats.pair_layouts import EMBEDDING, expert_of, tensors_of_factors
from share_jax.formats.saving import as_dtype, metadata_for, refuse
from share_jax.storage.safetensors_file import RawTensor, raw_of, write_tensors
from share_jax.storage.untrusted import shown


@dataclass(frozen=True)
class PairNames:
    """How a tool names the tensors of its pairs.

    Attributes:
        tool: its name, for messages.
        down: behind a module's name, of A.
        up: the same of B.
        kind: what it writes as `format` into the metadata; None where it writes none.
    """

    tool: str
    down: str
    up: str
    kind: str | None


def save_pairs(
    folder: Path,
    source: Source,
    names: PairNames,
    modules: Mapping[str, str],
    alpha_of: Callable[[Layer, np.dtype], np.ndarray | None],
    dtype: str | None = None,
) -> dict[Part, str]:
    """Writes a task as one file, `NAME.safetensors`; returns what each of its parts has become.

    Args:
        folder: an existing, empty folder.
        source: the task.
        names: of the tensors.
        modules: the tool's name of every module.
        alpha_of: (layer, dtype of its A) to the tensor of its alpha; None where none is written.
        dtype: of the factors; their own when None.

    Raises:
        InputError: the format cannot hold it; the message says why.
    """
    twice = next((name for name, count in Counter(modules.values()).items() if count > 1), None)
    if twice is not None:
        raise refuse(source, names.tool, f"two modules that would both be {shown(twice)}", "one name for each")
    tensors: dict[str, RawTensor] = {}
    written: dict[Part, str] = {}

    def put(role: str, module: str, end: str, values: np.ndarray) -> None:
        key = written[Part(role, module)] = f"{modules[module]}.{end}"
        tensors[key] = raw_of(np.asarray(values, order="C"))

    for module, pair in source.read_factors(None).items():
        layer = source.layers[module]
        if expert_of(layer.form) or layer.form == EMBEDDING:
            raise refuse(source, names.tool, f"{layer.form} at {shown(module)}", "linear layers and convolutions")
        down, up = (as_dtype(values, dtype, module) for values in tensors_of_factors(*pair, layer.form))
        put("lora_a", module, names.down, down)
        put("lora_b", module, names.up, up)
        if (alpha := alpha_of(layer, down.dtype)) is not None:
            put("alpha", module, "alpha", alpha)
    for kept, raw in source.extras().items():
        part = source.companions.get(kept)
        if part is None or part.role != "magnitude":
            raise refuse(source, names.tool, f"tensor {shown(kept)}", "pairs and DoRA's magnitudes")
        layer = source.layers[part.module]
        axes = layer.form.count(",") if layer.form.startswith("conv") else 0
        put("magnitude", part.module, "dora_scale", raw.array().reshape(layer.d_out, *(1 for _ in range(1 + axes))))
    write_tensors(folder / f"{source.name}.safetensors", tensors, metadata_for(source, names.kind))
    return written


def alpha_tensor(layer: Layer, dtype: np.dtype) -> np.ndarray:
    """The alpha of a layer: a number in the dtype, or where that does not hold it exactly, in float32 or float64."""
    alpha = np.asarray(exact_alpha(layer), np.float64)
    with np.errstate(over="ignore"):
        each = [alpha.astype(kind) for kind in (dtype, np.dtype(np.float32))]
    return next((cast for cast in each if float(cast) == float(alpha)), alpha)

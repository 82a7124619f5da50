"""From the pairs that a file holds, whatever their names, to a task: what the readers of single files share."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats.adapter_file import Layer, Part, Source, check_shapes
from share_jax.formats.export import new_config
from share_jax.formats.lora_leaves import matrices
from share_jax.formats.pair_layouts import EMBEDDING, conv_form, factors_of_tensors, pair_shape
from share_jax.formats.peft_config import MOST
from share_jax.formats.peft_keys import PREFIX
from share_jax.formats.tensor_files import TENSOR_FILES, open_tensors
from share_jax.storage.safetensors_file import FLOATS, RawTensor, TensorInfo, raw_of
from share_jax.storage.untrusted import check_task_name, exists_inside, shown, task_name_of

NUMBERS = (*FLOATS, "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64")
"""Dtypes that one number may have."""
GENERIC = ("adapter_model", "adapters", "pytorch_lora_weights", "lora")
"""Names of files that say nothing of the task; its folder does."""


@dataclass(frozen=True)
class Pair:
    """The names of one module's tensors, and what is known of it.

    Attributes:
        a: name of A.
        b: name of B.
        alpha: the update is alpha / rank * B @ A; None where no alpha is known, and the scale is 1.
        scale: of the update, where the format gives that and no alpha.
        middle: the core of a Tucker decomposition between the two (`lora_mid`).
        magnitude: DoRA's.
        bias: of B.
        alpha_key: the tensor that holds alpha.
        flipped: whether A is stored as (in, r) and B as (r, out); both may have several axes in place of in and out.
        embedding: whether the module is one.
        index: (axis, place) where A and B hold the pairs of several layers along an axis.
    """

    a: str
    b: str
    alpha: float | None = None
    scale: float | None = None
    middle: str | None = None
    magnitude: str | None = None
    bias: str | None = None
    alpha_key: str | None = None
    flipped: bool = False
    embedding: bool = False
    index: tuple[int, int] | None = None


@dataclass(frozen=True)
class Place:
    """One file of tensors."""

    folder: Path
    name: str

    @property
    def label(self) -> str:
        """For messages."""
        return f"adapter {shown(self.task)}"

    @property
    def task(self) -> str:
        """The task's name: the file's, or its folder's where that says more."""
        stem = self.name.rpartition(".")[0]
        return task_name_of(self.folder) if stem in GENERIC else check_task_name(stem)


def place_of(path: str | os.PathLike, usual: tuple[str, ...] = ()) -> Place | None:
    """The file of tensors that a path stands for, or None.

    Args:
        path: the file itself, or a folder with a file of a usual name, or with one file of tensors alone.
        usual: names that are looked for first.
    """
    given = Path(path)
    if given.is_file():
        return Place(given.parent, given.name) if given.name.endswith(TENSOR_FILES) else None
    if not given.is_dir():
        return None
    for name in usual:
        if exists_inside(given, name):
            return Place(given, name)
    found = sorted(entry for entry in os.listdir(given) if entry.endswith(TENSOR_FILES))
    return Place(given, found[0]) if len(found) == 1 else None


def names_in(place: Place | None) -> tuple[str, ...]:
    """The names of a file's tensors; none where the file is missing, damaged or something else."""
    if place is None:
        return ()
    try:
        with open_tensors(place.folder, place.name) as file:
            return tuple(file.tensors)
    except FormatError:
        return ()


def source_of_pairs(place: Place, pairs: Mapping[str, Pair], base_model: str | None = None) -> Source:
    """The task of a file.

    Args:
        place: the file.
        pairs: by module; every tensor of the file must be in one of them.
        base_model: the name of the model that it adapts, where the format gives one.

    Raises:
        FormatError: a tensor is in no pair, has another shape than its part, or is no float.
        TaskError: the name is not safe.
    """
    label = place.label
    with open_tensors(place.folder, place.name) as file:
        infos, size, metadata = dict(file.tensors), file.size, dict(file.metadata)
    parts = _parts_of(pairs)
    stray = next((key for key in infos if key not in parts), None)
    if stray is not None or not pairs:
        got = "no pair" if stray is None else f"tensor {shown(stray)}"
        raise FormatError(message(label, got=got, expected="pairs, and what belongs to them", fix="check the file"))
    layers = {module: _layer_of(module, pair, infos, label) for module, pair in pairs.items()}
    companions = {
        f"{PREFIX}{module}.{end}": key
        for module, pair in pairs.items()
        for end, key in (("lora_magnitude_vector", pair.magnitude), ("lora_B.bias", pair.bias))
        if key is not None
    }

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        names = [module for module in (layers if chosen is None else chosen) if module in layers]
        out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        keys, read = [], {}
        with open_tensors(place.folder, place.name) as file:
            for module in names:
                if _factor_keys(pairs[module]) != keys:  # the layers of a stack have the same
                    keys = _factor_keys(pairs[module])
                    read = file.read_many(keys)
                out[module] = _factors_of(pairs[module], read)
        return out

    def read_extras() -> dict[str, RawTensor]:
        with open_tensors(place.folder, place.name) as file:
            return {kept: _companion(file.raw(key), kept, layers) for kept, key in companions.items()}

    config = new_config(layers, (), base_model)
    config.update(use_dora=any(pair.magnitude for pair in pairs.values()))
    config.update(lora_bias=any(pair.bias for pair in pairs.values()))
    _check_all_or_none(pairs, label)
    return Source(
        place.task, label, base_model, config, layers, metadata, tuple(companions), size, read_factors, read_extras,
        parts,
    )  # fmt: skip


def number_in(file: object, key: str, label: str) -> float:
    """The one number in a tensor, such as alpha, whatever its dtype and number of axes.

    Raises:
        FormatError: it holds none or several, or one that is no finite number.
    """
    info = file.info(key)  # type: ignore[attr-defined]
    got = f"{info.dtype} {info.shape}"
    if math.prod(info.shape) == 1 and info.dtype in NUMBERS:
        value = float(file.raw(key).array().reshape(()))  # type: ignore[attr-defined]
        if abs(value) < MOST:
            return value
        got = f"{value:g}"
    raise FormatError(
        message(f"{label} tensor {shown(key)}", got=got, expected=f"one number below {MOST:g}",
             fix="save the adapter again")
    )  # fmt: skip


def _parts_of(pairs: Mapping[str, Pair]) -> dict[str, Part]:
    out = {}
    for module, pair in pairs.items():
        for role, key in (("lora_a", pair.a), ("lora_b", pair.b), ("middle", pair.middle), ("bias", pair.bias),
                          ("magnitude", pair.magnitude), ("alpha", pair.alpha_key)):  # fmt: skip
            if key is not None:
                out.setdefault(key, Part(role, module))  # of a stack, its first layer's
    return out


def _check_all_or_none(pairs: Mapping[str, Pair], label: str) -> None:
    for what in ("magnitude", "bias"):
        having = [module for module, pair in pairs.items() if getattr(pair, what) is not None]
        if having and len(having) != len(pairs):
            without = next(module for module in pairs if module not in having)
            raise FormatError(
                message(label, got=f"a {what} for {shown(having[0])} and none for {shown(without)}",
                     expected="one for every module or for none", fix="save two adapters, one of either kind")
            )  # fmt: skip


def _factor_keys(pair: Pair) -> list[str]:
    return [pair.a, pair.b] if pair.middle is None else [pair.a, pair.b, pair.middle]


def _factors_of(pair: Pair, read: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    a, b = read[pair.a], read[pair.b]
    if pair.flipped:
        return matrices(a, b, pair.index)
    if pair.middle is not None:
        a = _with_middle(a, read[pair.middle])
    return factors_of_tensors(a, b)


def _with_middle(a: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """A (r, in, kh, kw) of a pointwise A (r, in, 1, 1) followed by a core (r, r, kh, kw).

    Source: LyCORIS, the Tucker decomposition of LoCon: up x mid x down.
    """
    core = np.asarray(middle, np.float32)
    flat = np.asarray(a, np.float32).reshape(a.shape[0], -1)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinity is refused, as of any file
        return np.einsum("rskl,si->rikl", core, flat, optimize=True)


def _layer_of(module: str, pair: Pair, infos: Mapping[str, TensorInfo], label: str) -> Layer:
    where = f"{label} {shown(module)}"
    if not module.isprintable():
        raise FormatError(message(where, got="an unprintable name", expected="a module", fix="save the adapter again"))
    for key in _factor_keys(pair):
        if infos[key].dtype not in FLOATS:
            raise FormatError(message(where, got=infos[key].dtype, expected="a float dtype", fix="convert it"))
    shape_a, shape_b = infos[pair.a].shape, infos[pair.b].shape
    if pair.index is not None:
        axis = pair.index[0]
        shape_a, shape_b = (x[:axis] + x[axis + 1 :] for x in (shape_a, shape_b))
    if pair.flipped:
        shape_a = shape_a[::-1] if len(shape_a) <= 2 else (shape_a[-1], math.prod(shape_a[:-1]))
        shape_b = shape_b[::-1] if len(shape_b) <= 2 else (math.prod(shape_b[1:]), shape_b[0])
    if pair.middle is not None:
        core = infos[pair.middle].shape
        if len(core) != 4 or len(shape_a) != 4 or core[:2] != (shape_a[0],) * 2 or shape_a[2:] != (1, 1):
            raise FormatError(
                message(where, got=f"lora_mid {core} with {shape_a}", expected="(r, r, kh, kw) with (r, in, 1, 1)",
                     fix="save the adapter again")
            )  # fmt: skip
        shape_a = (shape_a[0], shape_a[1], *core[2:])
    form, of_a, of_b = pair_shape(where, shape_a, shape_b, pair.embedding)
    d_in, d_out, rank = check_shapes(where, of_a, of_b, None)
    scale = pair.scale if pair.scale is not None else 1.0 if pair.alpha is None else pair.alpha / rank
    alpha = pair.alpha if pair.scale is None else None
    if pair.magnitude is not None and not _is_of_outputs(pair.magnitude, infos[pair.magnitude].shape, d_out):
        raise FormatError(
            message(f"{where} magnitude", got=f"shape {infos[pair.magnitude].shape}", expected=f"{d_out} numbers, one "
                 "for each output", fix="a magnitude for each input cannot be held: merge it into the base model")
        )  # fmt: skip
    if pair.bias is not None and infos[pair.bias].shape != (d_out,):
        raise FormatError(message(f"{where} bias", got=infos[pair.bias].shape, expected=(d_out,), fix="save it again"))
    if not pair.embedding or form == EMBEDDING:
        return Layer(d_in, d_out, rank, scale, infos[pair.a].dtype, form, alpha)
    raise FormatError(message(where, got=conv_form(shape_a), expected="an embedding", fix="save the adapter again"))


def _is_of_outputs(key: str, shape: tuple[int, ...], d_out: int) -> bool:
    """Whether a magnitude has a number for each output, and not for each input of a square layer.

    LyCORIS says it by the axis: (out, 1) or (1, in), with two more of a convolution. PEFT has (out,), of a convolution
    (1, out, 1, 1).
    """
    of_peft = "lora_magnitude_vector" in key and len(shape) > 2
    return math.prod(shape) == d_out and (1 if not shape else shape[1 if of_peft else 0]) == d_out


def _companion(raw: RawTensor, kept: str, layers: Mapping[str, Layer]) -> RawTensor:
    """A magnitude in PEFT's shape: (out,), or (1, out, 1, 1) for a convolution; others as they are."""
    if not kept.endswith(".lora_magnitude_vector"):
        return raw
    layer = layers[kept.removesuffix(".lora_magnitude_vector").removeprefix(PREFIX)]
    axes = layer.form.count(",")
    shape = (1, layer.d_out, *(1 for _ in range(axes))) if axes else (layer.d_out,)
    return raw_of(raw.array().reshape(shape))

"""One task as any reader hands it over: factors on demand, and what is kept beside them uncompressed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from share_jax.adapters.factors import Factors
from share_jax.errors import FormatError, InputError, message
from share_jax.formats.pair_layouts import LINEAR
from share_jax.formats.peft_keys import PREFIX
from share_jax.linalg.finite import all_finite
from share_jax.storage.safetensors_file import RawTensor
from share_jax.storage.untrusted import shown


@dataclass(frozen=True)
class Layer:
    """One target as its file and configuration describe it.

    Example:
        >>> from share_jax.formats import open_adapter
        >>> layer = open_adapter("cola").layers["model.layers.0.self_attn.q_proj"]
        >>> layer.d_in, layer.d_out, layer.rank, layer.scale
        (24, 20, 4, 2.0)
    """

    d_in: int
    d_out: int
    rank: int
    scale: float  # the update is scale * lora_a @ lora_b
    dtype: str  # of the stored factors, as BF16
    form: str = LINEAR  # how the pair lies in files; see `pair_layouts`
    alpha: float | None = None  # as the file gives it, where the scale is alpha / rank


@dataclass(frozen=True)
class Part:
    """What a tensor of a file is."""

    role: str  # "lora_a", "lora_b", "middle", "alpha", "magnitude", "bias", or "whole" for what stays as it is
    module: str


@dataclass(frozen=True)
class Source:
    """A task that can be compressed. Nothing is held in memory: each call reads the files again.

    Example:
        >>> from share_jax.formats import open_adapter
        >>> source = open_adapter("cola")  # no values are read yet
        >>> source.name, source.base_model, len(source.layers)
        ('cola', 'acme/tiny', 4)
        >>> source.adapter(("model.layers.0.self_attn.q_proj",))["model.layers.0.self_attn.q_proj"].shape
        (24, 20)
    """

    name: str
    label: str  # for messages
    base_model: str | None
    config: Mapping[str, Any]  # adapter_config.json, whole
    layers: Mapping[str, Layer]  # by module name
    metadata: Mapping[str, str]  # of the safetensors file
    extra_names: tuple[str, ...]  # tensors that stay as they are: heads, biases
    bytes_in: int  # of the files that hold the adapter
    read_factors: Callable[[tuple[str, ...] | None], dict[str, tuple[np.ndarray, np.ndarray]]]
    # module -> ((d_in, r), (r, d_out)), of all modules or of some
    read_extras: Callable[[], dict[str, RawTensor]]
    parts: Mapping[str, Part] = field(default_factory=dict)  # what each tensor of the file is, by its name

    @property
    def forms(self) -> dict[str, str]:
        """How the pairs lie in files, of the layers whose pair is none of two matrices; see `pair_layouts`."""
        return {name: layer.form for name, layer in self.layers.items() if layer.form != LINEAR}

    @property
    def companions(self) -> dict[str, Part]:
        """What those of `extra_names` are that belong to a pair: magnitudes and biases."""
        ends = {
            "lora_magnitude_vector": "magnitude",
            "lora_magnitude_vector.weight": "magnitude",
            "lora_B.bias": "bias",
        }
        out = {}
        for name in self.extra_names:
            for end, role in ends.items():
                module = name.removeprefix(PREFIX).removesuffix(f".{end}")
                if name.endswith(f".{end}") and module in self.layers:
                    out[name] = Part(role, module)
        return out

    def adapter(self, modules: tuple[str, ...] | None = None) -> "dict[str, Factors]":
        """The factors of the given modules, or of all, with their scales.

        Raises:
            FormatError: a value is NaN or infinite, or the file is damaged.
        """
        out = {}
        for module, (lora_a, lora_b) in self.read_factors(modules).items():
            try:
                out[module] = Factors(lora_a, lora_b, self.layers[module].scale)
            except InputError:  # which knows nothing of the file
                for side, values in (("lora_A", lora_a), ("lora_B", lora_b)):
                    check_finite(values, f"{self.label} {shown(module)}.{side}")
                raise
        return out

    def extras(self) -> dict[str, RawTensor]:
        """The tensors that stay as they are.

        Raises:
            FormatError: a value is NaN, a weight or bias is infinite upwards, or the file is damaged. Other infinities
                are data: a saved mask holds them.
        """
        extras = self.read_extras()
        for name, raw in extras.items():
            if raw.dtype in ("F64", "F32", "F16", "BF16"):
                values = np.asarray(raw.array(), np.float32)
                learnt = name.rpartition(".")[2] in ("weight", "bias")
                data = np.isneginf(values) if learnt else np.isinf(values)
                check_finite(np.where(data, 0, values), f"{self.label} tensor {shown(name)}")
        return extras


def check_finite(values: np.ndarray, label: str) -> None:
    """Refuses NaN and infinities.

    Raises:
        FormatError: there is one.
    """
    if not all_finite(values):
        raise FormatError(
            message(label, got="NaN or infinity", expected="finite values", fix="train or save the adapter again")
        )


def check_shapes(
    label: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...], rank: int | None
) -> tuple[int, int, int]:
    """(d_in, d_out, r) of a pair stored as A (r, in) and B (out, r).

    Raises:
        FormatError: the two contradict each other, or the rank that the configuration gives.
    """
    if len(shape_a) == len(shape_b) == 2 and shape_a[0] == shape_b[1] == 0 and shape_a[1] * shape_b[0]:
        raise FormatError(
            message(f"{label} rank", got=0, expected="1 or more", fix="leave the module out: a pair of rank 0 is none")
        )
    if 0 in shape_a + shape_b:
        raise FormatError(
            message(f"{label} lora_A, lora_B", got=f"empty tensors {shape_a}, {shape_b}, as ZeRO-3 leaves them",
                 expected="the trained values",
                 fix="save again with stage3_gather_16bit_weights_on_model_save, or gather them by zero_to_fp32.py")
        )  # fmt: skip
    if len(shape_a) != 2 or len(shape_b) != 2:
        raise FormatError(
            message(f"{label} lora_A, lora_B", got=f"{shape_a}, {shape_b}",
                 expected="two axes each, or those of a convolution in both", fix="save the adapter again")
        )  # fmt: skip
    if shape_a[0] != shape_b[1]:
        raise FormatError(
            message(f"{label} lora_A, lora_B", got=f"{shape_a}, {shape_b}", expected="(r, in), (out, r)",
                 fix="save the adapter again")
        )  # fmt: skip
    if rank is not None and shape_a[0] != rank:
        raise FormatError(
            message(f"{label} rank", got=f"{shape_a[0]} in the file", expected=f"{rank} as the config says",
                 fix="correct r or rank_pattern")
        )  # fmt: skip
    return shape_a[1], shape_b[0], rank or shape_a[0]

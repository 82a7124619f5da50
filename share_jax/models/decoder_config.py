"""What a decoder's checkpoint says of its form: one record for all families, read from `config.json`.

Covered by `model_type`: llama (SmolLM2, Llama 2 and 3), mistral, qwen2 (2 and 2.5), qwen3 and gemma3_text (270m, 1b).
Whatever the decoder does not compute, such as another way to scale positions, is refused by name.

Source: the `configuration_*.py` files of transformers 5.24, for the keys and the defaults of keys that are left out.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, InputError, message
from share_jax.models.rotary import llama3_divisors
from share_jax.models.weights import read_config

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_FIX = "take a checkpoint of a covered model"


@dataclass(frozen=True)
class DecoderConfig:
    """The form of a decoder.

    Attributes:
        family: one of `FAMILIES`; only names it, all else follows from the fields.
        vocab_size: rows of the embedding.
        hidden_size: d.
        intermediate_size: width of the gated perceptron.
        num_hidden_layers: layers.
        num_attention_heads: query heads.
        num_key_value_heads: key and value heads, which divide the query heads.
        head_dim: width of one head.
        max_position_embeddings: the longest text that the model was made for.
        rms_norm_eps: epsilon of every norm.
        rope_theta: base of the rotary embedding.
        rope_divisors: what its frequencies are divided by, (head_dim / 2,); by nothing when None.
        windows: of each layer how many last positions it sees, itself among them; all when None.
        local_rope_theta: base in layers with a window, whose frequencies are not divided; as in the others when None.
        tie_word_embeddings: whether the embedding is the output layer, too.
        qkv_bias: whether query, key and value have biases.
        out_bias: whether the attention's output has one.
        mlp_bias: whether the perceptron's kernels have.
        head_norms: whether query and key of every head are normalised.
        norms_around: whether the output of each sublayer is normalised, too, before it is added.
        scale_plus_one: whether a norm multiplies by 1 + scale.
        activation: "silu" or "gelu_tanh".
        embedding_scale: what embeddings are multiplied by.
        query_scale: what queries are multiplied by.
        attention_softcap: bound of the attention's scores, or None.
        logit_softcap: bound of the logits, or None.

    Raises:
        InputError: a size is no whole number of at least 1, or two of them do not fit.

    Example:
        >>> config = DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 32)
        >>> config.window(0), config.tie_word_embeddings
        (None, False)
        >>> DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 3, 32)
        Traceback (most recent call last):
        share_jax.errors.InputError: head_dim: got 3, expected an even number; correct the config
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_divisors: tuple[float, ...] | None = None
    windows: tuple[int | None, ...] | None = None
    local_rope_theta: float | None = None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    norms_around: bool = False
    scale_plus_one: bool = False
    activation: str = "silu"
    embedding_scale: float = 1.0
    query_scale: float = 1.0
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    def __post_init__(self) -> None:
        """Checks the fields."""
        for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise _refused(name, repr(value), "a whole number of at least 1")
        if self.num_attention_heads % self.num_key_value_heads:
            expected = f"a divisor of num_attention_heads={self.num_attention_heads}"
            raise _refused("num_key_value_heads", self.num_key_value_heads, expected)
        if self.head_dim % 2:
            raise _refused("head_dim", self.head_dim, "an even number")
        if self.rope_divisors is not None and len(self.rope_divisors) != self.head_dim // 2:
            raise _refused("rope_divisors", f"{len(self.rope_divisors)} numbers", f"{self.head_dim // 2}")
        if self.windows is not None and len(self.windows) != self.num_hidden_layers:
            raise _refused(
                "windows", f"{len(self.windows)} numbers", f"one for each of {self.num_hidden_layers} layers"
            )
        for size in self.windows or ():
            if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
                raise _refused("sliding_window", repr(size), "a whole number of at least 1")
        optional = ("local_rope_theta", "attention_softcap", "logit_softcap")
        numbers = [(name, getattr(self, name)) for name in ("rms_norm_eps", "rope_theta", "query_scale", *optional)]
        numbers += [("rope_divisors", value) for value in self.rope_divisors or ()]
        for name, value in numbers:
            if not (_is_positive(value) or (value is None and name in optional)):
                raise _refused(name, repr(value), "a finite number above 0")

    def window(self, layer: int) -> int | None:
        """How many last positions a layer sees; all when None."""
        return None if self.windows is None else self.windows[layer]

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> "DecoderConfig":
        """Reads a `config.json`.

        Raises:
            FormatError: the file cannot be read, is not JSON, lacks a size, or describes what is not covered.
        """
        return config_of(read_config(Path(path), "a decoder"), str(path))


def _is_positive(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _flag(raw: Mapping[str, Any], name: str, usual: bool, source: str) -> bool:
    value = raw.get(name, usual)
    if not isinstance(value, bool):
        raise FormatError(message(f"{source} {name}", got=repr(value), expected="true or false", fix=_FIX))
    return value


def _refused(name: str, got: object, expected: str) -> InputError:
    return InputError(message(name, got=got, expected=expected, fix="correct the config"))


def config_of(raw: Mapping[str, Any], source: str) -> DecoderConfig:
    """The config of a `config.json` that has been read.

    Args:
        raw: its entries; those that say nothing about the decoder's form are passed over.
        source: the file, for messages.

    Raises:
        FormatError: an entry is missing, or describes what is not covered.
    """
    family = raw.get("model_type")
    if family not in FAMILIES:
        expected = f"one of {', '.join(FAMILIES)}"
        raise FormatError(message(f"{source} model_type", got=repr(family), expected=expected, fix=_FIX))
    gemma = family == "gemma3_text"
    _refuse_uncovered(raw, source)
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if missing := [name for name in needed if name not in raw]:
        got = f"no {', '.join(missing)}"
        raise FormatError(message(source, got=got, expected="a decoder's sizes", fix="take the checkpoint's own file"))
    sizes = {name: raw[name] for name in needed}
    heads = sizes["num_attention_heads"]
    usual = {"qwen3": 128, "gemma3_text": 256}.get(str(family))
    bias = _flag(raw, "attention_bias", False, source)
    try:
        head_dim = raw.get("head_dim") or usual or sizes["hidden_size"] // heads
        main, local = _ropes(raw, source, gemma=gemma)
        theta, divisors = _rope(main, head_dim, source)
        local_theta, local_divisors = (None, None) if local is None else _rope(local, head_dim, source)
        if local is not None and local_divisors is not None:
            got = repr(local.get("rope_type"))
            raise FormatError(message(f"{source} rope of local layers", got=got, expected="'default'", fix=_FIX))
        return DecoderConfig(
            family=str(family),
            **sizes,
            num_key_value_heads=raw.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            max_position_embeddings=raw.get("max_position_embeddings", 131_072 if gemma else 32_768),
            rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope_theta=theta,
            rope_divisors=divisors,
            windows=_windows(raw, str(family), sizes["num_hidden_layers"], source),
            local_rope_theta=local_theta,
            tie_word_embeddings=_flag(raw, "tie_word_embeddings", gemma, source),
            qkv_bias=family == "qwen2" or bias,
            out_bias=family != "qwen2" and bias,
            mlp_bias=_flag(raw, "mlp_bias", False, source),
            head_norms=family in ("qwen3", "gemma3_text"),
            norms_around=gemma,
            scale_plus_one=gemma,
            activation=_ACTIVATIONS[_activation(raw, gemma=gemma)],
            embedding_scale=sizes["hidden_size"] ** 0.5 if gemma else 1.0,
            query_scale=(raw.get("query_pre_attn_scalar", 256) if gemma else head_dim) ** -0.5,
            attention_softcap=raw.get("attn_logit_softcapping"),
            logit_softcap=raw.get("final_logit_softcapping"),
        )
    except FormatError:
        raise
    except InputError as error:
        raise FormatError(f"{source} {error}") from error
    except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError) as error:
        got, fix = f"no {error}" if isinstance(error, KeyError) else error, "take the checkpoint's own config.json"
        raise FormatError(message(source, got=got, expected="a decoder's config", fix=fix)) from error


def _activation(raw: Mapping[str, Any], *, gemma: bool) -> Any:
    name = raw.get("hidden_activation") or raw.get("hidden_act")
    return name or ("gelu_pytorch_tanh" if gemma else "silu")


def _refuse_uncovered(raw: Mapping[str, Any], source: str) -> None:
    """Refuses by name what would change the numbers and is not computed here."""
    activation = _activation(raw, gemma=raw["model_type"] == "gemma3_text")
    checks = {
        "hidden_act": (activation in _ACTIVATIONS, activation, f"one of {', '.join(_ACTIVATIONS)}"),
        "quantization_config": (not raw.get("quantization_config"), "one", "floating-point weights"),
        "partial_rotary_factor": (raw.get("partial_rotary_factor", 1.0) == 1.0, raw.get("partial_rotary_factor"), "1"),
        "use_bidirectional_attention": (not raw.get("use_bidirectional_attention"), True, "causal attention"),
    }
    for name, (fits, got, expected) in checks.items():
        if not fits:
            raise FormatError(message(f"{source} {name}", got=repr(got), expected=expected, fix=_FIX))


def _ropes(raw: Mapping[str, Any], source: str, *, gemma: bool) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The rotary embedding of layers that see all, and of those with a window where that is another."""
    new = raw.get("rope_parameters") or {}
    if gemma:
        if new and not {"full_attention", "sliding_attention"} >= set(new):
            expected = "full_attention and sliding_attention, each with its own"
            raise FormatError(message(f"{source} rope_parameters", got=sorted(new), expected=expected, fix=_FIX))
        scaled = raw.get("rope_scaling") or {}
        main = {"rope_theta": raw.get("rope_theta", 1_000_000.0), **scaled, **(new.get("full_attention") or {})}
        local = {"rope_theta": raw.get("rope_local_base_freq", 10_000.0), **(new.get("sliding_attention") or {})}
        return main, local
    if any(isinstance(value, dict) for value in new.values()):
        raise FormatError(
            message(f"{source} rope_parameters", got=sorted(new), expected="one for all layers", fix=_FIX)
        )
    return {"rope_theta": raw.get("rope_theta", 10_000.0), **(raw.get("rope_scaling") or {}), **new}, None


def _rope(rope: Mapping[str, Any], head_dim: int, source: str) -> tuple[float, tuple[float, ...] | None]:
    """Base and divisors."""
    theta, kind = float(rope["rope_theta"]), rope.get("rope_type") or rope.get("type") or "default"
    if float(rope.get("partial_rotary_factor", 1.0)) != 1.0:
        got = rope["partial_rotary_factor"]
        raise FormatError(message(f"{source} partial_rotary_factor", got=got, expected="1", fix=_FIX))
    match kind:
        case "default":
            return theta, None
        case "linear":
            return theta, (float(rope["factor"]),) * (head_dim // 2)
        case "llama3":
            low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
            original = int(rope["original_max_position_embeddings"])
            return theta, llama3_divisors(head_dim, theta, float(rope["factor"]), low, high, original)
    expected = "one of default, linear, llama3"
    raise FormatError(message(f"{source} rope_type", got=repr(kind), expected=expected, fix=_FIX))


def _windows(raw: Mapping[str, Any], family: str, layers: int, source: str) -> tuple[int | None, ...] | None:
    """Of each layer its window."""
    size = raw.get("sliding_window", 4096)
    if family == "mistral" and "layer_types" not in raw:
        return None if size is None else (size,) * layers
    if family == "llama" or (family in ("qwen2", "qwen3") and not raw.get("use_sliding_window", False)):
        return None
    kinds = raw.get("layer_types")
    if kinds is None and family == "gemma3_text":
        pattern = raw.get("sliding_window_pattern", 6)
        kinds = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)]
    elif kinds is None:
        first = raw.get("max_window_layers", 28)
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if not isinstance(kinds, list | tuple) or len(kinds) != layers:
        got = f"{len(kinds)} entries" if isinstance(kinds, list | tuple) else repr(kinds)
        raise FormatError(message(f"{source} layer_types", got=got, expected=f"a list of {layers}", fix=_FIX))
    if unknown := sorted(set(kinds) - {"sliding_attention", "full_attention"}):
        expected = "sliding_attention or full_attention"
        raise FormatError(message(f"{source} layer_types", got=unknown[0], expected=expected, fix=_FIX))
    windows = tuple(size if kind == "sliding_attention" else None for kind in kinds)
    return windows if any(windows) else None

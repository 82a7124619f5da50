"""Vision transformers from files: the npz of Google's checkpoints, and the safetensors of the Hugging Face hub.

The npz is what the ViT and AugReg papers were published as: arrays under `Transformer/encoderblock_0/...` in Flax's own
order, with tanh GELU and an epsilon of 1e-6, of which every size can be read off the shapes. The safetensors hold
torch's order under `vit.encoder.layer.0...`, with a `config.json` beside them, and erf GELU.

Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv 2010.11929), section 3.2 for the places at
other image sizes; Steiner et al. 2022, "How to train your ViT?" (arXiv 2106.10270).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.flax_names import Leaf, dense, norm, within
from share_jax.models.vit import VitConfig
from share_jax.models.weights import (
    local_folder,
    params_of,
    read_config,
    read_npz,
    read_safetensors,
    without_prefix,
)

HUB_NAME = "google/vit-base-patch16-224-in21k"
_HF_UNUSED = ("pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias")
_NPZ_UNUSED = ("pre_logits/kernel", "pre_logits/bias", "head/kernel", "head/bias")
_GELU = {"gelu": True, "gelu_new": False, "gelu_pytorch_tanh": False}
_POSITION = "Transformer/posembed_input/pos_embedding"
_BLOCK = "Transformer/encoderblock_{}"
_ATTENTION = _BLOCK + "/MultiHeadDotProductAttention_1"


def load_vit(weights: str | os.PathLike[str] | None, image_size: int | None = None) -> tuple[VitConfig, dict]:
    """The config and the `params` of a `VitEncoder`, float32, from a local file or folder.

    Args:
        weights: an `.npz`, a folder with `config.json` and `model.safetensors`, or that safetensors file.
        image_size: pixels a side; places are interpolated where that is not the checkpoint's own, None.

    Raises:
        FormatError: there is no such file; it cannot be read; a tensor is missing, unexpected, wrong-shaped or not of
            floats.
        InputError: patches do not tile an image of `image_size`.

    Example:
        >>> config, encoder = load_vit("vit")  # a folder of the Hugging Face hub
        >>> config.class_token, encoder["position"].shape == (config.patches**2 + 1, config.hidden_size)
        (True, True)
    """
    path = local_folder(weights, HUB_NAME, "config.json and model.safetensors")
    if path.suffix == ".npz":
        config, params = _from_npz(path)
    else:
        config, params = _from_safetensors(path if path.is_dir() else path.parent, path)
    if image_size is None or image_size == config.image_size:
        return config, params
    resized = replace(config, image_size=image_size)
    return resized, {**params, "position": jnp.asarray(places(np.asarray(params["position"]), config, resized))}


def places(position: np.ndarray, old: VitConfig, new: VitConfig) -> np.ndarray:
    """Learnt places (class token + patches, d) at another image size: the grid of patches resized by cubic convolution.

    The class token's place stays as it is. The kernel has a = -0.75 and borders repeat, as in torch.
    """
    first = int(old.class_token)
    grid = position[first:].reshape(old.patches, old.patches, -1)
    weights = _cubic(old.patches, new.patches)
    resized = np.einsum("Yy,Xx,yxd->YXd", weights, weights, grid.astype(np.float64))
    return np.concatenate([position[:first], resized.reshape(new.patches**2, -1)]).astype(np.float32)


def _cubic(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """Weights (new, old) of cubic convolution between the centres of `old` and of `new` cells on one length."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    left = np.floor(centre).astype(int)
    weights = np.zeros((new, old))
    for offset in range(-1, 3):
        x = np.abs(centre - (left + offset))
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        np.add.at(weights, (np.arange(new), np.clip(left + offset, 0, old - 1)), np.where(x <= 1, near, far))
    return weights


def _from_safetensors(folder: Path, given: Path) -> tuple[VitConfig, dict]:
    path = folder / "model.safetensors" if given.is_dir() else given
    raw = read_config(folder / "config.json", "a ViT")
    config = _config(raw, str(folder / "config.json"))
    tensors = without_prefix(read_safetensors(path), "vit.", str(path))
    layout = _safetensors_layout(config, raw.get("num_channels", 3), qkv_bias=raw.get("qkv_bias", True) is not False)
    return config, params_of(layout, tensors, str(path), "a ViT encoder", _HF_UNUSED)


def _config(raw: Mapping[str, Any], source: str) -> VitConfig:
    names = {
        "image_size": "image_size", "patch_size": "patch_size", "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "intermediate_size": "intermediate_size",
    }  # fmt: skip
    fix = "take the config.json of a ViT"
    if missing := sorted(set(names) - set(raw)):
        raise FormatError(message(source, got=f"no {', '.join(missing)}", expected="a ViT config", fix=fix))
    if (act := raw.get("hidden_act", "gelu")) not in _GELU:
        raise FormatError(message(f"{source} hidden_act", got=repr(act), expected=f"one of {sorted(_GELU)}", fix=fix))
    sizes = {new: raw[old] for old, new in names.items()}
    eps = raw.get("layer_norm_eps", 1e-12)
    return VitConfig(**sizes, class_token=True, layer_norm_eps=eps, exact_gelu=_GELU[act])


def _safetensors_layout(config: VitConfig, channels: int, *, qkv_bias: bool) -> dict[str, Leaf]:
    c, patch = config, config.patch_size
    d, split = c.hidden_size, (c.num_heads, c.hidden_size // c.num_heads)
    rows = (c.patches**2 + 1, d)
    if not qkv_bias:
        fix = "take a checkpoint with biases"
        raise FormatError(message("qkv_bias of the ViT", got=False, expected="True", fix=fix))
    kernel = Leaf(("patch", "kernel"), (d, channels, patch, patch), (patch * patch * channels, d), (2, 3, 1, 0))
    out = {
        "embeddings.cls_token": Leaf(("class_token",), (1, 1, d), (d,)),
        "embeddings.position_embeddings": Leaf(("position",), (1, *rows), rows),
        "embeddings.patch_embeddings.projection.weight": kernel,
        "embeddings.patch_embeddings.projection.bias": Leaf(("patch", "bias"), (d,), (d,)),
    }
    for index in range(c.num_layers):
        old, new = f"encoder.layer.{index}", f"layer_{index}"
        out |= norm((new, "attention_norm"), f"{old}.layernorm_before", d)
        for part in ("query", "key", "value"):
            out |= dense((new, "attention", part), f"{old}.attention.attention.{part}", (d,), split)
        out |= dense((new, "attention", "out"), f"{old}.attention.output.dense", split, (d,))
        out |= norm((new, "ffn_norm"), f"{old}.layernorm_after", d)
        out |= dense((new, "ffn_up"), f"{old}.intermediate.dense", (d,), (c.intermediate_size,))
        out |= dense((new, "ffn_down"), f"{old}.output.dense", (c.intermediate_size,), (d,))
    return out | norm(("norm",), "layernorm", d)


_RENAMED = (
    ("encoder.layer.", "layers."), ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"), ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
)  # fmt: skip
"""Parts of names as checkpoints hold them, and of the modules that transformers 5 makes of them."""


def vit_names(
    config: VitConfig, num_classes: int, channels: int = 3, *, transformers: Literal[4, 5] = 5
) -> dict[str, Leaf]:
    """The names of `ViTForImageClassification` for a `VitClassifier`.

    Args:
        config: the sizes.
        num_classes: width of the head.
        channels: of the images.
        transformers: its major version. Checkpoints keep their names; modules, and so adapters, have other ones in 5.

    Example:
        >>> names = vit_names(VitConfig(class_token=True), num_classes=10)
        >>> names["vit.layers.0.mlp.fc1.weight"].place
        'encoder/layer_0/ffn_up/kernel'
    """
    layout = _safetensors_layout(config, channels, qkv_bias=True)
    for old, new in _RENAMED if transformers >= 5 else ():
        layout = {name.replace(old, new): leaf for name, leaf in layout.items()}
    return within(layout, "vit", ("encoder",)) | dense(("head",), "classifier", (config.hidden_size,), (num_classes,))


def _from_npz(path: Path) -> tuple[VitConfig, dict]:
    arrays = read_npz(path)
    config, channels = _sizes(arrays, str(path))
    return config, params_of(_npz_layout(config, channels), arrays, str(path), "a ViT encoder", _NPZ_UNUSED)


def _sizes(arrays: Mapping[str, np.ndarray], source: str) -> tuple[VitConfig, int]:
    """A config from the shapes; Google's models have tanh GELU and an epsilon of 1e-6."""
    found = [re.match(r"Transformer/encoderblock_(\d+)/", name) for name in arrays]
    layers = len({match.group(1) for match in found if match})
    needed = {
        "embedding/kernel": 4, _POSITION: 3, f"{_ATTENTION}/query/kernel".format(0): 3,
        f"{_BLOCK}/MlpBlock_3/Dense_0/kernel".format(0): 2,
    }  # fmt: skip
    for name, axes in needed.items():
        if name not in arrays or arrays[name].ndim != axes:
            got = f"no {name}" if name not in arrays else f"{name} of shape {arrays[name].shape}"
            fix = "take a checkpoint of a plain ViT, such as ViT-B_16.npz"
            raise FormatError(message(source, got=got, expected=f"{name} with {axes} axes", fix=fix))
    patch, _, channels, width = arrays["embedding/kernel"].shape
    token = "cls" in arrays
    side = round((arrays[_POSITION].shape[1] - token) ** 0.5)
    try:
        config = VitConfig(
            image_size=side * patch,
            patch_size=patch,
            hidden_size=width,
            num_layers=layers,
            num_heads=arrays[f"{_ATTENTION}/query/kernel".format(0)].shape[1],
            intermediate_size=arrays[f"{_BLOCK}/MlpBlock_3/Dense_0/kernel".format(0)].shape[1],
            class_token=token,
        )
    except InputError as error:
        fix = "take another checkpoint"
        raise FormatError(message(source, got=error, expected="the shapes of a ViT", fix=fix)) from error
    return config, channels


def _npz_layout(config: VitConfig, channels: int) -> dict[str, Leaf]:
    c, patch = config, config.patch_size
    d, up, split = c.hidden_size, c.intermediate_size, (c.num_heads, c.hidden_size // c.num_heads)
    rows = (c.patches**2 + c.class_token, d)
    out = {
        _POSITION: Leaf(("position",), (1, *rows), rows),
        "embedding/kernel": Leaf(("patch", "kernel"), (patch, patch, channels, d), (patch * patch * channels, d)),
        "embedding/bias": Leaf(("patch", "bias"), (d,), (d,)),
    }
    if c.class_token:
        out["cls"] = Leaf(("class_token",), (1, 1, d), (d,))

    def same(path: tuple[str, ...], name: str, **shapes: tuple[int, ...]) -> None:
        for part, shape in shapes.items():
            out[f"{name}/{part}"] = Leaf((*path, part), shape, shape)

    for index in range(c.num_layers):
        block, attention, new = _BLOCK.format(index), _ATTENTION.format(index), f"layer_{index}"
        same((new, "attention_norm"), f"{block}/LayerNorm_0", scale=(d,), bias=(d,))
        for part in ("query", "key", "value"):
            same((new, "attention", part), f"{attention}/{part}", kernel=(d, *split), bias=split)
        same((new, "attention", "out"), f"{attention}/out", kernel=(*split, d), bias=(d,))
        same((new, "ffn_norm"), f"{block}/LayerNorm_2", scale=(d,), bias=(d,))
        same((new, "ffn_up"), f"{block}/MlpBlock_3/Dense_0", kernel=(d, up), bias=(up,))
        same((new, "ffn_down"), f"{block}/MlpBlock_3/Dense_1", kernel=(up, d), bias=(d,))
    same(("norm",), "Transformer/encoder_norm", scale=(d,), bias=(d,))
    return out

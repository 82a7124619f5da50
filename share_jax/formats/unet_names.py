"""The two names of every layer of Stable Diffusion's UNet: diffusers' and the original, which ComfyUI uses.

The original UNet numbers its blocks through: `input_blocks.4.1` is the attention after the first residual block of the
second level, `down_blocks.1.attentions.0`. Every level has two residual blocks on the way down and three up. Only the
place of an upsampler depends on the model: it comes behind the attention, where the level has one.

Source: diffusers `scripts/convert_original_stable_diffusion_to_diffusers.py`; sd-scripts `library/sdxl_model_util.py`.
"""

import re
from collections.abc import Collection

_SINGLE = {
    "input_blocks.0.0": "conv_in", "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2", "out.0": "conv_norm_out",
    "out.2": "conv_out", "middle_block.1": "mid_block.attentions.0",
}  # fmt: skip
_RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_RESNET_BACK = {new: old for old, new in _RESNET.items()}
_SINGLE_BACK = {new: old for old, new in _SINGLE.items()}
_ORIGINAL = re.compile(r"(input_blocks|output_blocks)\.([0-9]{1,2})\.([0-2])(?:\.(.+))?")
_MIDDLE = re.compile(r"middle_block\.([02])\.(.+)")
_DIFFUSERS = re.compile(r"(down|up)_blocks\.([0-3])\.(resnets|attentions)\.([0-2])(?:\.(.+))?")
_SAMPLER = re.compile(r"(down|up)_blocks\.([0-3])\.(?:down|up)samplers\.0\.conv")
_MID = re.compile(r"mid_block\.resnets\.([01])\.(.+)")


def to_diffusers(name: str) -> str | None:
    """Diffusers' name of a layer of the original UNet, or None where it is no such layer.

    >>> to_diffusers("input_blocks.4.1.transformer_blocks.0.attn1.to_q")
    'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q'
    >>> to_diffusers("output_blocks.2.1.conv"), to_diffusers("middle_block.2.in_layers.2")
    ('up_blocks.0.upsamplers.0.conv', 'mid_block.resnets.1.conv1')
    """
    for old, new in _SINGLE.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    match = _MIDDLE.fullmatch(name)
    if match:
        inner = _RESNET.get(match[2])
        return inner and f"mid_block.resnets.{int(match[1]) // 2}.{inner}"
    match = _ORIGINAL.fullmatch(name)
    if match is None:
        return None
    down, number, part, rest = match[1] == "input_blocks", int(match[2]), match[3], match[4] or ""
    level, place = divmod(number - 1, 3) if down else divmod(number, 3)
    side = f"{'down' if down else 'up'}_blocks.{level}"
    if down and place == 2:
        return f"{side}.downsamplers.0.conv" if (part, rest) == ("0", "op") else None
    if not down and rest == "conv" and part in "12":
        return f"{side}.upsamplers.0.conv" if place == 2 else None
    if part == "0":
        inner = _RESNET.get(rest)
        return inner and f"{side}.resnets.{place}.{inner}"
    return f"{side}.attentions.{place}" + (f".{rest}" if rest else "") if part == "1" else None


def to_original(name: str, *, sdxl: bool) -> str | None:
    """The original name of a layer of diffusers' UNet, or None where it is no such layer; see `to_diffusers`.

    Args:
        name: diffusers' name.
        sdxl: whether the model is Stable Diffusion XL, whose first level up has attention.

    >>> to_original("up_blocks.0.upsamplers.0.conv", sdxl=True), to_original("mid_block.resnets.0.conv2", sdxl=True)
    ('output_blocks.2.2.conv', 'middle_block.0.out_layers.3')
    """
    for new, old in _SINGLE_BACK.items():
        if name == new or name.startswith(f"{new}."):
            return old + name[len(new) :]
    match = _MID.fullmatch(name)
    if match:
        inner = _RESNET_BACK.get(match[2])
        return inner and f"middle_block.{2 * int(match[1])}.{inner}"
    match = _SAMPLER.fullmatch(name)
    if match:
        level = int(match[2])
        if match[1] == "down":
            return f"input_blocks.{3 * level + 3}.0.op"
        return f"output_blocks.{3 * level + 2}.{2 if sdxl or level else 1}.conv"
    match = _DIFFUSERS.fullmatch(name)
    if match is None:
        return None
    down, level, kind, place, rest = match[1] == "down", int(match[2]), match[3], int(match[4]), match[5] or ""
    if down and place == 2:
        return None
    block = f"input_blocks.{3 * level + place + 1}" if down else f"output_blocks.{3 * level + place}"
    if kind == "resnets":
        inner = _RESNET_BACK.get(rest)
        return inner and f"{block}.0.{inner}"
    return f"{block}.1" + (f".{rest}" if rest else "")


def is_sdxl(names: Collection[str]) -> bool | None:
    """Whether the layers, by diffusers' names, are of Stable Diffusion XL; None where they may be of either.

    >>> is_sdxl(["down_blocks.0.attentions.0.proj_in"]), is_sdxl(["add_embedding.linear_1"])
    (False, True)
    """
    text = "\n".join(names)
    if _ONLY_OLDER.search(text):
        return False
    return True if _ONLY_XL.search(text) else None


_ONLY_OLDER = re.compile(r"(?m)^(?:down_blocks\.(?:0\.attentions|3\.)|up_blocks\.(?:3\.|2\.attentions|2\.upsamplers))")
_ONLY_XL = re.compile(r"(?m)^(?:add_embedding|up_blocks\.0\.attentions|.*transformer_blocks\.[1-9])")

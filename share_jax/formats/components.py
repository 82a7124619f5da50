"""The parts of an image model that one file adapts together, and how each tool names them.

Inside the library a module's name begins with its component, as in diffusers: `unet.`, `transformer.`, `text_encoder.`
and so on. `diffusion_model.` stands for a model by its original names, as ComfyUI has them.

Source: diffusers `loaders/lora_pipeline.py`; sd-scripts `networks/lora.py`; ComfyUI `comfy/lora.py`.
"""

import re
from collections.abc import Iterable

COMPONENTS = (
    "unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2", "text_encoder_3", "diffusion_model",
)  # fmt: skip
MAIN = ("unet", "transformer", "diffusion_model")
"""The model itself, as tools call it; a task without components may be of any of them."""

_ROOTS = {
    "unet": r"(down_blocks|up_blocks|mid_block|conv_in|conv_out|time_embedding|add_embedding)\b",
    "transformer": r"(transformer_blocks|single_transformer_blocks)\b",
    "text_encoder": r"text_model\b",
    "diffusion_model": r"(double_blocks|single_blocks|joint_blocks|input_blocks|middle_block|output_blocks)\b",
}
"""How the names of layers begin that only one component has."""


def split(module: str) -> tuple[str, str]:
    """(component, name within it); the component is empty where the name has none.

    >>> split("unet.conv_in"), split("model.layers.0.mlp")
    (('unet', 'conv_in'), ('', 'model.layers.0.mlp'))
    """
    first, _, rest = module.partition(".")
    return (first, rest) if first in COMPONENTS and rest else ("", module)


def guessed(modules: Iterable[str]) -> str | None:
    """The component that all of these names, which have none, can only be of; None where it is not certain."""
    found = {next((name for name, root in _ROOTS.items() if re.match(root, module)), None) for module in modules}
    return found.pop() if len(found) == 1 else None

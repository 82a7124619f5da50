"""What a folder is that holds no adapter which is read: named, with what can be done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError
from share_jax.storage.untrusted import exists_inside, read_json, shown

CONFIG = "adapter_config.json"
_ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
"""Files of a folder that Orbax wrote; the first beside the arrays of a tree."""


def foreign_config(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """What an `adapter_config.json` without a `peft_type` is, and what to do; None where nothing tells.

    >>> foreign_config({"fine_tune_type": "lora", "num_layers": 16})[0]
    'the configuration of an MLX-LM adapter'
    """
    if "fine_tune_type" in config or "lora_parameters" in config or "lora_layers" in config:
        return (
            "the configuration of an MLX-LM adapter",
            "put its adapters.safetensors beside it",
        )
    if "model_class" in config and ("config" in config or "hidden_size" in config):
        return "the configuration of an AdapterHub adapter", "train or save it as LoRA with PEFT"
    return None


def foreign_folder(path: Path) -> tuple[str, str]:
    """What a folder is that no format knows, and what to do."""
    within = sorted(each.name for each in path.iterdir() if each.is_dir() and exists_inside(each, CONFIG))
    if within:
        return (
            f"adapters in folders of its own ({shown(', '.join(within), 80)})",
            f"name those: {shown(path / within[0])}",
        )
    if (orbax := _of_orbax(path)) is not None:
        return orbax
    if exists_inside(path, "config.json"):
        config = _read(path)
        if "input_features" in config or "output_features" in config or exists_inside(path, "train_config.json"):
            return "a LeRobot policy", "name the folder that holds its PEFT adapter, if it has one"
        if "model_type" in config or "architectures" in config:
            return "a whole model", "extract an adapter of it first, or name the adapter's folder"
    if exists_inside(path, "adapters.safetensors") or exists_inside(path, "adapters.npz"):
        return "an MLX-LM adapter without its configuration", f"add its {CONFIG}"
    if exists_inside(path, "pytorch_adapter.bin") or exists_inside(path, "head_config.json"):
        return "an AdapterHub adapter", "train or save it as LoRA with PEFT"
    if not any(path.iterdir()):
        return "an empty folder", "check the path"
    return f"a folder without {CONFIG}", "check the path"


def _of_orbax(path: Path) -> tuple[str, str] | None:
    """What a folder of Orbax, or of several of its steps, is and how its tree becomes a folder that is read."""
    if not any(exists_inside(path, mark) for mark in _ORBAX):
        steps = sorted(each for each in path.iterdir() if any(exists_inside(each, mark) for mark in _ORBAX))
        fix = f"name one: {shown(steps[-1])}" if steps else ""
        return ("checkpoints of Orbax in folders of their own", fix) if steps else None
    within = [each for each in sorted(path.iterdir()) if exists_inside(each, _ORBAX[0])]
    place = path if exists_inside(path, _ORBAX[0]) or not within else within[0]
    restored = f"orbax.checkpoint.PyTreeCheckpointer().restore({str(place.resolve())!r})"
    written = "share_jax.formats.save_lora_tree(OUT, tree, alpha=ALPHA)"
    return "a checkpoint of Orbax, which needs JAX", f"write a PEFT folder in Python: tree = {restored}; {written}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, "config.json")
    except FormatError:
        return {}

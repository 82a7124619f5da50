"""What PEFT says of adapters on the small models beside it: their folders, and the logits that it computes with them.

Run in an environment of its own with torch, transformers and peft (experiments/bench/peers.txt has their versions):

    python tests/data/make_peft_references.py

It writes `peft_roberta_tiny` and `peft_vit_tiny`: a folder that PEFT saved, and `reference.npz`.
"""

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import RobertaForSequenceClassification, ViTForImageClassification

HERE = Path(__file__).parent
CLASSES = 3


def write(model: torch.nn.Module, folder: Path, targets: list[str], **inputs: np.ndarray) -> None:
    """A LoRA on the model with every number at random, saved by PEFT, and its logits."""
    config = LoraConfig(r=2, lora_alpha=3, target_modules=targets, modules_to_save=["classifier"])
    adapted = get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(1)
    for name, leaf in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            leaf.data = 0.3 * torch.randn(leaf.shape, generator=generator)
    adapted.peft_config["default"].base_model_name_or_path = f"acme/{folder.name}"
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink()
    with torch.no_grad():
        logits = adapted(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits
    np.savez_compressed(folder / "reference.npz", logits=logits.numpy(), **inputs)


if __name__ == "__main__":
    text = np.load(HERE / "roberta_tiny" / "reference.npz")
    inputs = {name: text[f"single_{name}"] for name in ("input_ids", "attention_mask")}
    roberta = RobertaForSequenceClassification.from_pretrained(HERE / "roberta_tiny", num_labels=CLASSES)
    write(roberta, HERE / "peft_roberta_tiny", ["query", "attention.output.dense", "intermediate.dense"], **inputs)
    images = np.load(HERE / "vit_tiny" / "reference.npz")["images"].transpose(0, 3, 1, 2).copy()
    vit = ViTForImageClassification.from_pretrained(HERE / "vit_tiny", num_labels=CLASSES, ignore_mismatched_sizes=True)
    write(vit, HERE / "peft_vit_tiny", ["v_proj", "o_proj", "fc2"], pixel_values=images)

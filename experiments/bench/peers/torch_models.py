"""The torch twins of `experiments.bench.subjects`: transformers' models, from a config, with weights from a file."""
# pyright: reportMissingImports=false

from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

TARGETS = {
    ("vit", "all kernels"): r".*\.(q_proj|k_proj|v_proj|o_proj|fc1|fc2)",
    ("vit", "query and value"): r".*\.(q_proj|v_proj)",
    ("vit", "FFN-down"): r".*\.fc2",
    ("bert", "all kernels"): r".*\.(query|key|value|dense)",
    ("bert", "query and value"): r".*\.(query|value)",
    ("bert", "FFN-down"): r".*layer\.\d+\.output\.dense",
}
"""Modules to adapt, as PEFT takes them."""


class Twin(nn.Module):
    """A body without pooler and one linear head, on the class token or on the mean over the unmasked tokens."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Builds the body that the spec describes."""
        super().__init__()
        self.kind = spec["model"]
        sizes = {
            "hidden_size": spec["hidden_size"],
            "num_hidden_layers": spec["num_layers"],
            "num_attention_heads": spec["num_heads"],
            "intermediate_size": spec["intermediate_size"],
            "hidden_act": spec["act"],
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        if self.kind == "vit":
            from transformers import ViTConfig, ViTModel

            images = {"image_size": spec["image_size"], "patch_size": spec["patch_size"]}
            self.body = ViTModel(ViTConfig(**sizes, **images, layer_norm_eps=1e-6), add_pooling_layer=False)
        else:
            from transformers import BertConfig, BertModel

            words = {"vocab_size": spec["vocab_size"], "max_position_embeddings": spec["positions"]}
            self.body = BertModel(BertConfig(**sizes, **words), add_pooling_layer=False)
        self.head = nn.Linear(spec["hidden_size"], spec["classes"])

    def forward(self, **inputs: Any) -> Any:
        """Logits, float32."""
        if self.kind == "vit":
            hidden = self.body(pixel_values=inputs["images"].permute(0, 3, 1, 2)).last_hidden_state
            return self.head(hidden[:, 0].float())
        hidden = self.body(**inputs).last_hidden_state.float()
        weight = inputs["attention_mask"][..., None].float()
        return self.head((hidden * weight).sum(1) / weight.sum(1))


def awaited(device: str) -> None:
    """Waits for what the device still computes."""
    if device != "cpu":
        torch.cuda.synchronize()


def twin(files: dict[str, Any], device: str = "cpu") -> tuple[nn.Module, dict[str, Any], Any]:
    """The model with the weights of the file, its inputs and labels.

    Args:
        files: "spec" with the sizes, "weights" and "inputs" with paths of safetensors files.
        device: where everything lies.
    """
    model = Twin(files["spec"])
    model.load_state_dict(load_file(files["weights"]), strict=True)
    inputs = {name: x.to(device) for name, x in load_file(files["inputs"]).items()}
    labels = inputs.pop("labels").long()
    return model.to(device), {name: x if x.is_floating_point() else x.long() for name, x in inputs.items()}, labels


def lora_config(spec: dict[str, Any], targets: str, rank: int, alpha: float) -> Any:
    """PEFT's LoRA on the targets, with a head of the task's own."""
    from peft import LoraConfig

    modules = TARGETS[spec["model"], targets]
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=modules, modules_to_save=["head"])


def computing(dtype: str, device: str = "cpu") -> Any:
    """Automatic mixed precision for bfloat16, as our models have it: parameters stay float32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16")

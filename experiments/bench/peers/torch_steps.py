"""PEFT's and torch's train steps and forward passes."""
# pyright: reportMissingImports=false

import time
from typing import Any

import torch
from torch.nn import functional

from experiments.bench.peers.torch_models import awaited, computing, lora_config, twin


class Forward:
    """The frozen model's forward pass; also says what it answers."""

    def __init__(self, files: dict[str, Any], dtype: str = "float32") -> None:
        """Loads the twin."""
        self.model, self.inputs, _ = twin(files)
        self.model.eval()
        self.dtype = dtype
        with torch.inference_mode():
            self.facts: dict[str, Any] = {"logits": self.model(**self.inputs)[:2].tolist()}

    def run(self) -> dict[str, Any]:
        """One forward pass."""
        began = time.perf_counter()
        with torch.inference_mode(), computing(self.dtype):
            self.model(**self.inputs)
        return {"seconds": time.perf_counter() - began}


class Step:
    """One AdamW step of PEFT's LoRA, or of the whole model."""

    def __init__(
        self,
        files: dict[str, Any],
        dtype: str = "float32",
        targets: str | None = None,
        rank: int = 8,
        alpha: float = 16.0,
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        """Loads the twin, and adapts it if targets are given."""
        model, self.inputs, self.labels = twin(files, device)
        if targets is not None:
            from peft import get_peft_model

            model = get_peft_model(model, lora_config(files["spec"], targets, rank, alpha))
        self.dtype, self.device = dtype, device
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
        self.facts: dict[str, Any] = {"trained_parameters": sum(p.numel() for p in trained)}
        self.model = torch.compile(model) if compiled else model

    def run(self) -> dict[str, Any]:
        """One step."""
        began = time.perf_counter()
        with computing(self.dtype, self.device):
            loss = functional.cross_entropy(self.model(**self.inputs), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        awaited(self.device)
        return {"seconds": time.perf_counter() - began}

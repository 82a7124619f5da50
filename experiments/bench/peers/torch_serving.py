"""PEFT's ways of serving many adapters: `adapter_names` per example, switching from one to the next, merged kernels."""
# pyright: reportMissingImports=false

import time
from typing import Any

import torch

from experiments.bench.peers.torch_models import lora_config, twin


class Serving:
    """A model with many adapters, and one batch."""

    def __init__(self, files: dict[str, Any], targets: str, stored: int, rank: int = 8, alpha: float = 16.0) -> None:
        """Loads the twin and adds the adapters."""
        from peft import get_peft_model

        model, self.inputs, _ = twin(files)
        config = lora_config(files["spec"], targets, rank, alpha)
        began = time.perf_counter()
        self.model = get_peft_model(model, config, adapter_name="t0")
        for number in range(1, stored):
            self.model.add_adapter(f"t{number}", config)
        seconds = time.perf_counter() - began
        self.model.eval()
        own = [p for name, p in self.model.named_parameters() if "lora_" in name or "modules_to_save" in name]
        size = sum(p.numel() * p.element_size() for p in own)
        self.facts: dict[str, Any] = {"adapter_bytes": size, "start_s": seconds}

    def run(self, way: str, tasks: int) -> dict[str, Any]:
        """One batch with so many different tasks, in one of the ways; or one switch.

        Args:
            way: "mixed" (adapter_names), "one" (the active adapter), "switching" (a part of the batch for each adapter
                in turn), "switch" (making another adapter the active one, nothing else), "merge" (merging one into the
                kernels, and out again, timed together).
            tasks: how many different ones are in the batch.
        """
        size = next(iter(self.inputs.values())).shape[0]
        with torch.inference_mode():
            began = time.perf_counter()
            if way == "mixed":
                self.model(**self.inputs, adapter_names=[f"t{row % tasks}" for row in range(size)])
            elif way == "one":
                self.model(**self.inputs)
            elif way == "switching":
                for task in range(tasks):
                    self.model.set_adapter(f"t{task}")
                    self.model(**{name: x[task::tasks] for name, x in self.inputs.items()})
            elif way == "switch":
                self.model.set_adapter("t1" if self.model.active_adapter == "t0" else "t0")
            elif way == "merge":
                self.model.merge_adapter(["t0"])
                self.model.unmerge_adapter()
            else:
                raise ValueError(f"no way of serving is called {way!r}")
            return {"seconds": time.perf_counter() - began}

"""The torch twins of `experiments.bench.decoders`: transformers' Llama from sizes, with weights from a file, and PEFT's
train steps and generation on it.
"""
# pyright: reportMissingImports=false

import time
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from experiments.bench.commands import own_peak
from experiments.bench.peers.torch_models import awaited

KERNELS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def decoder_twin(files: dict[str, Any], dtype: str = "float32", device: str = "cpu") -> Any:
    """The model with the weights of the file, or with drawn ones, in the type.

    Args:
        files: "spec" with the sizes, "weights" with the path of a safetensors file; drawn on the device without it.
        dtype: of the weights.
        device: where it lies.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    spec = dict(files["spec"])
    rope = {"rope_type": "default", "rope_theta": spec.pop("rope_theta")}
    config = LlamaConfig(**spec, rope_parameters=rope, pad_token_id=0, bos_token_id=None, eos_token_id=None)
    if "weights" not in files:
        with torch.device(device):
            model = LlamaForCausalLM(config)
        model.generation_config.pad_token_id = 0
        return model.to(dtype=getattr(torch, dtype))
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(load_file(files["weights"]), strict=False, assign=True)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"weights of the twin: {missing} missing, {unexpected} unexpected")
    model.tie_weights()
    model.generation_config.pad_token_id = 0
    return model.to(device=device, dtype=getattr(torch, dtype))


def decoder_lora(first_layer: int, layers: int, rank: int, alpha: float) -> Any:
    """PEFT's LoRA on all kernels of the layers from the first one on."""
    from peft import LoraConfig

    chosen = list(range(first_layer, layers))
    return LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(KERNELS), layers_to_transform=chosen,
        task_type="CAUSAL_LM",
    )  # fmt: skip


class DecoderLogits:
    """The first row's logits at its last places."""

    def __init__(self, files: dict[str, Any], device: str = "cpu") -> None:
        """Computes them."""
        row = load_file(files["inputs"])["input_ids"][:1].to(device)
        with torch.inference_mode():
            logits = decoder_twin(files, device=device)(input_ids=row, attention_mask=torch.ones_like(row)).logits
        self.facts: dict[str, Any] = {"logits": logits[0, -4:, :256].tolist()}

    def run(self) -> dict[str, Any]:
        """There is nothing to run."""
        return {"seconds": 0.0}


class DecoderStep:
    """One AdamW step of PEFT's LoRA; the output layer computes the learnt places alone, as ours does."""

    def __init__(
        self,
        files: dict[str, Any],
        first_layer: int,
        rank: int,
        alpha: float,
        dtype: str = "float32",
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        """Loads the twin and adapts it."""
        from peft import get_peft_model

        config = decoder_lora(first_layer, files["spec"]["num_hidden_layers"], rank, alpha)
        model = get_peft_model(decoder_twin(files, dtype, device), config).train()
        model.config.use_cache = False
        inputs = {name: x.to(device) for name, x in load_file(files["inputs"]).items()}
        self.ids, self.targets, self.device = inputs["input_ids"], inputs["targets"], device
        self.mask = torch.ones_like(self.ids)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
        self.facts: dict[str, Any] = {"trained_parameters": sum(p.numel() for p in trained)}
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.model: nn.Module = model
        if compiled:
            self.facts["first_call_s"] = self.run()["seconds"]

    def _loss(self) -> Any:
        found = self.model(input_ids=self.ids, attention_mask=self.mask, logits_to_keep=self.targets.shape[1])
        return functional.cross_entropy(found.logits.float().flatten(0, 1), self.targets.flatten())

    def run(self) -> dict[str, Any]:
        """One step, and the most memory that the process has held so far."""
        began = time.perf_counter()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        awaited(self.device)
        seconds = time.perf_counter() - began
        if self.device == "cpu":
            return {"seconds": seconds, "peak_bytes": own_peak()}
        return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated()}


class DecoderForward:
    """The frozen decoder's forward pass over the batch, with logits of the learnt places."""

    def __init__(self, files: dict[str, Any], dtype: str = "float32", device: str = "cpu") -> None:
        """Loads the twin."""
        self.model, self.device = decoder_twin(files, dtype, device).eval(), device
        inputs = load_file(files["inputs"])
        self.ids, self.keep = inputs["input_ids"].to(device), inputs["targets"].shape[1]
        self.facts: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """One forward pass."""
        began = time.perf_counter()
        with torch.inference_mode():
            self.model(input_ids=self.ids, logits_to_keep=self.keep, use_cache=False)
        awaited(self.device)
        return {"seconds": time.perf_counter() - began}


class DecoderGeneration:
    """Greedy decoding with many adapters: `adapter_names` per row, one adapter for all, or merged into the kernels."""

    def __init__(
        self,
        files: dict[str, Any],
        stored: int,
        first_layer: int,
        rank: int,
        alpha: float,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        """Loads the twin and adds the adapters; none of them is zero."""
        from peft import get_peft_model

        config = decoder_lora(first_layer, files["spec"]["num_hidden_layers"], rank, alpha)
        began = time.perf_counter()
        self.model = get_peft_model(decoder_twin(files, dtype, device), config, adapter_name="t0")
        for number in range(1, stored):
            self.model.add_adapter(f"t{number}", config)
        start = time.perf_counter() - began
        self.model.eval()
        own = [p for name, p in self.model.named_parameters() if "lora_" in name]
        with torch.no_grad():
            for p in own:
                p.normal_(0.0, 0.02)
        self.device, self.words = device, files["spec"]["vocab_size"]
        self.facts: dict[str, Any] = {
            "adapter_bytes": sum(p.numel() * p.element_size() for p in own),
            "start_s": start,
        }

    def run(self, prompts: Sequence[Sequence[int]], tokens: int, tasks: int, way: str = "mixed") -> dict[str, Any]:
        """So many tokens behind each prompt.

        Args:
            prompts: of one length.
            tokens: new ones of each.
            tasks: how many different ones are in the batch.
            way: "mixed" (adapter_names), "one" (the active adapter) or "merged".
        """
        ids = torch.tensor(prompts, device=self.device)
        asked: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        if way == "mixed":
            asked["adapter_names"] = [f"t{row % tasks}" for row in range(len(prompts))]
        elif way == "merged":
            self.model.merge_adapter(["t0"])
        try:
            began = time.perf_counter()
            with torch.inference_mode():
                found = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **asked)
            awaited(self.device)
            seconds = time.perf_counter() - began
        finally:
            if way == "merged":
                self.model.unmerge_adapter()
        if found.shape[1] != ids.shape[1] + tokens:
            raise ValueError(f"{found.shape[1] - ids.shape[1]} tokens were written, not {tokens}")
        return {"seconds": seconds}


class DecoderMixed(DecoderGeneration):
    """A forward pass over the batch in which each row has an adapter of its own, or all have one."""

    def __init__(self, files: dict[str, Any], **options: Any) -> None:
        """Loads the twin, the adapters and the batch."""
        super().__init__(files, **options)
        inputs = load_file(files["inputs"])
        self.ids, self.keep = inputs["input_ids"].to(self.device), inputs["targets"].shape[1]

    def run(self, tasks: int) -> dict[str, Any]:
        """One batch with so many different tasks."""
        mixed = {} if tasks == 1 else {"adapter_names": [f"t{row % tasks}" for row in range(len(self.ids))]}
        began = time.perf_counter()
        with torch.inference_mode():
            self.model(input_ids=self.ids, logits_to_keep=self.keep, use_cache=False, **mixed)
        awaited(self.device)
        return {"seconds": time.perf_counter() - began}

"""Made LoRA adapters on disk, and the error of what a compressor makes of them, in float64 and without its own code.

Every adapter is made out of 32 columns that all share per module and side, plus 2 % noise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

SHARED, NOISE = 32, 0.02
ALPHA_OVER_RANK = 2

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]
"""Module -> (A (r, in), B (out, r))."""


@dataclass(frozen=True)
class Model:
    """What adapters are made for: so many layers, the adapted kernels (in, out) of each by name, and the rank."""

    name: str
    layers: int
    kernels: Mapping[str, tuple[int, int]]
    rank: int

    def modules(self) -> dict[str, tuple[int, int]]:
        """(in, out) of every adapted module."""
        each = self.kernels.items()
        return {f"model.layers.{i}.{kernel}": shape for i in range(self.layers) for kernel, shape in each}

    def config(self) -> dict[str, Any]:
        """The adapters' configuration."""
        return {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": f"made/{self.name}",
            "r": self.rank, "lora_alpha": ALPHA_OVER_RANK * self.rank, "lora_dropout": 0.0, "bias": "none",
            "use_rslora": False, "target_modules": [kernel.rpartition(".")[2] for kernel in self.kernels],
        }  # fmt: skip


SMALL = Model("base-768", 12, {"self_attn.q_proj": (768, 768), "self_attn.v_proj": (768, 768)}, 8)
"""12 layers, q and v, d = 768, r = 8."""

_ATTENTION = {"self_attn.q_proj": (4096, 4096), "self_attn.v_proj": (4096, 1024)}
_OTHERS = {
    "self_attn.k_proj": (4096, 1024),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (4096, 14336),
    "mlp.up_proj": (4096, 14336),
    "mlp.down_proj": (14336, 4096),
}
LARGE = Model("base-7b", 32, _ATTENTION, 16)
"""A 7B model with grouped queries: 32 layers, q and v, d = 4096 and 1024, r = 16."""
LARGE_ALL = Model("base-7b", 32, {**_ATTENTION, **_OTHERS}, 16)
"""The same, all seven kernels of a layer."""
TINY = Model("base-tiny", 2, {"self_attn.q_proj": (32, 48), "self_attn.v_proj": (32, 16)}, 2)


def make(root: Path, count: int, model: Model = SMALL) -> list[Path]:
    """Writes the adapters that are not there yet."""
    rng = np.random.default_rng(0)
    columns = {}
    for module, shape in model.modules().items():
        for side, d in zip("AB", shape, strict=True):
            columns[module, side] = rng.normal(size=(d, SHARED)).astype("f4")
    out = []
    for t in range(count):
        folder = root / f"task{t:04d}"
        out.append(folder)
        if (folder / "adapter_config.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        own, tensors = np.random.default_rng((1, t)), {}
        for (module, side), shared in columns.items():
            d = len(shared)
            clean = shared @ own.normal(size=(SHARED, model.rank)).astype("f4") / np.float32(d**0.5)
            noise = own.standard_normal(size=(d, model.rank), dtype="f4")
            x = clean + noise * np.float32(NOISE * np.linalg.norm(clean) / np.linalg.norm(noise))
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = np.ascontiguousarray(x.T if side == "A" else x)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(model.config()))
    return out


def pairs(folder: Path) -> Pairs:
    """An adapter in float64, the scale folded into B; under PEFT's names or bare ones."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    out = {}
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            b = tensors[key.replace(".lora_A.", ".lora_B.")]
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            out[module] = (a.astype("f8"), b.astype("f8") * scale)
    return out


def squared(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> float:
    """<B A, B' A'>, without forming either."""
    return float(np.sum((x[0] @ y[0].T) * (x[1].T @ y[1])))


def error(original: Path, other: Pairs, scale: float = 1.0) -> float:
    """Relative Frobenius error of a whole adapter's update.

    Args:
        original: the adapter's folder.
        other: what was made of it.
        scale: of `other`; vlora forgets alpha, so that its exports are short of the factor alpha / r.
    """
    lost = norm = 0.0
    for m, x in pairs(original).items():
        y = other[m]
        stacked = (np.concatenate([x[0], y[0]]), np.concatenate([x[1], -scale * y[1]], axis=1))
        lost += squared(stacked, stacked)
        norm += squared(x, x)
    return (max(lost, 0.0) / norm) ** 0.5


def best(folders: Sequence[Path], k: int) -> list[float]:
    """Each adapter's error with the best possible k columns per side: dense SVD of the balanced stacks, in float64."""
    adapters = [pairs(f) for f in folders]
    lost, norm = np.zeros(len(folders)), np.zeros(len(folders))
    for m in adapters[0]:
        factors = []
        for a, b in (adapter[m] for adapter in adapters):
            qa, ra = np.linalg.qr(a.T)
            qb, rb = np.linalg.qr(b)
            u, s, vt = np.linalg.svd(ra @ rb.T)
            factors.append((qa @ u * s**0.5, qb @ vt.T * s**0.5))
        bases = [
            np.linalg.svd(np.concatenate([f[i] for f in factors], 1), full_matrices=False)[0][:, :k] for i in (0, 1)
        ]
        for t, (a, b) in enumerate(factors):
            x = (a.T, b)
            y = ((bases[0] @ (bases[0].T @ a)).T, bases[1] @ (bases[1].T @ b))
            stacked = (np.concatenate([x[0], y[0]]), np.concatenate([x[1], -y[1]], axis=1))
            lost[t] += max(squared(stacked, stacked), 0.0)
            norm[t] += squared(x, x)
    return list(np.sqrt(lost / norm))


def weight(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())

"""Made LoRA adapters on disk, and the error of what a compressor makes of them, in float64 and without its own code.

12 layers, q and v, d = 768, r = 8, out of 32 columns that all adapters share per module and side, plus 2 % noise.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

LAYERS, D, RANK, SHARED, NOISE = 12, 768, 8, 32, 0.02
MODULES = tuple(f"model.layers.{i}.self_attn.{p}_proj" for i in range(LAYERS) for p in "qv")
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "made/base-768", "r": RANK,
    "lora_alpha": 2 * RANK, "lora_dropout": 0.0, "bias": "none", "use_rslora": False,
    "target_modules": ["q_proj", "v_proj"],
}  # fmt: skip

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]
"""Module -> (A (r, in), B (out, r))."""


def make(root: Path, count: int) -> list[Path]:
    """Writes the adapters that are not there yet."""
    rng = np.random.default_rng(0)
    columns = {(m, s): rng.normal(size=(D, SHARED)).astype("f4") for m in MODULES for s in "AB"}
    out = []
    for t in range(count):
        folder = root / f"task{t:04d}"
        out.append(folder)
        if (folder / "adapter_config.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        own, tensors = np.random.default_rng((1, t)), {}
        for module in MODULES:
            for side in "AB":
                clean = columns[module, side] @ own.normal(size=(SHARED, RANK)).astype("f4") / D**0.5
                noise = own.normal(size=(D, RANK)).astype("f4")
                x = clean + noise * (NOISE * np.linalg.norm(clean) / np.linalg.norm(noise))
                tensors[f"base_model.model.{module}.lora_{side}.weight"] = np.ascontiguousarray(
                    x.T if side == "A" else x
                )
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return out


def pairs(folder: Path) -> Pairs:
    """An adapter in float64, the scale folded into B; under PEFT's names or bare ones."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    out = {}
    for m in MODULES:
        a, b = (
            next(
                tensors[key]
                for key in (f"base_model.model.{m}.lora_{s}.weight", f"{m}.lora_{s}.weight")
                if key in tensors
            )
            for s in "AB"
        )
        out[m] = (a.astype("f8"), b.astype("f8") * (config["lora_alpha"] / config["r"]))
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
    for m in MODULES:
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

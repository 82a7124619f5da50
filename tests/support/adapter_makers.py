"""Small adapters in the formats that the readers know, written without the code under test."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

MODULES = tuple(f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qv")
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "acme/tiny", "inference_mode": True,
    "r": 4, "lora_alpha": 8, "lora_dropout": 0.05, "bias": "none", "use_rslora": False, "use_dora": False,
    "fan_in_fan_out": False, "target_modules": ["q_proj", "v_proj"], "modules_to_save": None, "rank_pattern": {},
    "alpha_pattern": {}, "init_lora_weights": True, "peft_version": "0.21.2", "a_key_of_the_future": [1, {"x": None}],
}  # fmt: skip


def factors(seed, modules=MODULES, d_in=24, d_out=20, rank=4, shared=6, noise=0.0):
    """Module -> (A (r, in), B (out, r)) out of a few columns that all seeds share, plus noise."""
    common, own = np.random.default_rng(0), np.random.default_rng(1000 + seed)
    out = {}
    for module in modules:
        columns = common.normal(size=(shared, d_in)), common.normal(size=(d_out, shared))
        a = own.normal(size=(rank, shared)) @ columns[0] + noise * own.normal(size=(rank, d_in))
        b = columns[1] @ own.normal(size=(shared, rank)) + noise * own.normal(size=(d_out, rank))
        out[module] = (a.astype(np.float32), b.astype(np.float32))
    return out


def write_peft(folder, pairs, config=None, extras=None, dtype=np.float32, **changes):
    """A PEFT folder; `changes` go into the configuration."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    tensors = dict(extras or {})
    for module, (a, b) in pairs.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a.astype(dtype))
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b.astype(dtype))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({**(CONFIG if config is None else config), **changes}))
    return folder


def updates(folder):
    """Module -> dense update (out, in) as PEFT computes it, for a folder without patterns."""
    tensors = load_file(Path(folder) / "adapter_model.safetensors")
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    out = {}
    for key in tensors:
        if key.endswith(".lora_A.weight"):
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            a, b = (tensors[key.replace("lora_A", f"lora_{s}")].astype(np.float64) for s in "AB")
            out[module] = scale * b @ a
    return out


def distance(x, y):
    """Relative Frobenius distance of two adapters' updates, over all modules."""
    assert set(x) == set(y)
    return (sum(np.sum((x[m] - y[m]) ** 2) for m in x) / sum(np.sum(x[m] ** 2) for m in x)) ** 0.5


def write_adapters(root, count, noise=0.0, **options):
    """`count` PEFT folders named t0, t1, ...; returns their paths."""
    return [write_peft(Path(root) / f"t{i}", factors(i, noise=noise), **options) for i in range(count)]


def write_lorashare(root, tasks=("cola", "mrpc")):
    """A folder as lorashare writes it: 6 components per side, and a head per task."""
    rng, d_in, d_out, rank = np.random.default_rng(3), 24, 20, 4
    (root / "adapters").mkdir(parents=True)
    shared = {f"{m}:{s}": rng.normal(size=(d, 6)).astype("f4") for m in MODULES for s, d in (("A", d_in), ("B", d_out))}
    save_file(shared, root / "shared_components.safetensors")
    (root / "share_config.json").write_text(json.dumps({"adapter_names": list(tasks), "num_components": 6}))
    for task in tasks:
        folder = root / "adapters" / task
        folder.mkdir()
        save_file({key: rng.normal(size=(6, rank)).astype("f4") for key in shared}, folder / "loadings.safetensors")
        save_file({"base_model.model.score.weight": rng.normal(size=(2, 3))}, folder / "classifier_head.safetensors")
        (folder / "adapter_meta.json").write_text(json.dumps({"adapter_name": task, "original_config": CONFIG}))
    return root


def write_vlora(root, tasks=("cola", "a/b"), **changes):
    """A folder as vlora writes it: 6 components per side; `changes` go into its metadata."""
    rng, d_in, d_out, rank = np.random.default_rng(4), 24, 20, 4
    root.mkdir()
    sizes = {"a": rank * d_in, "b": rank * d_out}
    shared = {}
    for m in MODULES:
        for s, size in sizes.items():
            shared[f"{m}.components_{s}"] = rng.normal(size=(6, size)).astype("f4")
            shared[f"{m}.mean_{s}"] = rng.normal(size=(size,)).astype("f4")
            shared[f"{m}.sv_{s}"] = np.ones(6, "f4")
    save_file(shared, root / "subspace.safetensors")
    files = {task: task.replace("/", "_") for task in tasks}
    for name in files.values():
        loads = {f"{m}.loadings_{s}": rng.normal(size=(6,)).astype("f4") for m in MODULES for s in "ab"}
        save_file(loads, root / f"task_{name}.safetensors")
    meta = {
        "layer_names": list(MODULES), "task_ids": list(tasks), "task_filenames": files, "rank": rank,
        "shapes_a": {m: [rank, d_in] for m in MODULES}, "shapes_b": {m: [d_out, rank] for m in MODULES}, **changes,
    }  # fmt: skip
    (root / "subspace_meta.json").write_text(json.dumps(meta))
    return root

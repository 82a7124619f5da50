"""Compressing many PEFT adapters: error, size, time and memory of `share-jax`, beside lorashare and vlora.

    python -m experiments.bench.adapters --workdir runs/adapters --peers /path/to/peers/bin --tasks 50
    python -m experiments.bench.adapters --workdir runs/adapters1000 --tasks 1000 --modes memory

Adapters are made, not trained: 12 layers, q and v, d = 768, r = 8, out of 32 columns that all of them share per
module and side, plus 2 % noise. Every time is the wall time of a whole command; ours and the peers' run in turn.
Peak memory is the kernel's own figure for the command (ru_maxrss). The result is `adapters.json` in the workdir.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

LAYERS, D, RANK, SHARED, NOISE = 12, 768, 8, 32, 0.02
MODULES = tuple(f"model.layers.{i}.self_attn.{p}_proj" for i in range(LAYERS) for p in "qv")
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "made/base-768", "r": RANK,
    "lora_alpha": 2 * RANK, "lora_dropout": 0.0, "bias": "none", "use_rslora": False,
    "target_modules": ["q_proj", "v_proj"],
}  # fmt: skip


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


def pairs(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Module -> (A (r, in), B (out, r)) in float64, the scale folded into B."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    out = {}
    for m in MODULES:
        a, b = (tensors[f"base_model.model.{m}.lora_{s}.weight"].astype("f8") for s in "AB")
        out[m] = (a, b * (config["lora_alpha"] / config["r"]))
    return out


def squared(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> float:
    """<B A, B' A'>, without forming either."""
    return float(np.sum((x[0] @ y[0].T) * (x[1].T @ y[1])))


def error(original: Path, other: dict[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """Relative Frobenius error of a whole adapter's update."""
    lost = norm = 0.0
    for m, x in pairs(original).items():
        y = other[m]
        stacked = (np.concatenate([x[0], y[0]]), np.concatenate([x[1], -y[1]], axis=1))
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


def run(*command: object) -> dict[str, Any]:
    """Runs a whole command; its wall and CPU seconds and its peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}: {err[-500:]}")
    return {"wall": seconds, "stdout": out}


def measured(command: Sequence[object]) -> dict[str, Any]:
    """As `run`, in a child of its own whose memory is then the peak of all children."""
    code = (
        "import resource, subprocess, sys, time, json; t = time.perf_counter();"
        "p = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True);"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(json.dumps([time.perf_counter() - t, u.ru_utime + u.ru_stime, u.ru_maxrss * 1024, p.stdout]))"
    )
    wall, cpu, peak, out = json.loads(run(sys.executable, "-c", code, *command)["stdout"])
    return {"wall": wall, "cpu": cpu, "peak_bytes": peak, "stdout": out}


def share_jax(*argv: object) -> dict[str, Any]:
    """One `share-jax` command."""
    found = measured([sys.executable, "-m", "share_jax.cli", *argv, "--json"])
    return {**found, "json": json.loads(found.pop("stdout"))}


def weight(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def exported_errors(work: Path, set_: Path, folders: Sequence[Path]) -> list[float]:
    """Errors of what `export` writes, of up to ten tasks evenly spread."""
    out = []
    for folder in folders[:: max(1, len(folders) // 10)][:10]:
        share_jax("export", set_, folder.name, "-o", work / "exported", "--overwrite")
        out.append(error(folder, pairs(work / "exported")))
    return out


def quality(work: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """Error and size of the batch, of adding one at a time, and of a duplicate."""
    batch = share_jax("compress", *folders, "-o", work / "batch", "--k", SHARED, "--overwrite")
    true = share_jax("validate", work / "batch", "--against", *folders)["json"]["measured"]
    errors = [true[f.name]["relative_error"] for f in folders]
    least = best(folders, SHARED)
    grown = [share_jax("compress", folders[0], "-o", work / "grown", "--k", SHARED, "--overwrite")]
    grown += [share_jax("add", work / "grown", folder) for folder in folders[1:]]
    after = share_jax("validate", work / "grown", "--against", *folders)["json"]["measured"]
    shutil.rmtree(work / "twice", ignore_errors=True)
    shutil.copytree(work / "batch", work / "twice")
    shutil.rmtree(work / "again", ignore_errors=True)
    shutil.copytree(folders[0], work / "again" / "duplicate")
    twice = share_jax("add", work / "twice", work / "again" / "duplicate")["json"]
    changes = [t["last_change"] for name, t in twice["per_task"].items() if name != "duplicate"]
    sample = exported_errors(work, work / "batch", folders)
    return {
        "error_mean": float(np.mean(errors)),
        "best_possible_mean": float(np.mean(least)),
        "error_over_best": {
            "mean": float(np.mean(errors) / np.mean(least)),
            "max": float(np.max(np.array(errors) / np.array(least))),
            "root_of_sums": float(np.linalg.norm(errors) / np.linalg.norm(least)),
        },
        "exported_error_mean": float(np.mean(sample)),
        "ratio": sum(weight(f) for f in folders) / weight(work / "batch"),
        "one_at_a_time": {
            "error_mean": float(np.mean([m["relative_error"] for m in after.values()])),
            "over_batch": float(np.mean([m["relative_error"] for m in after.values()]) / np.mean(errors)),
            "bound_mean": float(np.mean([m["error_bound"] for m in after.values()])),
            "wall": sum(g["wall"] for g in grown),
            "cpu": sum(g["cpu"] for g in grown),
        },
        "duplicate_changes_at_most": max(changes),
        "compress": {key: batch[key] for key in ("wall", "cpu", "peak_bytes")},
        "k": batch["json"]["k"],
    }


def races(work: Path, folders: Sequence[Path], peers: Path, adds: int, repeat: int) -> dict[str, Any]:
    """The same jobs by us, lorashare and vlora in turn: compress all; then add some one at a time."""
    start, new = folders[:-adds], folders[-adds:]
    names = {"share_jax": [], "lorashare": [], "vlora": []}
    sizes: dict[str, int] = {}
    for _ in range(repeat):
        for name in names:
            out = work / f"race-{name}"
            shutil.rmtree(out, ignore_errors=True)
            found = {"compress": [], "add": []}
            if name == "share_jax":
                found["compress"].append(share_jax("compress", *start, "-o", out, "--k", SHARED))
                found["add"] += [share_jax("add", out, f) for f in new]
            elif name == "lorashare":  # it has no add: each new adapter means compressing all again
                found["compress"].append(measured([peers / name, "compress", *start, "-o", out, "-k", SHARED]))
                again = [*start, *new]
                found["add"].append(measured([peers / name, "compress", *again, "-o", out, "-k", SHARED]))
            else:
                found["compress"].append(measured([peers / name, "compress", *start, "-o", out, "-k", SHARED]))
                for f in new:
                    command = [peers / name, "add", out, f, "--task-id", f.name, "--incremental"]
                    found["add"].append(measured(command))
            names[name].append({job: [(x["wall"], x["cpu"]) for x in runs] for job, runs in found.items()})
            sizes[name] = weight(out)
    summary = {}
    for name, runs in names.items():
        summary[name] = {"bytes": sizes[name]}
        for i, clock in enumerate(("wall", "cpu")):
            jobs = {job: float(np.median([sum(x[i] for x in r[job]) for r in runs])) for job in ("compress", "add")}
            summary[name][clock] = {**jobs, "sum": sum(jobs.values())}
    summary["adds"] = {"share_jax": adds, "vlora": adds, "lorashare": "one command for all: it cannot add"}
    return summary


def memory(work: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """Peak memory and ratios at this many adapters, by storage."""
    out = {}
    modes = {
        "f32, k 32": ["--k", SHARED],
        "int8, k 32": ["--k", SHARED, "--storage", "int8"],
        "int8, k 32, pseudo rank 6": ["--k", SHARED, "--storage", "int8", "--pseudo-rank", 6],
        "int8, explained variance 0.6": ["--explained-variance", 0.6, "--storage", "int8"],
        "f32, k 32, pseudo rank 1": ["--k", SHARED, "--pseudo-rank", 1],
    }
    for name, options in modes.items():
        found = share_jax("compress", *folders, "-o", work / "many", "--overwrite", *options)
        data = found["json"]
        out[name] = {
            "peak_gib": found["peak_bytes"] / 2**30,
            "wall": found["wall"],
            "cpu": found["cpu"],
            "ratio": data["ratio"],
            "ratio_without_basis": data["bytes_in"] / (data["bytes_out"] - data["bytes"]["basis"]),
            "coefficients_ratio": data["coefficients"]["ratio"],
            "bytes_per_task": data["coefficients"]["bytes_per_task"],
            "error": data["relative_error"],
            "k": data["k"],
        }
        print(name, json.dumps(out[name]), flush=True)
    return out


def main() -> None:
    """Runs the chosen measurements and writes `adapters.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--modes", nargs="+", choices=("quality", "races", "memory"), default=["quality"])
    parser.add_argument("--peers", type=Path, help="the bin folder in which lorashare and vlora are installed")
    parser.add_argument("--adds", type=int, default=5, help="adapters that are added one at a time in the race")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of the race; medians are shown")
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    path = args.workdir / "adapters.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    folders = make(args.workdir / "in", args.tasks)
    result.update(tasks=args.tasks, cores=os.cpu_count())
    if "quality" in args.modes:
        result["quality"] = quality(args.workdir, folders)
    if "races" in args.modes:
        if args.peers is None:
            parser.error("--modes races needs --peers")
        result["races"] = races(args.workdir, folders, args.peers, args.adds, args.repeat)
    if "memory" in args.modes:
        result["memory"] = memory(args.workdir, folders)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

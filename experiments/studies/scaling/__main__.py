"""What scales and how, on paper where the machine ends: bytes sent and held per device and step, and a bound on time.

    python -m experiments.studies.scaling --json runs/scaling.json \
        --markdown experiments/studies/scaling/SCALING.md

Every figure is read off train steps that XLA compiled for a virtual mesh of up to 64 CPU devices: collectives from the
optimised HLO, memory from the compiler's own account. Models are abstract (`jax.eval_shape`), nothing is run and no
weight is allocated. Each number of devices is a subprocess, since it has to be known before JAX starts.

With the weights on each device, all that is sent is the adapter's. With sharded weights the frozen base model is
gathered for any kind of training; there an adapter's part is what depends on its rank: bytes at twice the rank less
those at the rank.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RANK, EXAMPLES, TOKENS = 8, 64, 512
DEVICES = (2, 8, 64)
TASKS = (1, 10, 1000)


def cases(devices: int) -> list[dict[str, Any]]:
    """What is compiled for a number of devices."""
    from experiments.studies.scaling.model import FORMS, FULL

    few = [FORMS[0], FORMS[1], FORMS[2], FORMS[4]]
    found = []
    for axis in ("data", "fsdp"):
        sizes = ("110M",) if devices < 64 or axis == "data" else ("110M", "1.3B", "6.7B")
        for size in sizes:
            forms = list(FORMS) if axis == "data" else few
            for form in (FULL, *forms):
                for rank in (RANK,) if form == FULL or axis == "data" else (RANK, 2 * RANK):
                    found.append({"size": size, "form": form, "axis": axis, "rank": rank, "slots": 0})
    if devices == 8:
        for form in (FORMS[1], FORMS[2], FORMS[4]):
            for slots in TASKS:
                found.append({"size": "tiny", "form": form, "axis": "data", "rank": RANK, "slots": slots})
    return found


def compile_all(devices: int) -> list[dict[str, Any]]:
    """Compiles the cases of a number of devices; JAX must have as many."""
    from experiments.studies.scaling.model import SIZES, account
    from share_jax.sharding.mesh_shape import MeshShape

    found = []
    for case in cases(devices):
        shape = MeshShape(**{case["axis"]: devices})
        options: Any = {"rank": case["rank"], "slots": case["slots"], "examples": EXAMPLES, "tokens": TOKENS}
        row = account(SIZES[case["size"]], case["form"], shape, **options)
        found.append({**case, "devices": devices, **row})
        print(f"{devices} devices, {case}", file=sys.stderr, flush=True)
    return found


def subprocess_of(devices: int) -> list[dict[str, Any]]:
    """`compile_all` in a process with so many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "experiments.studies.scaling", "--devices", str(devices)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles everything, and writes JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, help="compile for so many devices in this process, and print JSON")
    parser.add_argument("--json", type=Path, default=Path("runs/scaling.json"))
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--rows", type=Path, help="make the page of this JSON alone, and compile nothing")
    args = parser.parse_args(argv)
    if args.devices:
        print(json.dumps(compile_all(args.devices)))
        return
    from experiments.studies.scaling.page import page

    if args.rows:
        rows = json.loads(args.rows.read_text(encoding="utf-8"))["rows"]
    else:
        rows = [row for devices in DEVICES for row in subprocess_of(devices)]
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"suite": "scaling", "rows": rows}, indent=1), encoding="utf-8")
    text = page(rows, rank=RANK, examples=EXAMPLES, tokens=TOKENS)
    print(text)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

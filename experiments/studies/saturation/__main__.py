"""Does one subspace saturate? Error and accuracy of up to 200 tasks merged into `share`, at fixed k and with k growing.

    python -m experiments.studies.saturation --data-folder path/to/clinc150 --json runs/saturation.json \
        --markdown experiments/studies/saturation/SATURATION.md

200 small tasks are drawn from CLINC150 and learnt on the frozen MiniLM, each as a LoRA of its own on the last FFN-down
kernel. They are merged into one subspace one after another, and at 10, 25, 50, 100 and 200 tasks every task's update
and accuracy is compared with its own LoRA's. Each LoRA starts from an A of its own; with `--starts own,one` everything
is done again with all starting from one. About three minutes of two free cores.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.report.notify import to_stderr
from experiments.report.versions import versions
from experiments.studies.saturation.page import write_page
from experiments.studies.saturation.run import prepare, run
from experiments.studies.saturation.varied import ALL, COUNTS, PARTS
from share_jax.errors import InputError, ShareError, message
from share_jax.runtime.malloc import keep_freed


def together(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Parts of one study, with the same tasks and LoRAs, as one.

    Raises:
        InputError: they were not run alike.
    """
    first, *others = contents
    for other in others:
        for key in ("suite", "budget", "seed", "versions"):
            if other[key] != first[key]:
                fix = "run all parts alike"
                raise InputError(message(f"--rows, {key}", got=other[key], expected=first[key], fix=fix))
    return {**first, "rows": [row for content in contents for row in content["rows"]]}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study, and writes JSON, the page and its plots; 2 for bad input."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # JAX's batched SVD can hang when OpenBLAS threads it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-folder", type=Path, help="CLINC150 as a folder; from TensorFlow Datasets if not given")
    parser.add_argument("--cache-dir", type=Path, help="where weights are kept")
    parser.add_argument("--tasks", type=int, default=COUNTS[-1], help="how many tasks at most")
    parser.add_argument("--starts", default="own", choices=("own", "one", "own,one"), help="where the LoRAs start")
    parser.add_argument("--choices", default="all", choices=("all", *PARTS), help="how k is chosen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("runs/saturation.json"))
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--rows", type=Path, nargs="+", help="make the page of these JSONs alone, and run nothing")
    args = parser.parse_args(argv)
    try:
        if args.rows:
            content = together([json.loads(path.read_text(encoding="utf-8")) for path in args.rows])
        else:
            tasks, study = prepare(args.data_folder, args.cache_dir, args.tasks, args.seed)
            counts = [count for count in COUNTS if count <= args.tasks]
            content = {"suite": "saturation", "budget": asdict(study.budget), "seed": args.seed, "versions": versions()}
            args.json.parent.mkdir(parents=True, exist_ok=True)

            def keep(rows: list[dict[str, Any]]) -> None:
                content["rows"] = rows
                args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

            run(tasks, study, counts, args.seed, to_stderr, keep, args.starts.split(","), PARTS.get(args.choices, ALL))
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.markdown:
        write_page(content, args.markdown)
        print(args.markdown)
    return 0


if __name__ == "__main__":
    keep_freed()
    sys.exit(main())

"""Runs an experiment: `python -m experiments.run --help`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.config import Config, command_line, parse
from share_jax.errors import ShareError

RESULTS = "results.json"


def run(config: Config) -> Path:
    """Learns the stream with every method and seed, and writes results, plots and report.

    Returns:
        The path of `results.json`.

    Raises:
        ShareError: for anything that the user can mend.
    """
    from experiments import workdir
    from experiments.build import build
    from experiments.methods.job import Job, Outcome
    from experiments.methods.registry import run_method
    from experiments.report.markdown import write_report
    from experiments.report.progress import open_progress
    from experiments.report.results import MethodResult, Results, Run, write_results
    from experiments.report.table import print_table

    folder = workdir.take(config)
    stream, backbone = build(config, _silent if config.quiet else _to_stderr)
    trained = [name for name in config.methods if name != "majority"]
    total = len(trained) * len(config.seeds) * len(stream.tasks) * config.steps
    found: dict[str, list[Outcome]] = {}
    with open_progress(total, config.quiet) as progress:
        for name in config.methods:
            for seed in config.seeds:
                where = folder / "checkpoints" / name / f"seed-{seed}"
                job = Job(name, config, stream, backbone, seed, where, progress)
                found.setdefault(name, []).append(run_method(job))
    results = Results(
        experiment=config.experiment,
        preset=config.preset,
        protocol=stream.protocol,
        task_names=tuple(task.name for task in stream.tasks),
        methods=tuple(
            MethodResult(
                name,
                tuple(
                    Run(seed, out.accuracy, out.untrained, out.seconds, out.extra)
                    for seed, out in zip(config.seeds, outcomes, strict=True)
                ),
                outcomes[0].params,
                outcomes[0].bytes,
            )
            for name, outcomes in found.items()
        ),
        command=command_line(config),
    )
    content = write_results(results, folder / RESULTS)
    report = write_report(content, folder)
    print_table(content)
    print("Results: " + str(folder / RESULTS))
    print("Report:  " + str(report))
    for plot in sorted(folder.glob("*.png")):
        print(f"Plot:    {plot}")
    return folder / RESULTS


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _silent(text: str) -> None:
    """Tells nobody."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 when it ran, 2 for bad usage or input, 130 when interrupted."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # JAX's batched SVD can hang when OpenBLAS threads it
    try:
        run(parse(sys.argv[1:] if argv is None else argv))
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: add --resume to go on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One run from its configuration to its report: every method with every seed on one stream."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments import workdir
from experiments.algorithms.job import Job, Outcome, check_methods, run_method
from experiments.backbones.backbone import Backbone, PooledFeatures
from experiments.config.methods import PROMPTED
from experiments.config.run_config import Config, command_line
from experiments.devices import Devices, open_devices
from experiments.report.announce import beginning, ending
from experiments.report.markdown import write_report
from experiments.report.notify import to_nobody, to_stderr
from experiments.report.page import write_html
from experiments.report.progress import open_progress
from experiments.report.results import MethodResult, Results, Run, write_results
from experiments.report.samples import plain_samples
from experiments.report.scalars import logged
from experiments.report.table import print_table
from experiments.stream_and_backbone import build
from experiments.streams.base import Stream
from share_jax.runtime import processes
from share_jax.runtime.preemption import Preemption


def learn_and_report(config: Config, results: Path, preemption: Preemption) -> Path:
    """Learns the stream with every method and seed; the first process writes results, plots and report.

    Args:
        config: what to run.
        results: the path of `results.json`; all else goes beside it.
        preemption: what tells the run to stop.

    Returns:
        `results`.

    Raises:
        ShareError: for anything that the user can fix.
        Preempted: if it was told to stop.
    """
    if config.distributed:
        config = replace(config, quiet=config.quiet or not processes.primary())
    devices = open_devices(config)
    tell = to_nobody if config.quiet else to_stderr
    tell(beginning(config))
    stream, backbone = build(config, tell)
    check_methods(config.methods, stream)
    found = outcomes(config, stream, backbone, results.parent, devices, preemption)
    if processes.primary():
        tell(ending(report(results_of(config, stream, found), results), config))
    return results


def outcomes(
    config: Config, stream: Stream, backbone: Backbone, folder: Path, devices: Devices, preemption: Preemption
) -> dict[str, list[Outcome]]:
    """What each method found, by its name, one outcome a seed."""
    trained = [name for name in config.methods if name not in ("majority", *PROMPTED)]
    total = len(trained) * len(config.seeds) * len(stream.tasks) * config.steps
    features = PooledFeatures(config.eval_batch_size)
    found: dict[str, list[Outcome]] = {}
    with open_progress(total, config.quiet) as progress:
        for name in config.methods:
            for seed in config.seeds:
                where = folder / workdir.CHECKPOINTS / name / f"seed-{seed}"
                with logged(config, progress, stream, name, seed) as told:
                    job = Job(name, config, stream, backbone, seed, where, told, preemption, devices, features)
                    found.setdefault(name, []).append(run_method(job))
    return found


def results_of(config: Config, stream: Stream, found: Mapping[str, Sequence[Outcome]]) -> Results:
    """The outcomes as `results.json` has them."""
    return Results(
        experiment=config.experiment,
        preset=config.preset,
        protocol=stream.protocol,
        task_names=tuple(task.name for task in stream.tasks),
        methods=tuple(
            MethodResult(
                name,
                tuple(
                    Run(seed, out.accuracy, out.untrained, out.seconds, out.extra)
                    for seed, out in zip(config.seeds, own, strict=True)
                ),
                own[0].params,
                own[0].bytes,
            )
            for name, own in found.items()
        ),
        command=command_line(config),
        metrics=tuple(task.metric for task in stream.tasks),
    )


def report(results: Results, path: Path) -> Path:
    """Writes results, pages and plots, and prints the table and where all is; returns the page to look at first."""
    content = write_results(results, path)
    page, text = write_html(content, path.parent), write_report(content, path.parent)
    print_table(content)
    if written := plain_samples(content):
        print(f"\n{written}\n")
    print(f"Page:    {page}")
    print(f"Report:  {text}")
    print(f"Results: {path}")
    for plot in sorted(path.parent.glob("*.png")):
        print(f"Plot:    {plot}")
    return page

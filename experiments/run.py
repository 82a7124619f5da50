"""Runs an experiment: `python -m experiments.run --help`."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from experiments.config.methods import PROMPTED
from experiments.config.run_config import Config, command_line, parse
from share_jax.errors import ShareError, message
from share_jax.runtime.closed_output import drop_output
from share_jax.runtime.malloc import keep_freed
from share_jax.runtime.preemption import Preempted, Preemption

RESULTS = "results.json"


def run(config: Config, preemption: Preemption | None = None) -> Path:
    """Learns the stream with every method and seed, and writes results, plots and report.

    Args:
        config: what to run.
        preemption: what tells the run to stop; nothing does when None.

    Returns:
        The path of `results.json`.

    Raises:
        ShareError: for anything that the user can fix.
        Preempted: if it was told to stop.
    """
    from experiments import workdir
    from share_jax.runtime import processes

    _keep_compiled(config.compile_cache)
    with ExitStack() as stack:
        processes.on_primary("--workdir", lambda: stack.enter_context(workdir.locked_workdir(config)))
        return _run(config, config.workdir, preemption or Preemption())


def _run(config: Config, folder: Path, preemption: Preemption) -> Path:
    from experiments import workdir
    from experiments.algorithms.job import Job, Outcome, check_methods, run_method
    from experiments.backbones.backbone import PooledFeatures
    from experiments.devices import open_devices
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
    from share_jax.runtime import processes

    if config.distributed:
        config = replace(config, quiet=config.quiet or not processes.primary())
    devices = open_devices(config)
    tell = to_nobody if config.quiet else to_stderr
    tell(beginning(config))
    stream, backbone = build(config, tell)
    check_methods(config.methods, stream)
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
    if not processes.primary():
        return folder / RESULTS
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
        metrics=tuple(task.metric for task in stream.tasks),
    )
    content = write_results(results, folder / RESULTS)
    page, report = write_html(content, folder), write_report(content, folder)
    print_table(content)
    if written := plain_samples(content):
        print(f"\n{written}\n")
    print(f"Page:    {page}")
    print(f"Report:  {report}")
    print(f"Results: {folder / RESULTS}")
    for plot in sorted(folder.glob("*.png")):
        print(f"Plot:    {plot}")
    tell(ending(page))
    return folder / RESULTS


def _keep_compiled(folder: Path | None) -> None:
    """Turns JAX's persistent compilation cache on, for every program however small."""
    if folder is None:
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # what was compiled before has set it up without a folder


def _terminated(what: str) -> None:
    print(f"terminated: {what}; add --resume to go on", file=sys.stderr, flush=True)


def guarded(work: Callable[[], object], again: str) -> int:
    """Does the work of a command line: 0 when it ran or was told to stop, 2 for bad input, 130 when interrupted.

    Args:
        work: raises `ShareError` for anything that the user can fix, and `Preempted` if it was told to stop.
        again: how the user goes on with what was broken off.
    """
    try:
        work()
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        drop_output()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        what = error.filename or "a file of the run"
        fix = f"free or add space, then {again} from the last checkpoint"
        print(f"error: {message(what, got=error.strerror, expected='room to write', fix=fix)}", file=sys.stderr)
        return 2
    except Preempted:
        return 0
    except KeyboardInterrupt:
        print(f"interrupted: {again} from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 when it ran or was told to stop, 2 for bad usage or input, 130 when interrupted."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # JAX's batched SVD can hang when OpenBLAS threads it

    def work() -> None:
        config = parse(sys.argv[1:] if argv is None else argv)
        if config.distributed:
            from share_jax.runtime.processes import initialize

            initialize()
        with Preemption(_terminated) as preemption:
            run(config, preemption)

    return guarded(work, "add --resume to go on")


if __name__ == "__main__":
    keep_freed()
    sys.exit(main())

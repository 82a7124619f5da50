"""Runs an experiment: `python -m experiments.run --help`."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from experiments.config.run_config import Config, parse
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
    from experiments.whole_run import learn_and_report
    from share_jax.runtime import processes

    _keep_compiled(config.compile_cache)
    with ExitStack() as stack:
        processes.on_primary("--workdir", lambda: stack.enter_context(workdir.locked_workdir(config)))
        return learn_and_report(config, config.workdir / RESULTS, preemption or Preemption())


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

"""Many processes as one run: joining them, what the first does alone, and what all must agree on.

JAX runs the same program in every process; whatever touches a file, or can fail on one process alone, needs a word
with the others, or they wait for ever. With one process all of this is free.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from share_jax.errors import InputError, ShareError, first_line, message

T = TypeVar("T")

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def initialize() -> None:
    """Joins this process with the others, before anything else of JAX is used.

    On TPU slices, and under Slurm and Open MPI, JAX finds out by itself. Elsewhere, set in each process
    JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    From then on JAX's preemption service takes SIGTERM and the process does not end by it. A handler of one's own hears
    SIGTERM only if it is installed after this call, and JAX's service then does not; ask
    `multihost_utils.reached_preemption_sync_point` instead, which gives every process the same answer.

    Raises:
        InputError: if there is nothing to find out from, or the variables are not numbers.
    """
    count, index = os.environ.get(COUNT), os.environ.get(INDEX)
    fix = f"set {COORDINATOR}, {COUNT} and {INDEX} in every process, or leave --distributed out"
    try:
        if count is not None and index is not None:
            jax.distributed.initialize(os.environ.get(COORDINATOR), int(count), int(index))
        else:
            jax.distributed.initialize()
    except ValueError as error:
        raise InputError(
            message("--distributed", got=first_line(error), expected="a cluster that JAX knows", fix=fix)
        ) from error


def primary() -> bool:
    """Whether this process writes what there is one of: reports, manifests, the notes of a run."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Returns when all processes are here; `name` says where, for JAX's message when they are not."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreed(value: bool) -> bool:
    """The first process's answer, on all: for a look at a file system that may change between two looks."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


def on_primary(what: str, run: Callable[[], T]) -> T | None:
    """Runs something on the first process alone while the others wait; they get None.

    Args:
        what: what is done, for the message.
        run: what to do.

    Raises:
        ShareError: on the other processes, if it failed on the first, where its own error is raised.
    """
    if jax.process_count() == 1:
        return run()
    result: T | None = None
    failed: Exception | None = None
    if primary():
        try:
            result = run()
        except Exception as error:  # re-raised below, once the others have been told
            failed = error
    good = agreed(failed is None)
    if failed is not None:
        raise failed
    if not good:
        raise ShareError(
            message(what, got="a failure on process 0", expected="success", fix="see that process's message")
        )
    return result


def to_host(tree: Any) -> Any:
    """Every leaf whole, as numpy, on every process; all processes have to call it.

    Leaves that lie on devices of other processes are gathered from there.
    """

    def leaf(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
            return np.asarray(multihost_utils.process_allgather(array, tiled=True))
        return np.asarray(array)

    return jax.tree.map(leaf, tree)

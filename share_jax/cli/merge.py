"""`share-jax merge SET TASK... -o DIR`: several tasks as one adapter."""

import argparse
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from share_jax.adapter_set.store import AdapterSet, read_set
from share_jax.adapters.arithmetic import dare, ties, weighted_sum
from share_jax.cli.inputs import check_no_bank
from share_jax.cli.options import add_output, below_one, emit, fraction, number, whole
from share_jax.cli.output_folder import check_output
from share_jax.cli.report import megabytes
from share_jax.errors import InputError, TaskError, message
from share_jax.formats.export import check_mergeable, merged_config
from share_jax.formats.format import writer
from share_jax.formats.peft_keys import TRAINING
from share_jax.storage.untrusted import publish, shown
from share_jax.subspace.state import factors_of

_OPTIONS: dict[str, dict[str, Any]] = {"linear": {}, "ties": {"density": 0.2}, "dare": {"drop_rate": 0.5, "seed": 0}}
"""The flags that one method alone takes, with their defaults."""


EXAMPLE = "share-jax merge shared cola mrpc --method ties -o both"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set")
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="two tasks or more")
    add_output(parser, "the adapter")
    parser.add_argument("--method", choices=tuple(_OPTIONS), default="linear", help="default: linear")
    parser.add_argument("--weights", type=number, nargs="+", metavar="W",
                        help="one per task (default: 1/n each; TIES, which takes a mean itself: 1 each)")  # fmt: skip
    parser.add_argument("--density", type=fraction, metavar="D", help="TIES: share of entries kept (0.2)")
    parser.add_argument("--drop-rate", type=below_one, metavar="P", help="DARE: share dropped (0.5)")
    parser.add_argument("--seed", type=int, help="DARE: seed of the drops (0)")
    parser.add_argument("--rank", type=whole, metavar="R", help="rank of the result (default: sum of the tasks' ranks)")
    parser.add_argument("--heads-from", metavar="TASK", help="whose heads and biases to write; they are not merged")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"), default="f32", help="dtype of the factors (f32)")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    check_no_bank(args.set)
    out = check_output(args.output, args.overwrite, [args.set])
    options = method_options(args)
    if len(args.tasks) < 2 or len(set(args.tasks)) != len(args.tasks):
        raise TaskError(
            message("tasks", got=" ".join(args.tasks), expected="two or more, each once", fix="name others")
        )
    weights = args.weights or [1.0 if args.method == "ties" else 1 / len(args.tasks)] * len(args.tasks)
    if len(weights) != len(args.tasks):
        raise InputError(message("--weights", got=len(weights), expected=len(args.tasks), fix="give one per task"))
    done = read_set(args.set)
    entries = {task: done.task(task) for task in args.tasks}
    for task, entry in entries.items():
        check_mergeable(done.manifest.configs[entry.config], f"task {shown(task)}")
    heads = heads_task(done, args.tasks, args.heads_from)

    adapter = merge_adapters(args, [factors_of(done.state, task) for task in args.tasks], weights, options)
    configs = {task: done.manifest.configs[entry.config] for task, entry in entries.items()}
    if heads is not None:
        configs[heads] = done.manifest.configs[done.task(heads).config]
    config = merged_config(configs, adapter, heads)
    extras = {} if heads is None else done.extras(heads)
    with publish(out, overwrite=args.overwrite) as temp:
        metadata = done.task(heads or args.tasks[0]).metadata
        config = writer("PEFT")(temp, adapter, config, extras, metadata, args.dtype, done.manifest.forms)
        size = sum(path.stat().st_size for path in temp.iterdir())
    data = {
        "tasks": args.tasks,
        "method": args.method,
        "weights": weights,
        "rank": config["r"],
        "modules": len(adapter),
        "bytes": size,
        "seconds": time.perf_counter() - begin,
    }
    emit(
        args, data, lambda: f"{args.output}: {args.method} of {len(args.tasks)}, rank {config['r']}, {megabytes(size)}"
    )
    return 0


def method_options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of the flags that the method alone takes.

    Raises:
        InputError: a flag was given that the method does not use.
    """
    own = _OPTIONS[args.method]
    for method, flags in _OPTIONS.items():
        for flag in flags:
            if flag not in own and getattr(args, flag) is not None:
                raise InputError(
                    message(f"--{flag.replace('_', '-')}", got=f"--method {args.method}, which does not use it",
                         expected=f"--method {method}", fix="leave the flag out or change the method")
                )  # fmt: skip
    return {flag: value if getattr(args, flag) is None else getattr(args, flag) for flag, value in own.items()}


def heads_task(done: AdapterSet, tasks: Sequence[str], named: str | None) -> str | None:
    """The task whose uncompressed tensors are written; None where none has any.

    It is the one that was named, else the first, if all have the same tensors to the byte: PEFT saves embeddings whole
    beside a pair on them, though they did not train.

    Raises:
        InputError: the named task has no such tensors, or none was named and the tasks' differ.
        TaskError: the set has no task of that name.
    """
    for task in (*tasks, *([] if named is None else [named])):
        done.task(task)
    if named in done.manifest.extras:
        return named
    beside = {task: _beside(done, task) for task in tasks}
    first = next((task for task in tasks if beside[task]), None)
    if named is not None:
        raise InputError(
            message(f"--heads-from {shown(named)}", got="a task without heads or biases", expected="one that has some",
                 fix="leave the flag out" if first is None else f"name another, for example {shown(first)}")
        )  # fmt: skip
    if first is None or all(beside[task] == beside[first] for task in tasks):
        return first
    got = f"tensors beside the pairs that differ or that not all tasks have, as {shown(next(iter(beside[first])), 120)}"
    raise InputError(
        message("merge", got=got, expected="none (heads, biases, embeddings saved whole), or the same in every task",
             fix=f"pass --heads-from TASK, for example {shown(first)}")
    )  # fmt: skip


def _beside(done: AdapterSet, task: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What a task has beside its factors, other than buffers of training: kinds, shapes and hashes."""
    found = done.extras(task).items()
    return {
        name: (raw.dtype, tuple(raw.shape), sha256(raw.data).digest())
        for name, raw in found
        if TRAINING not in name.split(".")
    }


def merge_adapters(args: argparse.Namespace, adapters: list, weights: list[float], options: dict[str, Any]) -> Any:
    """The merged adapter by the method that was asked for."""
    if args.method == "linear":
        return weighted_sum(adapters, weights, rank=args.rank)
    if args.method == "ties":
        return ties(adapters, weights, density=options["density"], rank=args.rank)
    return dare(adapters, weights, drop_rate=options["drop_rate"], seed=options["seed"], rank=args.rank)

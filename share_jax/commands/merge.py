"""`share-jax merge OUT TASK... -o DIR`: several tasks as one adapter."""

import argparse
import time
from typing import Any

from share_jax.commands.options import add_output, command, emit, fraction, number, whole


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = command(
        subparsers, "merge", run, "Write the merge of several tasks as a PEFT folder.",
        "share-jax merge shared cola mrpc --method ties -o both",
    )  # fmt: skip
    parser.add_argument("set", metavar="OUT", help="the set")
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="two tasks or more")
    add_output(parser, "the adapter")
    parser.add_argument("--method", choices=("linear", "ties", "dare"), default="linear")
    parser.add_argument("--weights", type=number, nargs="+", metavar="W", help="one per task (default: 1/n each)")
    parser.add_argument("--density", type=fraction, default=0.2, metavar="D", help="TIES: share of entries kept (0.2)")
    parser.add_argument("--drop-rate", type=fraction, default=0.5, metavar="P", help="DARE: share dropped (0.5)")
    parser.add_argument("--seed", type=int, default=0, help="DARE: seed of the drops (0)")
    parser.add_argument("--rank", type=whole, metavar="R", help="rank of the result (default: as the method gives)")
    parser.add_argument("--heads-from", metavar="TASK", help="whose heads and biases to write; they are not merged")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"), default="f32")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from share_jax.commands.report import megabytes
    from share_jax.errors import InputError, TaskError, line
    from share_jax.interop.adapter_set import read_set
    from share_jax.interop.export import export_adapter, merged_config
    from share_jax.interop.paths import check_output, publish

    begin = time.perf_counter()
    out = check_output(args.output, args.overwrite)
    if len(args.tasks) < 2 or len(set(args.tasks)) != len(args.tasks):
        raise TaskError(line("tasks", got=" ".join(args.tasks), expected="two or more, each once", mend="name others"))
    weights = args.weights or [1 / len(args.tasks)] * len(args.tasks)
    if len(weights) != len(args.tasks):
        raise InputError(line("--weights", got=len(weights), expected=len(args.tasks), mend="give one per task"))
    done = read_set(args.set)
    entries = {task: done.task(task) for task in args.tasks}
    heads = args.heads_from
    if heads is not None:
        done.task(heads)
    elif any(entry.extra for entry in entries.values()):
        raise InputError(
            line("merge", got="tasks with tensors that cannot be merged (heads, biases)", expected="none",
                 mend=f"pass --heads-from TASK, for example {args.tasks[0]}")
        )  # fmt: skip

    from share_jax.core.subspace import factors_of

    adapter = merge_adapters(args, [factors_of(done.state, task) for task in args.tasks], weights)
    config = merged_config([done.manifest.configs[entry.config] for entry in entries.values()], adapter)
    extras = {} if heads is None else done.extras(heads)
    with publish(out) as temp:
        config = export_adapter(temp, adapter, config, extras, done.task(heads or args.tasks[0]).metadata, args.dtype)
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


def merge_adapters(args: argparse.Namespace, adapters: list, weights: list[float]) -> Any:
    """The merged adapter by the method that was asked for."""
    from share_jax.core.arithmetic import dare, ties, weighted_sum

    if args.method == "linear":
        return weighted_sum(adapters, weights, rank=args.rank)
    if args.method == "ties":
        return ties(adapters, weights, density=args.density, rank=args.rank)
    import jax

    return dare(adapters, weights, drop_rate=args.drop_rate, key=jax.random.key(args.seed), rank=args.rank)

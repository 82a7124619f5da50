"""`share-jax evaluate BANK --task NAME --data FILE.jsonl`: how well a task is known."""

import argparse

from share_jax import language
from share_jax.cli.options import emit
from share_jax.cli.table import table
from share_jax.errors import InputError, message
from share_jax.text.examples import read_examples

EXAMPLE = "share-jax evaluate bank --task sql --data sql-test.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bank", metavar="BANK", help="the folder of the tasks")
    parser.add_argument("--data", required=True, metavar="FILE", help="JSONL: prompt and completion, text, or messages")
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="the task; may be repeated (default: every one)"
    )
    parser.add_argument(
        "--options",
        nargs="*",
        metavar="TEXT",
        help="allowed answers, of which the likeliest is chosen, too: these, or all the completions in FILE",
    )
    parser.add_argument("--model", metavar="PATH", help="base model, where it has moved")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    examples = read_examples(args.data)
    opened = language.open_language_bank(args.bank, args.model)
    if not opened.bank.names:
        what, fix = f"bank {args.bank}", "learn a task first (share-jax learn)"
        raise InputError(message(what, got="no tasks", expected="at least one", fix=fix))
    names = args.task or opened.bank.names
    found = {name: language.evaluate(opened, name, examples, options=args.options) for name in names}
    data = {
        "data": args.data,
        "examples": len(examples),
        "tasks": {name: each._asdict() for name, each in found.items()},
    }
    head = [("task", "exact match", "tokens", "bits per byte", *["of the options"] * (args.options is not None))]
    rows = [
        (
            name,
            f"{each.exact_match:.1%}",
            f"{each.token_accuracy:.1%}",
            f"{each.bits_per_byte:.4f}",
            *_chosen(each.option_accuracy),
        )
        for name, each in found.items()
    ]
    cut = max(each.cut for each in found.values())
    first = f"{args.data}, {len(examples)} examples" + (f", {cut} cut to fit" if cut else "")
    emit(args, data, lambda: f"{first}\n{table(head + rows)}")
    return 0


def _chosen(accuracy: float | None) -> tuple[str, ...]:
    return () if accuracy is None else (f"{accuracy:.1%}",)

"""`share-jax generate BANK --task NAME|--route --prompt TEXT|--file prompts.jsonl`: what the tasks' model writes."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share_jax import language
from share_jax.cli.options import emit, fraction, number, seed, whole
from share_jax.cli.output_folder import check_file_output
from share_jax.errors import InputError, message
from share_jax.language.folder import model_place
from share_jax.language.settings import read_settings
from share_jax.storage.atomic_write import replace_text
from share_jax.text.examples import Message, as_prompt
from share_jax.text.json_lines import Problem, read_json_lines

if TYPE_CHECKING:
    from share_jax.language import LanguageBank
    from share_jax.models import Completion

EXAMPLE = "share-jax generate bank --file prompts.jsonl -o answers.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bank", metavar="BANK", help="the folder of the tasks")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", metavar="TEXT", help="one prompt")
    asked.add_argument("--file", metavar="FILE", help='JSONL, {"prompt" or "messages", "task"} a line; - is stdin')
    unnamed = parser.add_mutually_exclusive_group()
    unnamed.add_argument("--task", metavar="NAME", help="task of every prompt that names none")
    unnamed.add_argument("--route", action="store_true", help="choose the task of prompts without one")
    parser.add_argument("--model", metavar="PATH", help="base model, where it has moved")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the lines go, each with its completion; "
                        "a completion that a line without a reference has is kept as one")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--max-tokens", type=whole, metavar="N", default=64, help="longest completion (default: 64)")
    parser.add_argument("--temperature", type=number, metavar="X", default=0.0, help="0 takes the likeliest tokens")
    parser.add_argument("--top-k", type=whole, metavar="N", help="draw from the N likeliest tokens")
    parser.add_argument("--top-p", type=fraction, metavar="X", help="draw from tokens of this probability together")
    parser.add_argument("--seed", type=seed, metavar="N", default=0, help="of the draws (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    _check_draws(args)
    out = None if args.output is None else _place(args)
    records, asked, labels = _asked(args)
    opened = language.open_language_bank(args.bank, args.model)
    prompts = [_prompt(opened, each, label) for each, label in zip(asked, labels, strict=True)]
    tasks = _tasks(args, opened, records, prompts, labels)
    made = opened.generate(
        tasks, prompts,
        max_tokens=args.max_tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p,
        seed=args.seed, labels=labels,
    )  # fmt: skip
    lines = [_line(record, task, each) for record, task, each in zip(records, tasks, made, strict=True)]
    cut = sum(not each.stopped for each in made)
    if out is not None:
        replace_text("".join(lines), out)
        data = {"output": args.output, "completions": len(lines), "cut": cut}
        emit(args, data, lambda: f"{args.output}: {len(lines)} completions")
    elif args.json or args.file is not None:
        sys.stdout.writelines(lines)
    else:
        if args.route:
            print(f"task: {tasks[0]}", file=sys.stderr)
        print(made[0].text)
    if cut:
        told = f"{cut} of {len(lines)} completions were cut at --max-tokens {args.max_tokens}"
        print(f"share-jax: note: {told}", file=sys.stderr)
    return 0


def _place(args: argparse.Namespace) -> Path:
    """Where the lines may go: apart from the bank, its model and the prompts."""
    check_file_output(args.output)
    model = read_settings(args.bank).model if args.model is None else args.model
    asked = [] if args.file in (None, "-") else [args.file]
    read = [args.bank, model_place(model, Path(args.bank)), *asked]
    return check_file_output(args.output, read, overwrite=args.overwrite)


def _check_draws(args: argparse.Namespace) -> None:
    for option, value in (("--top-k", args.top_k), ("--top-p", args.top_p)):
        if value is not None and args.temperature == 0:
            fix = "pass --temperature, too, or leave it out"
            raise InputError(message(option, got=value, expected="none at temperature 0, which draws nothing", fix=fix))


def _asked(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str | tuple[Message, ...]], list[str]]:
    """The records, what each asks for, and what messages call it."""
    if args.file is None:
        record = {"prompt": args.prompt}
        found = as_prompt(record)
        if isinstance(found, Problem):
            raise InputError(message("--prompt", **found._asdict()))
        return [record], [found], ["the prompt"]

    def checked(record: dict[str, Any]) -> tuple[dict[str, Any], str | tuple[Message, ...]] | Problem:
        found = as_prompt(record)
        return found if isinstance(found, Problem) else (record, found)

    lines = read_json_lines(args.file, checked)
    labels = [f"{args.file} line {place}" for place, _ in lines]
    return [record for _, (record, _) in lines], [found for _, (_, found) in lines], labels


def _prompt(opened: "LanguageBank", asked: str | tuple[Message, ...], label: str) -> Any:
    """A text, or of a chat its tokens."""
    if isinstance(asked, str):
        return asked
    from share_jax.train.token_rows import chat_text  # loads JAX, which a refusal before it does without

    tokenizer = opened.pretrained.tokenizer
    return tokenizer.encode(chat_text(tokenizer, asked, label), special=False)


def _line(record: dict[str, Any], task: str, made: "Completion") -> str:
    """The line that comes out for a record; a reference that it has stays, and else is the completion that it has."""
    had = "completion" in record and "reference" not in record
    reference = {"reference": record["completion"]} if had else {}
    line = {**record, "task": task, **reference, "completion": made.text, "stopped": made.stopped}
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write as an escape alone
        text = json.dumps(line)
    return f"{text}\n"


def _tasks(
    args: argparse.Namespace,
    opened: "LanguageBank",
    records: Sequence[dict[str, Any]],
    prompts: Sequence[Any],
    labels: Sequence[str],
) -> list[str]:
    """Each prompt's task: its own, that of --task, or with --route the one that it is the likeliest to be of."""
    names = opened.bank.names
    routed = [place for place, record in enumerate(records) if args.route and record.get("task") is None]
    named = sorted(set(range(len(records))) - set(routed))
    own = {place: _task(records[place], labels[place], args.task, names) for place in named}
    asked, called = [prompts[place] for place in routed], [labels[place] for place in routed]
    chosen = language.tasks_of_prompts(opened, asked, labels=called) if routed else []
    found = {**own, **dict(zip(routed, chosen, strict=True))}
    return [found[place] for place in range(len(records))]


def _task(record: dict[str, Any], label: str, usual: str | None, names: tuple[str, ...]) -> str:
    task = usual if record.get("task") is None else record["task"]
    if task in names:
        return task
    got = "none" if task is None else repr(task)
    fix = 'pass --task NAME or --route, or give each line a "task"'
    expected = f"one of {', '.join(names) or 'no tasks'}"
    raise InputError(message(f"task of {label}", got=got, expected=expected, fix=fix))

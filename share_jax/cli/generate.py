"""`share-jax generate BANK --task NAME|--route --prompt TEXT|--file prompts.jsonl`: what the tasks' model writes."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share_jax import language
from share_jax.cli.options import fraction, number, whole
from share_jax.errors import InputError, message
from share_jax.storage.atomic_write import replace_text
from share_jax.text.json_lines import Problem, read_json_lines

if TYPE_CHECKING:
    from share_jax.language import LanguageBank

EXAMPLE = "share-jax generate bank --file prompts.jsonl -o answers.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bank", metavar="BANK", help="the folder of the tasks")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", metavar="TEXT", help="one prompt")
    asked.add_argument("--file", metavar="FILE", help='JSONL: {"prompt" or "messages", "task"} on each line')
    unnamed = parser.add_mutually_exclusive_group()
    unnamed.add_argument("--task", metavar="NAME", help="task of every prompt that names none")
    unnamed.add_argument("--route", action="store_true", help="choose the task of prompts without one")
    parser.add_argument("--model", metavar="PATH", help="base model, where it has moved")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the lines go, each with its completion")
    parser.add_argument("--max-tokens", type=whole, metavar="N", default=64, help="longest completion (default: 64)")
    parser.add_argument("--temperature", type=number, metavar="X", default=0.0, help="0 takes the likeliest tokens")
    parser.add_argument("--top-k", type=whole, metavar="N", help="draw from the N likeliest tokens")
    parser.add_argument("--top-p", type=fraction, metavar="X", help="draw from tokens of this probability together")
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="of the draws (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    records = [{"prompt": args.prompt}] if args.file is None else _records(args.file)
    opened = language.open_language_bank(args.bank, args.model)
    chats = [place for place, record in enumerate(records) if "messages" in record]
    prompts: list[Any] = [record.get("prompt") for record in records]
    tokenizer = opened.pretrained.tokenizer
    for place in chats:
        text = tokenizer.chat(records[place]["messages"])
        prompts[place] = tokenizer.encode(text, special=False)
    tasks = _tasks(args, opened, records, prompts)
    made = opened.generate(
        tasks, prompts,
        max_tokens=args.max_tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p,
        seed=args.seed,
    )  # fmt: skip
    lines = [
        {**record, "task": task, "completion": each.text}
        for record, task, each in zip(records, tasks, made, strict=True)
    ]
    if args.output is not None:
        replace_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), Path(args.output))
    elif args.json or args.file is not None:
        sys.stdout.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    else:
        if args.route:
            print(f"task: {tasks[0]}", file=sys.stderr)
        print(lines[0]["completion"])
    return 0


def _records(path: str) -> list[dict[str, Any]]:
    def checked(record: dict[str, Any]) -> dict[str, Any] | Problem:
        if ("prompt" in record) == ("messages" in record):
            got = "both prompt and messages" if "prompt" in record else "neither prompt nor messages"
            return Problem(got, "one of them", 'write {"prompt": "...", "task": "..."}')
        if "prompt" in record and not (isinstance(record["prompt"], str) and record["prompt"]):
            return Problem(f"'prompt': {record['prompt']!r}", "a text", 'put the prompt into "quotes"')
        if "messages" in record and not isinstance(record["messages"], list):
            return Problem(
                f"'messages': {record['messages']!r}", "a list", 'write [{"role": "user", "content": "..."}]'
            )
        return record

    return [record for _, record in read_json_lines(path, checked)]


def _tasks(
    args: argparse.Namespace, opened: "LanguageBank", records: list[dict[str, Any]], prompts: list[Any]
) -> list[str]:
    """Each prompt's task: its own, that of --task, or with --route the one that it is the likeliest to be of."""
    names = opened.bank.names
    routed = [place for place, record in enumerate(records) if args.route and record.get("task") is None]
    chosen = language.tasks_of_prompts(opened, [prompts[place] for place in routed]) if routed else []
    found = dict(zip(routed, chosen, strict=True))
    return [
        found[place] if place in found else _task(record, place + 1, args.task, names)
        for place, record in enumerate(records)
    ]


def _task(record: dict[str, Any], number: int, usual: str | None, names: tuple[str, ...]) -> str:
    task = record.get("task", usual)
    if task in names:
        return task
    got = "none" if task is None else repr(task)
    fix = 'pass --task NAME or --route, or give each line a "task"'
    expected = f"one of {', '.join(names) or 'no tasks'}"
    raise InputError(message(f"task of prompt {number}", got=got, expected=expected, fix=fix))

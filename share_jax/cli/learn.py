"""`share-jax learn BANK --model MODEL --task NAME --data FILE.jsonl`: one more task of a language model."""

import argparse
import sys
import time
from typing import Any

from share_jax import language
from share_jax.cli.bank_options import add_new_bank, settings_of
from share_jax.cli.options import Progress, emit, number, seed, whole
from share_jax.cli.table import table
from share_jax.language.training import Training
from share_jax.runtime.preemption import Preemption
from share_jax.text.examples import read_examples

EXAMPLE = "share-jax learn bank --model SmolLM2-135M-Instruct.gguf --task sql --data sql.jsonl --eval sql-test.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bank", metavar="BANK", help="the folder of the tasks; made if it is not there")
    parser.add_argument("--task", required=True, metavar="NAME", help="name of the new task")
    parser.add_argument("--data", required=True, metavar="FILE", help="JSONL: prompt and completion, text, or "
                        "messages, of which the last answer is learnt")  # fmt: skip
    parser.add_argument("--eval", metavar="FILE", help="JSONL to score the task on")
    add_new_bank(parser)
    how, plain = parser.add_argument_group("training"), Training()
    how.add_argument("--epochs", type=whole, metavar="N", help="default: 2, or as many as give 60 updates")
    how.add_argument("--batch-size", type=whole, metavar="N", default=plain.batch_size,
                     help=f"examples of an update (default: {plain.batch_size})")  # fmt: skip
    how.add_argument("--learning-rate", type=number, metavar="X", default=plain.learning_rate,
                     help=f"peak of the rate (default: {plain.learning_rate:g})")  # fmt: skip
    how.add_argument(
        "--start-from",
        choices=("zero", "last"),
        default=plain.start_from,
        help="begin from the base model (zero) or from a copy of the last task (last); default: zero",
    )
    how.add_argument("--seed", type=seed, metavar="N", default=0, help="order of the examples (default: 0)")
    how.add_argument("--restart", action="store_true", help="begin anew: give up a training that was broken off")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    examples = read_examples(args.data)
    tested = None if args.eval is None else read_examples(args.eval)
    training = Training(args.epochs, args.batch_size, args.learning_rate, args.start_from, args.seed)
    opened = language.open_language_bank(args.bank, args.model, settings_of(args))
    _note_targets(opened)
    shown = _Shown(Progress(args), training.steps_of(len(examples)))
    try:
        with Preemption(lambda what: print(f"stopped: {what}; run the command again", file=sys.stderr)) as preemption:
            done = language.learn(
                opened, args.task, examples, training,
                evaluation=tested, progress=shown, preemption=preemption, restart=args.restart,
            )  # fmt: skip
    except KeyboardInterrupt:
        shown.close()
        print("share-jax: stopped; run the command again to go on from the last save", file=sys.stderr)
        return 130
    shown.close()
    data = _report(args, done, len(examples), time.perf_counter() - begin)
    emit(args, data, lambda: _text(args.bank, data))
    return 0 if all(done.unchanged.values()) or done.bounds else 1


def _note_targets(opened: "language.LanguageBank") -> None:
    """Says before a training that its task cannot leave as a PEFT folder, where that is so."""
    from share_jax.formats.bank_tasks import LINEAR  # loads JAX, which a refusal before it does without

    if others := [target.path for target in opened.adapted.targets if target.layer not in LINEAR]:
        told = f"the bank adapts {others[0]}, which is no linear layer, so its tasks cannot be exported to PEFT"
        print(f"share-jax: note: {told}", file=sys.stderr)


def _report(args: argparse.Namespace, done: Any, examples: int, seconds: float) -> dict[str, Any]:
    return {
        "bank": str(args.bank),
        "task": args.task,
        "tasks": list(done.opened.bank.names),
        "examples": examples,
        "cut": done.cut,
        "updates": done.steps,
        "loss": done.loss,
        "scores": None if done.scores is None else done.scores._asdict(),
        "older_tasks_unchanged": done.unchanged,
        "error_bounds": done.bounds,
        "seconds": seconds,
    }


def _text(bank: str, data: dict[str, Any]) -> str:
    rows = [("examples", f"{data['examples']}" + (f", {data['cut']} cut to fit" if data["cut"] else ""))]
    rows += [("updates", str(data["updates"]))]
    rows += [("loss", f"{data['loss']:.4f} nats per token")] if data["loss"] is not None else []
    if (found := data["scores"]) is not None:
        exact, tokens = found["exact_match"], found["token_accuracy"]
        rows += [("exact match", f"{exact:.1%} of {found['examples']}; {tokens:.1%} of the tokens")]
        rows += [("bits per byte", f"{found['bits_per_byte']:.4f}")]
    if data["error_bounds"]:
        worst = max(data["error_bounds"].values())
        rows += [("older tasks", f"error of any task's update proven to be at most {worst:.3g} of it")]
    elif older := data["older_tasks_unchanged"]:
        changed = [name for name, same in older.items() if not same]
        rows += [("older tasks", f"CHANGED: {', '.join(changed)}" if changed else f"all {len(older)} kept every bit")]
    rows += [("seconds", f"{data['seconds']:.1f}")]
    return f"{bank}: {data['task']} is learnt, {len(data['tasks'])} in all\n{table(rows)}"


class _Shown:
    """Shows updates on stderr."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def skip(self, steps: int, /) -> None:
        self._done += steps

    def update(self, steps: int, loss: object, /) -> None:
        self._done += steps
        self._progress("update", self._done, self._total)

    def saving(self) -> None:
        """Shows nothing."""

    def close(self) -> None:
        self._progress.close()

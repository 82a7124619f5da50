"""Tasks of a language model as tokens: texts that are completed become arrays of one length and one width."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.streams.base import Sample, Split, Task
from experiments.streams.text_tasks import CompletionTask
from share_jax.errors import InputError, message
from share_jax.models.text_tokenizer import TextTokenizer
from share_jax.text.examples import Chat, Example
from share_jax.train.token_rows import TokenRows, on_grid, token_arrays, token_rows

METRICS = {"exact": "exact_match"}
"""The metric of a task by how it is scored."""


@dataclass(frozen=True)
class Shots:
    """What the untrained model is shown in its prompt.

    Attributes:
        count: training examples in front of each question.
        tested: the first so many test examples are asked; the prompts are long.
    """

    count: int = 4
    tested: int = 20


def token_tasks(
    tasks: Sequence[CompletionTask], tokenizer: TextTokenizer, max_length: int, shots: Shots | None = None
) -> tuple[Task, ...]:
    """Tasks of tokens, all of one length; the first test set of each is its test, the others are its `further` ones.

    Args:
        tasks: as texts.
        tokenizer: of the model.
        max_length: the most tokens of an example.
        shots: makes `few_shot` as well.

    Raises:
        InputError: a task is scored in another way than exact match, or an example has nothing to learn.
    """
    for task in tasks:
        if task.score not in METRICS:
            what, fix = f"score of task {task.name!r}", "score it by the whole completion"
            raise InputError(message(what, got=task.score, expected=" or ".join(METRICS), fix=fix))
    sets = [{"train": task.train, **{f"test {k}": v for k, v in task.test.items()}} for task in tasks]
    rows = [{name: token_rows(each, tokenizer, max_length) for name, each in own.items()} for own in sets]
    length, width = _sizes([each for own in rows for each in own.values()])
    made = []
    for task, own in zip(tasks, rows, strict=True):
        train, first, *rest = (_split(each, length, width) for each in own.values())
        further = dict(zip(list(task.test)[1:], rest, strict=True))
        shown = _sample(next(iter(task.test.values()))[0], tokenizer)
        made.append(Task(task.name, (), train, first, "tokens", METRICS[task.score], further, sample=shown))
    if shots is None:
        return tuple(made)
    shown = [token_rows(few_shot(task, shots), tokenizer, max_length * (shots.count + 1)) for task in tasks]
    sizes = _sizes(shown)
    return tuple(replace(task, few_shot=_split(each, *sizes)) for task, each in zip(made, shown, strict=True))


def _sample(example: Example | Chat, tokenizer: TextTokenizer) -> Sample | None:
    """A question as it is asked; a chat is shown nowhere."""
    if not isinstance(example, Example):
        return None
    tokens = tuple(tokenizer.encode(example.prompt))
    return Sample(example.prompt, example.completion, tokens, tokenizer.stop, tokenizer.decode) if tokens else None


def few_shot(task: CompletionTask, shots: Shots) -> tuple[Example, ...]:
    """The task's first test examples, each behind the same training examples.

    Raises:
        InputError: an example is a chat.
    """
    asked = next(iter(task.test.values()))[: shots.tested]
    examples = [*task.train[: shots.count], *asked]
    if not all(isinstance(example, Example) for example in examples):
        fix = "leave frozen_few_shot out"
        raise InputError(message(f"examples of task {task.name!r}", got="a chat", expected="prompts", fix=fix))
    plain = [example for example in examples if isinstance(example, Example)]
    before = "".join(f"{example.prompt}{example.completion}\n\n" for example in plain[: shots.count])
    return tuple(Example(before + example.prompt, example.completion) for example in plain[shots.count :])


def _sizes(rows: Sequence[TokenRows]) -> tuple[int, int]:
    """The length that the longest text has on the grid, and the most tokens that are learnt."""
    longest = max(int(each.lengths.max()) for each in rows)
    return on_grid(longest), on_grid(max(int(each.learnt.max()) for each in rows))


def _split(rows: TokenRows, length: int, width: int) -> Split:
    arrays = token_arrays(rows, np.arange(len(rows)), length, width)
    return Split(arrays, arrays["targets"])

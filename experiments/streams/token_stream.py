"""Tasks of a language model as tokens: texts that are completed become arrays of one length and one width.

A question of a task that is scored by options becomes a row for each of its allowed answers, the right one first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.streams.base import Checked, Sample, Split, Task
from experiments.streams.text_tasks import CompletionTask
from share_jax.errors import InputError, message
from share_jax.models.text_tokenizer import TextTokenizer
from share_jax.text.examples import Chat, Example
from share_jax.train.token_rows import TokenRows, on_grid, token_arrays, token_rows

METRICS = {"exact": "exact_match", "option": "option_accuracy", "bits_per_byte": "bits_saved"}
"""The metric of a task by how it is scored."""

CHECKED = 16
"""Questions of a test set whose answers are run, where they can be."""


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
        InputError: an example has nothing to learn.
    """
    sets = [{"train": task.train, **{f"test {k}": answers(task, v) for k, v in task.test.items()}} for task in tasks]
    rows = [{name: token_rows(each, tokenizer, max_length) for name, each in own.items()} for own in sets]
    length, width = _sizes([each for own in rows for each in own.values()])
    made = []
    for task, own in zip(tasks, rows, strict=True):
        train = _split(own.pop("train"), length, width)
        first, *rest = (_split(each, length, width, len(task.options or "-")) for each in own.values())
        further = dict(zip(list(task.test)[1:], rest, strict=True))
        shown = _sample(next(iter(task.test.values()))[0], tokenizer)
        made.append(Task(task.name, (), train, first, "tokens", METRICS[task.score], further, sample=shown))
        made[-1] = replace(made[-1], test_name=next(iter(task.test)), checked=_checked(task, tokenizer))
    if shots is None:
        return tuple(made)
    asked = [answers(task, few_shot(task, shots)) for task in tasks]
    shown = [token_rows(each, tokenizer, max_length * (shots.count + 1)) for each in asked]
    sizes, many = _sizes(shown), [len(task.options or "-") for task in tasks]
    return tuple(
        replace(task, few_shot=_split(each, *sizes, options))
        for task, each, options in zip(made, shown, many, strict=True)
    )


def _checked(task: CompletionTask, tokenizer: TextTokenizer) -> dict[str, Checked]:
    """The first questions of each test set whose answers can be run."""
    found = {}
    for name, checks in task.checks.items():
        own = [each for each in task.test[name][:CHECKED] if isinstance(each, Example) and each.prompt]
        if len(own) == min(CHECKED, len(checks)):
            prompts = tuple(tuple(ids) for ids in tokenizer.encode_batch([each.prompt for each in own]))
            wanted = tuple(each.completion for each in own)
            found[name] = Checked(prompts, wanted, tuple(checks[: len(own)]), tokenizer.stop, tokenizer.decode)
    return found


def answers(task: CompletionTask, examples: Sequence[Example | Chat]) -> list[Example | Chat]:
    """Examples of a task, each followed by itself with every other allowed answer, where it has those.

    >>> task = CompletionTask("own", [Example("Is it?", " yes")], {"test": [Example("Not?", " no")]}, "option",
    ...                       (" yes", " no"))
    >>> [each.completion for each in answers(task, task.train)]
    [' yes', ' no']
    """
    out: list[Example | Chat] = []
    for example in examples:
        others = [] if isinstance(example, Chat) else [o for o in task.options or () if o != example.completion]
        out += [example, *(replace(example, completion=other) for other in others)]
    return out


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
    shown = len(task.train[: shots.count])
    before = "".join(f"{example.prompt}{example.completion}\n\n" for example in plain[:shown])
    return tuple(Example(before + example.prompt, example.completion) for example in plain[shown:])


def _sizes(rows: Sequence[TokenRows]) -> tuple[int, int]:
    """The length that the longest text has on the grid, and the most tokens that are learnt."""
    longest = max(int(each.lengths.max()) for each in rows)
    return on_grid(longest), on_grid(max(int(each.learnt.max()) for each in rows))


def _split(rows: TokenRows, length: int, width: int, options: int = 1) -> Split:
    arrays = token_arrays(rows, np.arange(len(rows)), length, width)
    return Split(arrays, arrays["targets"], options, np.array(rows.nbytes))

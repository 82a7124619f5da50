"""Texts of a user's own that a language model completes: a folder with one JSONL file for each task.

    FOLDER/support.jsonl        {"prompt", "completion"}, {"text"} or {"messages"} on each line
    FOLDER/support.test.jsonl   what is tested on; without it a fifth is held out by the seed
    FOLDER/stream.json          {"tasks": ["support", ...]}; by name without it

`share_jax.text.examples` says what a line holds. A task of texts alone is scored in bits per byte, any other by the
exact completion. Texts with labels are another folder's: `text_folder`.
"""

from pathlib import Path

import numpy as np

from experiments.streams.text_tasks import CompletionTask
from experiments.streams.user_folder import check_test, data_files, ordered, user_folder
from share_jax.errors import InputError, message
from share_jax.text.examples import Chat, Example, read_examples

_TEST = ".test"
_EXPECTED = "a folder with one JSONL file per task"


def prompt_folder(
    folder: Path | None,
    *,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> tuple[CompletionTask, ...]:
    """A task for each file of a folder.

    Args:
        folder: see the module.
        seed: of the held-out examples and of the subsets.
        train_per_task: most training examples of a task; None is all.
        test_per_task: the same for the test.

    Raises:
        InputError: no folder, no files, a test without its task, or a task with nothing to be tested on.
        FormatError: a line of a file is wrong, or `stream.json` is.
    """
    root = user_folder(folder, _EXPECTED)
    files = {path.stem: path for path in data_files(root, (".jsonl",))}
    if not files:
        raise InputError(message(f"--data-folder {root}", got="no such file", expected=_EXPECTED, fix="add TASK.jsonl"))
    for name in files:
        if name.endswith(_TEST) and (own := name.removesuffix(_TEST)) not in files:
            what, expected = f"training file of task {own!r}", f"one beside {files[name].name}"
            raise InputError(message(what, got="none", expected=expected, fix=f"add {own}.jsonl"))
    names = ordered([name for name in files if not name.endswith(_TEST)], root)
    limits = (train_per_task, test_per_task)
    return tuple(
        _task(name, files[name], files.get(name + _TEST), [seed, place], limits) for place, name in enumerate(names)
    )


def _task(
    name: str, path: Path, test: Path | None, key: list[int], limits: tuple[int | None, int | None]
) -> CompletionTask:
    examples = read_examples(path)
    order = np.random.default_rng(key).permutation(len(examples))
    own = [examples[place] for place in order]
    if test is None:
        held = max(1, round(len(own) / 5)) if len(own) > 1 else 0
        check_test(path, held, f"add {name}.test.jsonl, or another line")
        tested, own = own[:held], own[held:]
    else:
        found = read_examples(test)
        tested = [found[place] for place in np.random.default_rng([*key, 1]).permutation(len(found))]
    own, tested = own[: limits[0]], tested[: limits[1]]
    score = "bits_per_byte" if all(_is_text(example) for example in (*own, *tested)) else "exact"
    return CompletionTask(name, tuple(own), {"test": tuple(tested)}, score)


def _is_text(example: Example | Chat) -> bool:
    return isinstance(example, Example) and not example.prompt

"""Which task a prompt is of, where none is named: a router over what the frozen model makes of prompts.

A task's statistics are those of the prompts that it is learnt from, saved with it: they need no training, and no later
task changes what is known of it but the covariance that all share. See `share_jax.bank.router`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from share_jax.bank.router import Router, add_task, empty_router, route, routing_rule
from share_jax.checkpoint.checkpoint import load_router, open_checkpoint
from share_jax.checkpoint.manifest import FILE, exists
from share_jax.errors import TaskError, message
from share_jax.language.language_bank import LanguageBank
from share_jax.models.generation import Prompt, bucket, checked_ids, prompt_features
from share_jax.storage.steady import steady
from share_jax.text.examples import Chat, Example
from share_jax.train.hidden_rows import HiddenRows
from share_jax.train.token_rows import TokenRows
from share_jax.typing import Array

MOST = 256
"""Training examples of a task whose prompts the router learns, spread over all of them."""


def saved_router(opened: LanguageBank) -> Router | None:
    """What the bank's folder knows of its tasks' prompts; None where no task has been learnt with it.

    Raises:
        FormatError: the folder is damaged.
    """

    def read() -> Router | None:
        store = open_checkpoint(opened.folder)
        return None if store.manifest.router is None else load_router(store)

    return steady(opened.folder / FILE, read) if exists(opened.folder) else None


def with_prompts(
    opened: LanguageBank,
    task: str,
    examples: Sequence[Example | Chat],
    rows: TokenRows,
    hidden: HiddenRows | None,
    batch_size: int = 16,
) -> Router:
    """The bank's router with the prompts of one more task; a text without a prompt is one as a whole, but its end.

    Args:
        opened: the bank before the task.
        task: its name.
        examples: what it is learnt from.
        rows: the same as tokens.
        hidden: what the frozen layers make of them; None if no layer is frozen.
        batch_size: prompts that go through the model together.
    """
    known = saved_router(opened)
    places = np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int))
    whole = [isinstance(examples[place], Example) and not examples[place].prompt for place in places]  # pyright: ignore[reportAttributeAccessIssue]
    prompts = [rows.ids[place][: -1 if text else rows.starts[place]] for place, text in zip(places, whole, strict=True)]
    if hidden is None:
        features = prompt_features(opened.pretrained.model, opened.pretrained.params, prompts, batch_size=batch_size)
    else:
        features = _above(opened, [len(ids) for ids in prompts], hidden, places, batch_size)
    return add_task(empty_router(features.shape[1]) if known is None else known, task, features)


def tasks_of_prompts(
    opened: LanguageBank, prompts: Sequence[Prompt], *, batch_size: int = 16, labels: Sequence[str] | None = None
) -> list[str]:
    """The name of the task that each prompt is the likeliest to be of.

    Args:
        opened: the bank.
        prompts: texts, or token ids.
        batch_size: prompts that go through the model together.
        labels: what messages call the prompts; "prompt 0" and so on when None.

    Raises:
        TaskError: the bank has a task whose prompts are not known: it was imported, or learnt by an older version.
        InputError: a prompt is empty, too long, or of tokens that the model does not have.

    Example:
        >>> from share_jax.language import open_language_bank
        >>> tasks_of_prompts(open_language_bank("bank"), ["the cat", "a dog"])
        ['cats', 'dogs']
    """
    router, names = saved_router(opened), opened.bank.names
    unknown = [name for name in names if router is None or name not in router.names]
    if router is None or unknown:
        got = f"no prompts of {', '.join(unknown)}" if names else "no tasks"
        expected, fix = "those of every task", "name the task of each prompt, or learn these tasks by share-jax learn"
        raise TaskError(message(f"router of bank {opened.folder}", got=got, expected=expected, fix=fix))
    loaded = opened.pretrained
    ids = checked_ids(loaded.model.config, prompts, loaded.tokenizer, labels=labels)
    features = prompt_features(loaded.model, loaded.params, ids, batch_size=batch_size)
    return [names[place] for place in np.asarray(route(routing_rule(router, names), features))]


def _above(
    opened: LanguageBank, lengths: Sequence[int], hidden: HiddenRows, places: np.ndarray, batch_size: int
) -> np.ndarray:
    """`prompt_features` from what the frozen layers have made of the texts, of which prompts are the beginning."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    out = np.zeros((len(lengths), opened.pretrained.model.config.hidden_size), np.float32)
    for start in range(0, len(order), batch_size):
        own = order[start : start + batch_size]
        rows = np.concatenate([own, np.repeat(own[-1:], batch_size - len(own))])
        length = bucket(max(lengths[row] for row in rows))
        mask = (np.arange(length) < np.asarray(lengths)[rows][:, None]).astype(np.int32)
        states = hidden.take(places[rows], length)
        out[rows] = _features(opened.pretrained.model, {"params": opened.pretrained.params}, states, mask)
    return out


@partial(jax.jit, static_argnames="model")
def _features(model: Any, variables: Any, hidden: Array, mask: Array) -> Array:
    return model.apply(variables, hidden=hidden, attention_mask=mask, method="features")

"""Option scoring: which of the allowed answers a task finds the likeliest.

Each answer costs the summed nats of its tokens and of the token that ends it, not divided by their number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from share_jax.errors import InputError, message
from share_jax.language.language_bank import LanguageBank
from share_jax.models.text_tokenizer import check_vocabulary
from share_jax.ops.token_scores import TokenScores, scores_of
from share_jax.storage.untrusted import shown
from share_jax.text.examples import Chat, Example
from share_jax.train.token_batches import TokenBatches
from share_jax.train.token_rows import token_rows


def check_options(examples: Sequence[Example | Chat], options: Sequence[str]) -> tuple[str, ...]:
    """The allowed answers, each once.

    Args:
        examples: what is scored.
        options: the answers; all the examples' own where there are none.

    Raises:
        InputError: there are fewer than two, or an example is a chat or has another completion.

    Example:
        >>> check_options([Example("Is it?", " yes"), Example("Not?", " no")], ())
        (' yes', ' no')
    """
    for number, example in enumerate(examples, start=1):
        what = example.source or f"example {number}"
        if not isinstance(example, Example) or not example.prompt:
            fix = "leave the options out"
            raise InputError(message(what, got="no prompt with a completion", expected="both, to choose by", fix=fix))
        if options and example.completion not in options:
            got, fix = repr(shown(example.completion, 40)), "name it among the options, blanks and all"
            raise InputError(message(what, got=got, expected="one of the options", fix=fix))
    chosen = tuple(dict.fromkeys(options or (each.completion for each in examples if isinstance(each, Example))))
    if len(chosen) < 2:
        raise InputError(message("options", got=len(chosen), expected="two answers or more", fix="name all of them"))
    return chosen


def option_accuracy(
    opened: LanguageBank, slot: Any, examples: Sequence[Example], options: Sequence[str], batch_size: int = 16
) -> float:
    """The share of the examples whose completion is the likeliest of the options.

    Args:
        opened: the bank.
        slot: the task's.
        examples: with prompts.
        options: of `check_options`.
        batch_size: answers in a call.
    """
    asked = [Example(each.prompt, option, each.source) for each in examples for option in options]
    rows = token_rows(asked, opened.pretrained.tokenizer, opened.max_length)
    check_vocabulary(rows.ids, opened.pretrained.model.config.vocab_size, rows.sources)
    batches, nats = TokenBatches(rows, batch_size), np.zeros(len(asked))
    for step in range(len(batches)):
        batch, places = batches.batch(step), batches.places(step)
        found = opened.answer({"params": opened.pretrained.params}, opened.bank.shared, slot, batch["inputs"])
        own = found if isinstance(found, TokenScores) else scores_of(found, batch["labels"])
        each = np.where(np.asarray(batch["labels"]) >= 0, np.asarray(own.nats, np.float64), 0).sum(axis=1)
        nats[places] = each[: len(places)]
    likeliest = nats.reshape(len(examples), len(options)).argmin(axis=1)
    return float(np.mean([options[best] == each.completion for best, each in zip(likeliest, examples, strict=True)]))

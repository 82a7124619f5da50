"""How well a task of a language model is known: its completions as a whole, its tokens, and bits per byte."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from share_jax.bank.slots import read_slot
from share_jax.language.language_bank import LanguageBank
from share_jax.language.option_scoring import check_options, option_accuracy
from share_jax.models.text_tokenizer import check_vocabulary
from share_jax.number_checks import whole_number
from share_jax.text.examples import Chat, Example
from share_jax.train.hidden_rows import HiddenRows
from share_jax.train.token_batches import TokenBatches
from share_jax.train.token_losses import bits_per_byte, next_token
from share_jax.train.token_rows import TokenRows, token_rows


class Scores(NamedTuple):
    """How examples are scored.

    Attributes:
        exact_match: share of the completions that greedy decoding writes as they are, to the end.
        token_accuracy: share of the learnt tokens that are the likeliest.
        bits_per_byte: of the completions' text, the token that ends them counted.
        nats_per_token: the loss.
        examples: how many.
        cut: how many of them were cut to the longest length.
        option_accuracy: share of the completions that are the likeliest of the options; None without any.

    Example:
        >>> scores = Scores(exact_match=0.5, token_accuracy=0.75, bits_per_byte=1.2, nats_per_token=2.1, examples=4)
        >>> round(scores.exact_match * scores.examples)  # written as they are, to the end
        2
    """

    exact_match: float
    token_accuracy: float
    bits_per_byte: float
    nats_per_token: float
    examples: int
    cut: int = 0
    option_accuracy: float | None = None


def evaluate(
    opened: LanguageBank,
    task: str,
    examples: Sequence[Example | Chat],
    batch_size: int = 16,
    *,
    options: Sequence[str] | None = None,
) -> Scores:
    """Scores examples by a learnt task.

    Args:
        opened: the bank.
        task: its name.
        examples: what is scored.
        batch_size: examples in a call.
        options: allowed answers, of which the likeliest is chosen, too; () for all the examples' completions.

    Raises:
        TaskError: there is no such task.
        InputError: there are no examples, or one is none; `batch_size` is below 1; the options are fewer than two, or a
            completion is none of them.

    Example:
        >>> from share_jax.language import open_language_bank
        >>> scores = evaluate(open_language_bank("bank"), "cats", [Example("the cat", " sat on a dog")])
        >>> scores.examples, bool(scores.nats_per_token > 0)
        (1, True)
    """
    slot, batch_size = read_slot(opened.bank.tasks, opened.bank.index(task)), whole_number("batch_size", batch_size, 1)
    rows = token_rows(examples, opened.pretrained.tokenizer, opened.max_length)
    check_vocabulary(rows.ids, opened.pretrained.model.config.vocab_size, rows.sources)
    found = scores(opened, slot, rows, batch_size)
    if options is None:
        return found
    chosen, asked = check_options(examples, options), [each for each in examples if isinstance(each, Example)]
    return found._replace(option_accuracy=option_accuracy(opened, slot, asked, chosen, batch_size))


def scores(
    opened: LanguageBank, slot: Any, rows: TokenRows, batch_size: int, hidden: HiddenRows | None = None
) -> Scores:
    """Scores rows by a slot; `hidden` as of `TokenBatches`."""
    sums = np.zeros(5)
    for batch in TokenBatches(rows, batch_size, hidden=hidden):
        found = opened.answer({"params": opened.pretrained.params}, opened.bank.shared, slot, batch["inputs"])
        own = next_token(found, batch)
        counts = (own.metrics[name] for name in ("correct", "tokens", "exact", "examples"))
        sums += [float(each) for each in (own.total, *counts)]
    total, correct, tokens, exact, count = sums
    size = sum(rows.nbytes)
    return Scores(exact / count, correct / tokens, bits_per_byte(total, size), total / tokens, int(count), rows.cut)

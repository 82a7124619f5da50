"""Text from an adapted decoder: prompts of any tasks in, their completions out.

A call reads each prompt's slot out of the bank once. Then two compiled programs run per batch: one takes the prompts,
the other writes tokens until every row has met a stop token or its limit, in a cache that is donated to it. Rows are
padded on the left to the next length bucket, so both programs compile once per bucket, whatever the tasks are and
however many the bank holds. What a row is padded with, and what stands beside it, changes its logits by rounding alone.

Sources: `examples/gemma/sampler.py` of flax and `models/transformer/sampling_mode.py` of penzai for the loop's form.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.bank.bank import TaskBank
from share_jax.bank.router import Router, route, routing_rule
from share_jax.bank.slots import TaskSlots, gather
from share_jax.errors import InputError, message
from share_jax.models import decoding
from share_jax.models.decoder import Decoder
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.sampling import Sampling, sampling
from share_jax.models.text_tokenizer import TextTokenizer, check_vocabulary, padded, text_label
from share_jax.number_checks import whole_number
from share_jax.typing import Array, PRNGKey, Tree

Prompt = str | Sequence[int]
"""A text, or token ids."""

SHORTEST = 16
"""Tokens of the shortest length bucket."""
_STOPS = 8
"""Stop tokens are filled up to a multiple of this, so that one more compiles nothing."""


@dataclass(frozen=True)
class Completion:
    """What was written behind one prompt.

    Attributes:
        tokens: the new ids, without the stop token.
        text: their text; None without a tokenizer.
        stopped: whether a stop token ended it, and not the limit.
        task: id of the prompt's task.

    Example:
        >>> found = Completion(tokens=(17, 4), text="bonjour", stopped=True, task=0)
        >>> found.text if found.stopped else f"{found.text} ..."
        'bonjour'
    """

    tokens: tuple[int, ...]
    text: str | None
    stopped: bool
    task: int


def generate(
    adapted: Any,
    bank: TaskBank,
    tasks: str | int | Sequence[str | int] | np.ndarray | Array | None,
    prompts: Sequence[Prompt],
    *,
    params: Tree,
    tokenizer: TextTokenizer | None = None,
    max_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Sequence[int] | None = None,
    key: PRNGKey | None = None,
    router: Router | None = None,
    special: bool = True,
    batch_size: int = 16,
    labels: Sequence[str] | None = None,
) -> list[Completion]:
    """Completions of prompts, each by its own task; tasks may be mixed.

    Args:
        adapted: a `Decoder` that `share_jax.adapt` has adapted.
        bank: what has been learnt.
        tasks: one task for all prompts, or one for each, by name or id; None where a router chooses.
        prompts: texts, or token ids.
        params: the base model's parameters.
        tokenizer: for prompts that are texts, for the completions' texts, and for what ends them.
        max_tokens: the most tokens that a completion has.
        temperature: 0 takes the likeliest token every time.
        top_k: how many of the likeliest tokens may be drawn; all when None.
        top_p: the likeliest tokens that together reach this probability may be drawn; all when None.
        stop: ids that end a completion; the tokenizer's by default.
        key: for drawn tokens; each prompt draws with a key of its own.
        router: chooses tasks by `prompt_features`, where `tasks` is None.
        special: whether what the checkpoint puts around texts is added to prompts; not for conversations.
        batch_size: prompts that are decoded together, those of like length beside each other.
        labels: what messages call the prompts; "prompt 0" and so on when None.

    Returns:
        One completion per prompt, in order.

    Raises:
        TaskError: a task has not been learnt.
        InputError: an option is out of range; a prompt is empty, too long, or of tokens that the model does not have;
            there is a text and no tokenizer; there are tasks and a router, or neither; tokens are drawn without a key;
            `top_k` or `top_p` at temperature 0.

    >>> import share_jax
    >>> from share_jax.models import DecoderConfig
    >>> model = Decoder(DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 64))
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 5), jnp.int32))["params"]
    >>> adapted = share_jax.adapt(model, {"params": params}, jnp.ones((1, 5), jnp.int32), targets=r".*/query/kernel")
    >>> trees = adapted.init(jax.random.key(1), params, num_tasks=2)
    >>> bank = TaskBank(trees["shared"], trees["tasks"], ("french", "german"))
    >>> out = generate(adapted, bank, ["german", "french"], [[5, 6], [7, 8, 9]], params=params, max_tokens=4)
    >>> [(each.task, len(each.tokens)) for each in out]
    [(1, 4), (0, 4)]
    """
    how = sampling(temperature, top_k, top_p)
    max_tokens = whole_number("max_tokens", max_tokens, 1)
    batch_size = whole_number("batch_size", batch_size, 1)
    _check(how, key, tasks, router)
    lists = checked_ids(adapted.model.config, prompts, tokenizer, max_tokens, special=special, labels=labels)
    if not lists:
        return []
    if router is not None:
        found = prompt_features(adapted.model, params, lists, batch_size=batch_size)
        tasks = np.asarray(route(routing_rule(router, bank.names), found))
    chosen: Any = tasks
    ids = np.asarray(bank.ids(chosen))
    if ids.ndim and len(ids) != len(lists):
        expected = f"{len(lists)}, one per prompt"
        raise InputError(message("tasks", got=len(ids), expected=expected, fix="name each prompt's task"))
    ids = np.broadcast_to(ids, (len(lists),))
    ends = _ids_of((tokenizer.stop if tokenizer is not None else ()) if stop is None else stop, "stop")
    ends = jnp.asarray(ends + [-1] * (-len(ends) % _STOPS or (0 if ends else _STOPS)), jnp.int32)
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(lists))
    variables = {"params": params, "shared": bank.shared}
    out: dict[int, Completion] = {}
    for rows in _batches([len(each) for each in lists], batch_size):
        length = bucket(max(len(lists[row]) for row in rows))
        input_ids, mask = padded([lists[row] for row in rows], length, 0, left=True)
        slots = _slots(adapted, bank.tasks, ids[rows])
        most = bucket(max_tokens)
        logits, cache = decoding.prefill(adapted, variables, slots, input_ids, mask, most)
        starts, limit = jnp.asarray(length - mask.sum(axis=1), jnp.int32), jnp.int32(max_tokens)
        tokens, lengths, stopped, _ = decoding.write(
            adapted, variables, slots, logits, cache, starts, limit, ends, how, keys[rows], most
        )
        tokens, lengths, stopped = (np.asarray(each) for each in (tokens, lengths, stopped))
        for place, row in enumerate(rows):
            own = tuple(int(each) for each in tokens[place, : lengths[place]])
            text = None if tokenizer is None else tokenizer.decode(own)
            out[int(row)] = Completion(own, text, bool(stopped[place]), int(ids[row]))
    return [out[row] for row in range(len(lists))]


def prompt_features(
    model: Decoder,
    params: Tree,
    prompts: Sequence[Prompt],
    *,
    tokenizer: TextTokenizer | None = None,
    special: bool = True,
    batch_size: int = 16,
) -> np.ndarray:
    """What a router knows of prompts: the mean of the frozen model's last hidden states, float32 (N, d).

    Args:
        model: the decoder.
        params: its parameters.
        prompts: texts, or token ids.
        tokenizer: for prompts that are texts.
        special: as for `generate`.
        batch_size: prompts that go through the model together.

    Raises:
        InputError: a prompt is empty, too long, or a text without a tokenizer; a token has no row in the model.

    Example:
        >>> from share_jax.models import DecoderConfig
        >>> model = Decoder(DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 64))
        >>> params = model.init(jax.random.key(0), jnp.ones((1, 5), jnp.int32))["params"]
        >>> prompt_features(model, params, [[5, 6], [7, 8, 9]]).shape
        (2, 8)
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    lists = checked_ids(model.config, prompts, tokenizer, 0, special=special)
    out = np.zeros((len(lists), model.config.hidden_size), np.float32)
    for rows in _batches([len(each) for each in lists], batch_size):
        own = [lists[row] for row in rows]
        out[rows] = decoding.features(model, {"params": params}, *padded(own, bucket(max(map(len, own))), 0))
    return out


def checked_ids(
    config: DecoderConfig,
    prompts: Sequence[Prompt],
    tokenizer: TextTokenizer | None,
    max_tokens: int = 1,
    *,
    special: bool = True,
    labels: Sequence[str] | None = None,
) -> list[list[int]]:
    """Prompts as token ids that the model takes, with so many more.

    Raises:
        InputError: as `as_ids`; a token has no row in the model, or a prompt is too long.
    """
    lists = as_ids(prompts, tokenizer, special=special, labels=labels)
    check_vocabulary(lists, config.vocab_size, labels)
    _check_lengths(lists, max_tokens, config.max_position_embeddings, labels)
    return lists


def as_ids(
    prompts: Sequence[Prompt],
    tokenizer: TextTokenizer | None,
    *,
    special: bool = True,
    labels: Sequence[str] | None = None,
) -> list[list[int]]:
    """Prompts as token ids; `labels` as of `generate`.

    Raises:
        InputError: a prompt is empty, or a text without a tokenizer; or the prompts are one text.
    """
    if isinstance(prompts, str):
        raise InputError(message("prompts", got="one text", expected="a list", fix="pass [prompt]"))
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if texts and tokenizer is None:
        fix = "pass tokenizer, or token ids"
        raise InputError(message("prompts", got="a text without a tokenizer", expected="one", fix=fix))
    encoded = iter(tokenizer.encode_batch(texts, special=special) if tokenizer is not None and texts else ())
    lists = [
        next(encoded) if isinstance(prompt, str) else _ids_of(prompt, text_label(labels, place))
        for place, prompt in enumerate(prompts)
    ]
    for place, own in enumerate(lists):
        if not own:
            fix = "leave it out, or begin it with a token"
            raise InputError(message(text_label(labels, place), got="no token", expected="at least one", fix=fix))
    return lists


def _ids_of(prompt: Any, label: str) -> list[int]:
    """Token ids that a prompt is given as."""
    ids: list[Any] = (
        list(prompt) if isinstance(prompt, Iterable) and not isinstance(prompt, Mapping | bytes) else [None]
    )
    if not all(isinstance(each, Integral) and not isinstance(each, bool) for each in ids):
        got = repr(prompt)[:60]
        raise InputError(message(label, got=got, expected="a text, or a list of token ids", fix="pass [prompt, ...]"))
    return [int(each) for each in ids]


def bucket(length: int) -> int:
    """The length bucket of so many tokens: 16, 24, 32, 48, 64, 96 and so on.

    >>> [bucket(length) for length in (1, 17, 33, 64, 65)]
    [16, 24, 48, 64, 96]
    """
    size = SHORTEST
    while size < length:
        size = size * 3 // 2 if size * 3 // 2 >= length else size * 2
    return size


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[np.ndarray]:
    """Places of prompts that go together, the shortest first; a last batch is filled up with its last prompt."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        full = min(batch_size, 1 << (len(rows) - 1).bit_length())
        yield np.concatenate([rows, np.repeat(rows[-1:], full - len(rows))])


def _slots(adapted: Any, tasks: Tree, ids: np.ndarray) -> TaskSlots:
    """Each row's slot, read out of the stack; in parameter space the one slot of all."""
    if adapted.space == "activation":
        return TaskSlots(_gather(dict(tasks), jnp.asarray(ids)), per_example=True)
    if len(set(ids.tolist())) > 1:
        fix = "adapt with space='activation', or generate for one task at a time"
        raise InputError(message("tasks in parameter space", got="several", expected="one", fix=fix))
    return TaskSlots(_gather(dict(tasks), jnp.int32(ids[0])))


_gather = jax.jit(gather)


def _check(how: Sampling | None, key: PRNGKey | None, tasks: Any, router: Router | None) -> None:
    if how is not None and key is None:
        fix = "pass key=jax.random.key(0), or temperature=0"
        raise InputError(message("key", got="none", expected="one to draw tokens with", fix=fix))
    if (tasks is None) == (router is None):
        got = "neither" if tasks is None else "both"
        raise InputError(message("tasks and router", got=got, expected="one of them", fix="pass the prompts' tasks"))


def _check_lengths(lists: Sequence[Sequence[int]], max_tokens: int, longest: int, labels: Sequence[str] | None) -> None:
    for place, own in enumerate(lists):
        if len(own) + max_tokens > longest:
            more, fix = (f" and max_tokens={max_tokens}", ", or lower max_tokens") if max_tokens else ("", "")
            got, expected = f"{len(own)} tokens{more}", f"at most {longest}{' together' if max_tokens else ''}"
            raise InputError(
                message(text_label(labels, place), got=got, expected=expected, fix=f"shorten the prompt{fix}")
            )

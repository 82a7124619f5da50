"""One more task of a language model, from its examples, with resume, and proof that older tasks are what they were."""

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from share_jax.bank.bank import TaskBank, check_new_name
from share_jax.bank.router import Router
from share_jax.bank.slots import read_slot
from share_jax.checkpoint.inflight_folder import InflightFolder
from share_jax.checkpoint.saved_bank import save_bank
from share_jax.checkpoint.share_tasks import save_share_task
from share_jax.language.changing import begin, changing
from share_jax.language.language_bank import LanguageBank
from share_jax.language.routing import with_prompts
from share_jax.language.scoring import Scores, scores
from share_jax.language.settings import write_settings
from share_jax.language.training import Training
from share_jax.linen.prefix import linen_prefix
from share_jax.models.text_tokenizer import check_vocabulary
from share_jax.runtime.preemption import Preemption
from share_jax.storage.cache_dir import cache_root
from share_jax.storage.untrusted import check_task_name
from share_jax.subspace.share_bank import ShareBank
from share_jax.text.examples import Chat, Example
from share_jax.train.hidden_rows import HiddenRows, hidden_rows
from share_jax.train.loop import Inflight, Progress
from share_jax.train.prefix_cache import PrefixCache
from share_jax.train.share_learner import ShareLearner
from share_jax.train.token_batches import TokenBatches
from share_jax.train.token_rows import TokenRows, token_rows

PREFIX_BYTES = 2**31
"""Memory for the frozen layers' outputs; more lies in files of the cache folder."""


class Learnt(NamedTuple):
    """A task that was learnt.

    Attributes:
        opened: the bank with it.
        steps: updates.
        loss: mean nats per token of the last tenth of the updates, also where the training was broken off in it; None
            if an earlier version did them all.
        scores: of the examples for evaluation; None without any.
        cut: training examples that were cut to the longest length.
        unchanged: of each older task whether its leaves, and what all share, have kept their bits.
        bounds: of each task of a "share" bank the proven error of its update, relative to its norm.

    Example:
        >>> from share_jax.language import open_language_bank
        >>> unchanged = {"cats": True, "dogs": True}
        >>> learnt = Learnt(open_language_bank("bank"), 60, 0.8, None, cut=0, unchanged=unchanged, bounds={})
        >>> all(learnt.unchanged.values()), learnt.cut
        (True, 0)
    """

    opened: LanguageBank
    steps: int
    loss: float | None
    scores: Scores | None
    cut: int
    unchanged: dict[str, bool]
    bounds: dict[str, float]


def learn(
    opened: LanguageBank,
    task: str,
    examples: Sequence[Example | Chat],
    training: Training | None = None,
    *,
    evaluation: Sequence[Example | Chat] | None = None,
    progress: Progress | None = None,
    preemption: Preemption | None = None,
    restart: bool = False,
) -> Learnt:
    """Learns one more task and saves it in the bank's folder.

    Killed and called again with the same arguments, it goes on from the last save and ends with the same bits.

    Args:
        opened: the bank, which may have no tasks yet.
        task: the new task's name.
        examples: what it is learnt from.
        training: how.
        evaluation: examples on which it is scored.
        progress: is told of every update.
        preemption: tells when to stop.
        restart: whether a training that was broken off is given up, of this task or another.

    Raises:
        TaskError: the name is taken, empty, no text, or one that no folder can have.
        InputError: there are no examples; a training of another task was broken off; or examples or settings are others
            than a training of this task that was broken off had.
        BusyError: another process learns in the folder, or has since the bank was opened.
        DivergedError: a loss is not finite; the bank is as it was.
        SaveError: it cannot be written.

    Example:
        >>> from share_jax.language import open_language_bank
        >>> examples = [Example("a cow sat :", " on the cat"), Example("a cow sat on :", " on the cat")]
        >>> learnt = learn(open_language_bank("bank"), "cows", examples, Training(epochs=1, batch_size=2))
        >>> learnt.opened.bank.names, learnt.unchanged
        (('cats', 'dogs', 'cows'), {'cats': True, 'dogs': True})
    """
    training = training or Training()
    check_new_name(opened.bank, task)
    check_task_name(task, "choose another name: it becomes a folder's when the task is exported")
    tokenizer, longest = opened.pretrained.tokenizer, opened.max_length
    rows = token_rows(examples, tokenizer, longest)
    tested = None if evaluation is None else token_rows(evaluation, tokenizer, longest)
    for each in (rows, tested):
        if each is not None:
            check_vocabulary(each.ids, opened.pretrained.model.config.vocab_size, each.sources)
    with changing(opened, task, restart=restart):
        return _learnt(opened, task, examples, rows, tested, training, progress, preemption, restart)


def _learnt(
    opened: LanguageBank,
    task: str,
    examples: Sequence[Example | Chat],
    rows: TokenRows,
    tested: TokenRows | None,
    training: Training,
    progress: Progress | None,
    preemption: Preemption | None,
    restart: bool,
) -> Learnt:
    size, seed, epochs = training.batch_size, training.seed, training.epochs_of(len(rows))
    hidden = _hidden(opened, rows)
    told = {"learning_rate": training.learning_rate, "start_from": training.start_from}
    batches = TokenBatches(rows, size, seed, len(opened.bank.names), epochs, hidden, told)
    learner: Any = opened.learner(_adamw(training.learning_rate, len(batches)), training.start_from)
    begin(opened, learner, restart=restart)
    losses = _Losses(progress, len(batches))
    inflight = _WithLosses(InflightFolder(opened.folder, learner, opened.bank), losses)
    bank = learner.learn(
        opened.bank,
        task,
        batches,
        seed=training.seed,
        progress=losses,
        inflight=_Fresh(inflight) if restart else inflight,
        save_every=training.save_every,
        preemption=preemption,
    )
    after = replace(opened, bank=bank)
    found = None
    if tested is not None:
        slot = read_slot(bank.tasks, len(bank.names) - 1)
        found = scores(after, slot, tested, training.batch_size, _hidden(after, tested))
    info = {"examples": len(rows), "steps": len(batches), "loss": losses.mean()}
    info |= {"scores": found._asdict()} if found is not None else {}
    _save(after, learner, task, info, with_prompts(opened, task, examples, rows, hidden, size))
    if preemption is not None:
        preemption.released()
    shutil.rmtree(_prefix_folder(opened), ignore_errors=True)
    bounds = {name: each.error_bound for name, each in bank.report().items()} if isinstance(bank, ShareBank) else {}
    same = {name: _same(opened.bank, bank, place) for place, name in enumerate(opened.bank.names)}
    return Learnt(after, len(batches), info["loss"], found, rows.cut, same, bounds)


def _adamw(peak: float, steps: int) -> optax.GradientTransformation:
    warmup = max(1, steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.1 * peak, peak, warmup, max(steps, warmup + 1))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.0))


def _hidden(opened: LanguageBank, rows: TokenRows) -> HiddenRows | None:
    """What the frozen layers make of every example, float32; None if no layer is frozen."""
    model = opened.pretrained.model
    if not model.first_layer:
        return None
    params, folder = {"params": opened.pretrained.params}, _prefix_folder(opened)
    return hidden_rows(PrefixCache(linen_prefix(model), params, 16, PREFIX_BYTES, folder), rows)


def _prefix_folder(opened: LanguageBank) -> Path:
    """Where the frozen layers' outputs lie that do not fit into memory, until the task that needs them is saved."""
    own = hashlib.sha256(os.fsencode(opened.folder.absolute())).hexdigest()[:16]
    return Path(cache_root(None)) / "prefix" / own


def _save(opened: LanguageBank, learner: Any, task: str, info: dict[str, Any], router: Router) -> None:
    if isinstance(learner, ShareLearner):
        save_share_task(opened.folder, learner, opened.bank, info=info, router=router)  # pyright: ignore[reportArgumentType]
    else:
        save_bank(opened.folder, learner, opened.bank, infos={task: info}, router=router)
    write_settings(opened.folder, opened.settings)  # where the model lies now


def _same(before: TaskBank, after: TaskBank, place: int) -> bool:
    """Whether a task's leaves and what all tasks share have the same bits."""
    parts = [(bank.shared, read_slot(bank.tasks, place)) for bank in (before, after)]
    same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), *parts)
    return all(jax.tree.leaves(same))


class _Losses:
    """Keeps the losses of the last tenth of the updates, and tells them on."""

    def __init__(self, inner: Progress | None, steps: int) -> None:
        self._inner, self._losses = inner, deque[Any](maxlen=max(1, steps // 10))

    def skip(self, steps: int, /) -> None:
        if self._inner is not None:
            self._inner.skip(steps)

    def update(self, steps: int, loss: jax.Array, /) -> None:
        self._losses.append(loss)
        if self._inner is not None:
            self._inner.update(steps, loss)

    def saving(self) -> None:
        if self._inner is not None:
            self._inner.saving()

    def kept(self) -> list[float]:
        """Those that count if the training ended now."""
        return [float(loss) for loss in self._losses]

    def go_on(self, losses: Sequence[float]) -> None:
        """Begins with those that a training that was broken off had kept."""
        self._losses.extend(losses)

    def mean(self) -> float | None:
        """Their mean."""
        return float(np.mean(self.kept())) if self._losses else None


class _WithLosses:
    """Saves the last losses with the training in flight."""

    def __init__(self, inner: Inflight, losses: _Losses) -> None:
        self._inner, self._losses = inner, losses

    def load(self, task: str, state: Any) -> tuple[Any, Any]:
        state, position = self._inner.load(task, state)
        self._losses.go_on(position.get("losses", ()) if isinstance(position, Mapping) else ())
        return state, position

    def save(self, task: str, state: Any, position: Any) -> None:
        self._inner.save(task, state, {**position, "losses": self._losses.kept()})


class _Fresh:
    """Saves the training in flight, and starts anew."""

    def __init__(self, inner: Inflight) -> None:
        self._inner = inner

    def load(self, task: str, state: Any) -> tuple[Any, Any]:
        return state, 0

    def save(self, task: str, state: Any, position: Any) -> None:
        self._inner.save(task, state, position)

"""A folder of a language model's tasks, opened: its model, tokenizer and tasks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from share_jax.bank.bank import TaskBank
from share_jax.checkpoint.checkpoint import open_checkpoint
from share_jax.checkpoint.manifest import exists
from share_jax.checkpoint.saved_bank import load_bank
from share_jax.checkpoint.share_tasks import load_share_bank
from share_jax.errors import InputError, message
from share_jax.language.folder import is_language_bank, model_place
from share_jax.language.settings import LanguageSettings, read_settings
from share_jax.language.token_marks import check_token_marks, token_marks
from share_jax.layers.targets import match
from share_jax.linen.adapted_model import Adapted, adapt
from share_jax.models.generation import Completion, generate
from share_jax.models.pretrained_decoder import Pretrained, load_decoder
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.built_in import method_named
from share_jax.parameterizations.share import Share
from share_jax.subspace.share_bank import ShareBank
from share_jax.train.learner import Learner
from share_jax.train.share_learner import ShareLearner
from share_jax.train.start_from import StartFrom
from share_jax.train.token_losses import next_token
from share_jax.trees import flat


@dataclass(frozen=True, eq=False)
class LanguageBank:
    """A language model with its tasks.

    Attributes:
        folder: where the tasks are.
        settings: how the model is adapted.
        pretrained: the model, its params and its tokenizer.
        adapted: the model with the tasks' updates.
        bank: the tasks.

    Example:
        >>> opened = open_language_bank("bank")
        >>> opened.bank.names, opened.max_length
        (('cats', 'dogs'), 64)
    """

    folder: Path
    settings: LanguageSettings
    pretrained: Pretrained
    adapted: Adapted
    bank: TaskBank

    @property
    def max_length(self) -> int:
        """The most tokens of an example that the bank and the model take."""
        return min(self.settings.max_length, self.pretrained.model.config.max_position_embeddings)

    @cached_property
    def answer(self) -> Any:
        """(base variables, shared, slot, inputs) to the model's output, compiled once for all tasks."""
        return self.learner(optax.sgd(0.0)).answer

    def learner(
        self, transform: optax.GradientTransformation, start_from: StartFrom = "zero"
    ) -> Learner | ShareLearner:
        """What learns one more task with an optimizer."""
        return _learner(self.adapted, self.pretrained.params, self.settings, transform, start_from)

    def generate(self, tasks: Any, prompts: Sequence[Any], *, seed: int = 0, **options: Any) -> list[Completion]:
        """Completions of prompts, drawn from `seed` where they are drawn; see `share_jax.models.generate`."""
        parts = {"params": self.pretrained.params, "tokenizer": self.pretrained.tokenizer, "key": jax.random.key(seed)}
        return generate(self.adapted, self.bank, tasks, prompts, **parts, **options)


def open_language_bank(
    folder: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    settings: LanguageSettings | None = None,
) -> LanguageBank:
    """A bank from its folder, or a new one.

    Args:
        folder: made by `share-jax learn`; or new, with settings.
        model: path of the base model, where it has moved.
        settings: of a new bank, or of one without tasks, in which they are free.

    Raises:
        InputError: there is no bank and no settings; the model is not where it was.
        FormatError: the bank is damaged or another model's, or was learnt with another tokenizer, stop token or chat
            template; or the model cannot be read.
        TargetError: a pattern matches no kernel.

    Example:
        >>> opened = open_language_bank("bank")
        >>> opened.bank.names, len(opened.adapted.targets)
        (('cats', 'dogs'), 7)
        >>> open_language_bank("new", settings=LanguageSettings("decoder")).bank.names
        ()
    """
    chosen = read_settings(folder) if settings is None else settings
    chosen = replace(chosen, model=model_place(chosen.model if model is None else os.fspath(model), Path(folder)))
    loaded = load_decoder(chosen.model)
    layers = loaded.model.config.num_hidden_layers
    first = _first_layer(chosen, layers, loaded.params, known=is_language_bank(folder))
    if first >= layers:
        known = is_language_bank(folder)
        what, got = (f"model {chosen.model}", f"{layers} layers") if known else ("first_layer", first)
        expected = f"the bank's model: its tasks adapt layer {first}" if known else f"0 to {layers - 1}"
        fix = "pass the model that they were learnt on" if known else "lower --first-layer"
        raise InputError(message(what, got=got, expected=expected, fix=fix))
    chosen = replace(chosen, first_layer=first)
    loaded = loaded._replace(model=loaded.model.clone(first_layer=first))
    targets = chosen.targets or tuple(rf"layer_{layer}/.*/kernel" for layer in range(first, layers))
    sample = jnp.ones((1, 8), jnp.int32)
    adapted = adapt(loaded.model, {"params": loaded.params}, sample, targets=targets, method=_method(chosen))
    learner = _learner(adapted, loaded.params, chosen, optax.sgd(0.0))
    fresh: Any = learner.start(adapted.init(jax.random.key(0), loaded.params, num_tasks=1))
    folder, marks = Path(folder), token_marks(loaded.tokenizer)
    load: Any = load_share_bank if isinstance(fresh, ShareBank) else load_bank
    known = exists(folder) and (settings is None or bool(open_checkpoint(folder).names))
    bank = load(folder, learner, fresh) if known else fresh
    if bank.names:
        check_token_marks(read_settings(folder).tokens or {}, marks, chosen.model)
    return LanguageBank(folder, replace(chosen, tokens=marks), loaded, adapted, bank)


def _first_layer(settings: LanguageSettings, layers: int, params: Any, *, known: bool) -> int:
    """The first layer that is adapted: what lies below is frozen, computed once, and has no target.

    Raises:
        InputError: a new bank has targets below its own first layer.
        TargetError: a pattern matches no kernel.
    """
    part = 5 if known else 3  # banks of earlier versions do not name their first layer
    usual = layers - max(1, layers // part)
    if not settings.targets:
        return usual if settings.first_layer is None else settings.first_layer
    paths = match(settings.targets, flat(params), what="target")
    lowest, path = min((_layer_of(path, layers), path) for path in paths)
    if settings.first_layer is None or lowest >= settings.first_layer or known:
        return lowest if settings.first_layer is None else min(lowest, settings.first_layer)
    got, fix = f"{path}, below layer {settings.first_layer}", f"lower --first-layer to {lowest}, or choose others"
    raise InputError(message("targets", got=got, expected="kernels of the layers that are adapted", fix=fix))


def _layer_of(path: str, layers: int) -> int:
    """The layer at which a model has to be cut for a parameter to lie above: 0 for the embedding.

    >>> _layer_of("layer_3/mlp/up/kernel", 8), _layer_of("embed/embedding", 8), _layer_of("head/kernel", 8)
    (3, 0, 7)
    """
    name = path.partition("/")[0]
    if name.startswith("layer_"):
        return int(name.removeprefix("layer_"))
    return 0 if name == "embed" else layers - 1


def _method(settings: LanguageSettings) -> Parameterization:
    numbers = {"rank": settings.rank, "alpha": settings.alpha}
    return method_named(settings.method, **numbers, num_basis=settings.num_basis, pseudo_rank=settings.rank)


def _learner(
    adapted: Adapted,
    params: Any,
    settings: LanguageSettings,
    transform: optax.GradientTransformation,
    start_from: StartFrom = "zero",
) -> Learner | ShareLearner:
    base = {"params": params}
    if isinstance(adapted.method, Share):
        return ShareLearner(adapted, base, transform, next_token, alpha=settings.alpha, start_from=start_from)
    return Learner(adapted, base, transform, next_token, start_from=start_from, compile_ahead=False)

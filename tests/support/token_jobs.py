"""Jobs of a tiny language model that learns to complete a few texts, for tests of token streams."""

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pretrained_folders import pretrained_folder

from experiments.algorithms.job import Job
from experiments.backbones.decoder import decoder_backbone, hidden_of
from experiments.config.run_config import changed, preset
from experiments.report.progress import NullProgress
from experiments.streams.base import Stream
from experiments.streams.text_tasks import CompletionTask
from experiments.streams.token_stream import Shots, token_tasks
from share_jax.models.pretrained_decoder import load_decoder, load_tokenizer_of
from share_jax.text.examples import Example

ASKED = ("the cat sat", "a dog sat", "the dog sat", "a cat sat")
ANSWERS = {"sql": "SELECT name", "mongo": "db . shops . find", "words": "on the cat"}


def text_task(name: str) -> CompletionTask:
    """A task with one answer to all of its questions."""
    examples = tuple(Example(f"{asked} {name} :", ANSWERS[name]) for asked in ASKED)
    return CompletionTask(name, examples, {"test": examples, "further": examples[:2]}, "exact")


def token_stream(folder: Path, tasks: int = 2) -> Stream:
    """The first tasks as tokens of the tiny decoder in `folder`."""
    texts = [text_task(name) for name in list(ANSWERS)[:tasks]]
    made = token_tasks(texts, load_tokenizer_of(folder), 32, Shots(count=2, tested=2))
    return Stream("texts", "task-incremental", made)


def token_job(where: Path, tasks: int = 2, cached: bool = True, **config: Any) -> Job:
    """A job of few updates; with `cached` the frozen layer's output stands in place of token ids."""
    folder = pretrained_folder("decoder", Path(mkdtemp(dir=where)))
    backbone = decoder_backbone(load_decoder(folder, first_layer=1), "tiny")
    stream = token_stream(folder, tasks)
    if cached:
        splits = [split for task in stream.tasks for split in (task.train, task.test, task.few_shot) if split]
        found = iter(hidden_of(backbone, splits))
        hidden = [
            replace(t, train=next(found), test=next(found), few_shot=next(found), further={}) for t in stream.tasks
        ]
        stream = replace(stream, tasks=tuple(hidden))
    few = {"steps": 2, "batch_size": 4, "eval_batch_size": 4, "rank": 2, "length_buckets": (), "first_layer": 1}
    whole = replace(preset("queries10", "quick"), numbers=(), **few)
    return Job("shared_a", changed(whole, **config), stream, backbone, 0, where / "store", NullProgress())

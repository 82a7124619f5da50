"""texts: a user's own texts, one CSV or JSONL file per task, on MiniLM.

    python -m experiments.run --experiment texts --data-folder FOLDER

`experiments.streams.text_folder` says what the files hold. Texts are as long as the longest, at most `--max-length`
tokens. Result and wall time: they are those of the data. The rates are those of 20 Newsgroups.
"""

from dataclasses import replace

from experiments.assets import MINILM
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.text_stream import ARTICLES, limits, text_backbone, text_stream
from experiments.streams.base import Split, Stream
from experiments.streams.text_folder import text_folder

OWN = {**ARTICLES, "max_length": 128, "length_buckets": (16, 32, 64, 96)}


def stream(config: Config) -> Stream:
    """The tasks of the folder as tokens, cut behind the longest text."""
    whole = text_stream(config, text_folder(config.data_folder, **limits(config)))
    splits = [split for task in whole.tasks for split in (task.train, task.test)]
    longest = max(int(split.inputs["attention_mask"].sum(axis=1).max()) for split in splits)

    def cut(split: Split) -> Split:
        return Split({name: array[:, :longest] for name, array in split.inputs.items()}, split.labels)

    return replace(
        whole, tasks=tuple(replace(task, train=cut(task.train), test=cut(task.test)) for task in whole.tasks)
    )


EXPERIMENT = Experiment(
    "texts",
    {
        "quick": {**OWN, "steps": 6, "train_per_task": 64, "test_per_task": 32},
        "default": OWN,
        "full": {**OWN, "steps": 300, "max_length": 256, "length_buckets": (16, 32, 64, 96, 128, 192)},
    },
    stream,
    text_backbone,
    assets=(MINILM,),
)

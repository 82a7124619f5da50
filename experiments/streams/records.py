"""Streams from records: any random-access source of dicts, and TFDS data sets without TensorFlow."""

import os
from collections.abc import Sequence

from experiments.data.sources import Convert, Records, RecordSource, in_memory
from experiments.data.tfds_sets import records, tfds_builder
from experiments.streams.base import Stream, stream_from_arrays
from share_jax.errors import InputError, message


def stream_from_records(
    name: str,
    *,
    train: Records,
    test: Records,
    convert: Convert,
    groups: Sequence[Sequence[int]],
    label: str = "label",
    class_names: Sequence[str] | None = None,
    protocol: str = "task-incremental",
) -> Stream:
    """Splits a source of records into tasks by groups of its classes; read whole into memory.

    Args:
        name: of the stream.
        train: dicts of features to learn from: a list, a TFDS `data_source`, any Grain source.
        test: the same to be tested on.
        convert: record -> the model's inputs by name, each of one fixed shape and type; for texts, `text_inputs`.
        groups: for each task, the data set's labels that are its classes 0, 1, ...
        label: feature that holds the label.
        class_names: name of each label; by default the label itself.
        protocol: one of `PROTOCOLS`.

    Raises:
        InputError: a source is empty, a feature is missing, inputs differ in shape or type; and as
            `stream_from_arrays`.
    """
    sides = [in_memory(RecordSource(side, convert, label)) for side in (train, test)]
    return stream_from_arrays(
        name,
        train=(sides[0].inputs, sides[0].labels),
        test=(sides[1].inputs, sides[1].labels),
        groups=groups,
        class_names=class_names,
        protocol=protocol,
    )


def stream_from_tfds(
    name: str,
    dataset: str | os.PathLike[str],
    *,
    convert: Convert,
    groups: Sequence[Sequence[int]],
    label: str = "label",
    train_split: str = "train",
    test_split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    protocol: str = "task-incremental",
) -> Stream:
    """Splits a TFDS data set into tasks by groups of its classes; read whole into memory, without TensorFlow.

    Args:
        name: of the stream.
        dataset: a TFDS name, e.g. "cifar100", or the folder of a prepared version.
        convert: example -> the model's inputs by name, each of one fixed shape and type; for texts, `text_inputs`.
        groups: for each task, the data set's labels that are its classes 0, 1, ...
        label: feature that holds the label; its names become the classes' names where it has them.
        train_split: TFDS split to learn from.
        test_split: TFDS split to be tested on.
        data_dir: where data sets are kept by name; None is TFDS's own default.
        protocol: one of `PROTOCOLS`.

    Raises:
        InputError: no such data set, split or feature; and as `stream_from_records`.
        FormatError: the data need TensorFlow, or the folder holds none.
    """
    builder = tfds_builder(dataset, data_dir)
    if label not in builder.info.features:
        what, expected = f"label of TFDS data set {builder.info.name!r}", f"one of {sorted(builder.info.features)}"
        raise InputError(message(what, got=repr(label), expected=expected, fix="pass label="))
    return stream_from_records(
        name,
        train=records(builder, train_split),
        test=records(builder, test_split),
        convert=convert,
        groups=groups,
        label=label,
        class_names=getattr(builder.info.features[label], "names", None),
        protocol=protocol,
    )

"""Where examples come from: arrays in memory, tokenized texts, or records with random access, as of TFDS or Grain."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from share_jax.errors import InputError, message
from share_jax.models.tokenizer import Encode

Example = Mapping[str, Any]
Convert = Callable[[Example], Mapping[str, np.ndarray]]
"""One record -> the model's inputs by name, each of one fixed shape and type."""


class Records(Protocol):
    """Random access to records: a list, a TFDS `data_source`, any Grain source."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """One record."""
        ...


class Source(Protocol):
    """Examples that a pipeline can take in any order."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def take(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Inputs (n, ...) by name and labels (n,) of the examples at `index` (n,)."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Arrays in memory.

    Attributes:
        inputs: arrays (examples, ...).
        labels: (examples,) whole numbers; float32 where numbers are asked for; (examples, K) where tokens are.

    Raises:
        InputError: no examples, lengths that differ, objects, or labels that are no whole numbers.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray

    def __post_init__(self) -> None:
        """Checks lengths and types."""
        _check_some(len(self.labels))
        _check_arrays(self.inputs, self.labels, len(self.labels))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def take(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The rows at `index`."""
        return {name: array[index] for name, array in self.inputs.items()}, self.labels[index]


@dataclass(frozen=True, eq=False)
class RecordSource:
    """Records that are read, and decoded by `convert`, when they are asked for.

    Attributes:
        records: dicts of features by number.
        convert: record -> inputs.
        label: feature that holds the label.

    Raises:
        InputError: no records; or, of the first record: it is no dict, a feature is missing, or `convert` returns
            what is no array of numbers.
    """

    records: Records
    convert: Convert
    label: str = "label"

    def __post_init__(self) -> None:
        """Reads the first record, so that a mistake shows here."""
        _check_some(len(self.records))
        self.take(np.zeros(1, int))

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def take(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The records at `index`, converted and stacked; read in one go where the records can do that.

        Raises:
            InputError: as the class, for any of them; or their shapes or types differ.
        """
        places = [int(place) for place in index]
        many = getattr(self.records, "__getitems__", None)
        found = many(places) if many is not None else [self.records[place] for place in places]
        rows = [self._row(place, record) for place, record in zip(places, found, strict=True)]
        first = _kinds(rows[0][0])
        for place, (inputs, _) in zip(places, rows, strict=True):
            if (kinds := _kinds(inputs)) != first:
                fix = "make convert return one shape and type"
                raise InputError(message(f"inputs of example {place}", got=kinds, expected=first, fix=fix))
        inputs = {name: np.stack([row[name] for row, _ in rows]) for name in first}
        labels = np.array([label for _, label in rows])
        _check_arrays(inputs, labels, len(places))
        return inputs, labels

    def _row(self, place: int, record: Any) -> tuple[dict[str, np.ndarray], Any]:
        what = f"example {place}"
        if not isinstance(record, Mapping):
            got, fix = type(record).__name__, "wrap the source so that it gives dicts"
            raise InputError(message(what, got=got, expected="a dict of features", fix=fix))
        try:
            inputs, label = self.convert(record), record[self.label]
        except KeyError as error:
            expected, fix = f"one of {sorted(record)}", "check the name"
            raise InputError(message(f"feature of {what}", got=error, expected=expected, fix=fix)) from error
        if not isinstance(inputs, Mapping) or not inputs:
            got, expected = type(inputs).__name__, "a dict of the model's inputs"
            raise InputError(message(f"converted {what}", got=got, expected=expected, fix='return {"images": array}'))
        if np.ndim(label) or not _may_be_labels(np.asarray(label).dtype):
            got, fix = f"{np.asarray(label).dtype} of shape {np.shape(label)}", "map the classes to 0, 1, 2, ..."
            raise InputError(message(f"label of {what}", got=got, expected="a whole number", fix=fix))
        return {name: np.asarray(array) for name, array in inputs.items()}, label


def text_inputs(encode: Encode, feature: str = "text") -> Convert:
    """A `convert` of records whose `feature` is a text, str or UTF-8 bytes: `input_ids` and `attention_mask`, (L,).

    Args:
        encode: as of `share_jax.models.tokenizer`, with one fixed length.
        feature: the text's name.
    """

    def convert(record: Example) -> dict[str, np.ndarray]:
        text = record[feature]
        ids, mask = encode([text.decode("utf-8") if isinstance(text, bytes) else str(text)])
        return {"input_ids": ids[0], "attention_mask": mask[0]}

    return convert


def in_memory(source: Source) -> ArraySource:
    """All examples of a source as arrays; what a pipeline over texts wants, whose lengths it has to know.

    Raises:
        InputError: as the source's `take`.
    """
    return ArraySource(*source.take(np.arange(len(source))))


def _kinds(inputs: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{array.dtype}{list(array.shape)}" for name, array in inputs.items()}


def _may_be_labels(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" or dtype == np.float32


def _check_some(examples: int) -> None:
    if not examples:
        fix = "check the split's name and the data folder"
        raise InputError(message("examples of the source", got=0, expected="at least 1", fix=fix))


def _check_arrays(inputs: Mapping[str, np.ndarray], labels: np.ndarray, examples: int) -> None:
    for name, array in inputs.items():
        if len(array) != examples:
            expected = f"{examples}, as the labels"
            raise InputError(message(f"input {name!r}", got=len(array), expected=expected, fix="give each one label"))
        if array.dtype.kind not in "biufV":  # V: bfloat16 and its like
            fix = "convert or encode it first"
            raise InputError(message(f"input {name!r}", got=array.dtype, expected="an array of numbers", fix=fix))
    if labels.ndim not in (1, 2) or not _may_be_labels(labels.dtype):
        got, fix = f"{labels.dtype} of shape {labels.shape}", "map the classes to 0, 1, 2, ..."
        raise InputError(message("labels", got=got, expected="one whole number for each example", fix=fix))

"""Answers to one prompt in one row: the prompt is computed once, and each answer is a document that goes on from it.

A question that is scored by options is a row for each of its answers, which differ in a few tokens at the end. Here
those rows become one, as `Decoder` takes it with `stems`; what is found goes back to the rows that there were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.data.batch_order import token_counts
from share_jax.models.text_stems import LENGTHS, padded_length

LEAST = 0.5
"""A prompt is at least this part of each of its rows; below it little is saved."""

_WIDTHS = (8, 16, 32, 64)
"""Wanted tokens that a row is padded to; each compiles once, with each length."""


@dataclass(frozen=True)
class JoinedRow:
    """Rows with one prompt.

    Attributes:
        first: the first of them.
        end: behind the last.
        prompt: tokens of the prompt.
        length: of the prompt and of all answers.
        wanted: tokens that are scored, of all answers.
    """

    first: int
    end: int
    prompt: int
    length: int
    wanted: int

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and wanted tokens that the row is padded to."""
        return padded_length(self.length), padded_length(self.wanted, _WIDTHS)


def joined_rows(inputs: Mapping[str, np.ndarray]) -> list[JoinedRow]:
    """Neighbouring rows with one prompt, in order; none where no prompt has two rows.

    Args:
        inputs: of all rows: `input_ids` or `hidden`, `attention_mask` of one document, `columns` and `targets`, as of
            `share_jax.train.token_rows`.
    """
    prompts, sizes = inputs["columns"][:, 0] + 1, token_counts(inputs["attention_mask"])
    wanted = wanted_counts(inputs["targets"])
    tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["hidden"]
    found: list[JoinedRow] = []
    first = 0
    for row in range(1, len(sizes) + 1):
        if row < len(sizes):
            prompt = prompts[row]
            length = prompt + (sizes[first : row + 1] - prompt).sum()
            if (
                prompts[first] == prompt
                and prompt >= LEAST * sizes[first : row + 1].max()
                and length <= LENGTHS[-1]
                and wanted[first : row + 1].sum() <= _WIDTHS[-1]
                and np.array_equal(tokens[row, :prompt], tokens[first, :prompt])
            ):
                continue
        prompt, own = int(prompts[first]), slice(first, row)
        length = prompt + int((sizes[own] - prompt).sum())
        found.append(JoinedRow(first, row, prompt, length, int(wanted[own].sum())))
        first = row
    return found if any(each.end - each.first > 1 for each in found) else []


def joined_inputs(inputs: Mapping[str, np.ndarray], rows: Sequence[JoinedRow]) -> dict[str, np.ndarray]:
    """The inputs of rows of one shape, each with all its answers: those of `Decoder.__call__`, with `stems`."""
    length, width = rows[0].shape
    name = "input_ids" if "input_ids" in inputs else "hidden"
    tokens = inputs[name]
    sizes, wanted = token_counts(inputs["attention_mask"]), wanted_counts(inputs["targets"])
    out = np.zeros((len(rows), length, *tokens.shape[2:]), tokens.dtype)
    mask, columns = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), width), np.int32)
    targets = np.full((len(rows), width), -1, np.int32)
    for number, row in enumerate(rows):
        out[number, : row.prompt], mask[number, : row.prompt] = tokens[row.first, : row.prompt], 1
        place, column = row.prompt, 0
        for document, answer in enumerate(range(row.first, row.end), start=2):
            own = tokens[answer, row.prompt : sizes[answer]]
            out[number, place : place + len(own)], mask[number, place : place + len(own)] = own, document
            at, many = inputs["columns"][answer, : wanted[answer]], slice(column, column + wanted[answer])
            columns[number, many] = np.where(at < row.prompt, at, at - row.prompt + place)
            targets[number, many] = inputs["targets"][answer, : wanted[answer]]
            place, column = place + len(own), column + int(wanted[answer])
    stems = np.array([row.prompt for row in rows], np.int32)
    return {name: out, "attention_mask": mask, "columns": columns, "targets": targets, "stems": stems}


def apart(found: np.ndarray, row: JoinedRow, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What was found of a joined row's wanted tokens, (width, ...), answer by answer: (its wanted tokens, ...)."""
    counts = wanted_counts(inputs["targets"][row.first : row.end])
    return np.split(found[: row.wanted], np.cumsum(counts)[:-1])


def wanted_counts(targets: np.ndarray) -> np.ndarray:
    """(N,) how many columns each row has, up to the last wanted one."""
    return 1 + np.where(targets >= 0, np.arange(targets.shape[1]), 0).max(axis=1)

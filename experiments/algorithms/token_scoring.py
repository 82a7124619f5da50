"""What a model answers to test examples; tokens are scored with texts of like length together, without much padding.

Answers to one prompt are scored in one row, so that the prompt is computed once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.algorithms.batches import learnt_widths
from experiments.algorithms.job import Job
from experiments.algorithms.joined_answers import apart, joined_inputs, joined_rows, wanted_counts
from experiments.algorithms.objective import of_tokens
from experiments.algorithms.scoring import predictions
from experiments.data.batch_order import LEARNT, bucketed
from share_jax.train.batches import padded
from share_jax.typing import Tree


def outputs_of(
    job: Job, predictor: Any, base: Tree, shared: Tree, slot: Tree, inputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """What is scored of any examples: logits (examples, width of the head), or `token_predictions`."""
    if of_tokens(job.stream):
        return token_predictions(job, predictor, base, shared, slot, inputs)
    size, point = job.config.eval_batch_size, job.preemption.point
    return predictions(predictor, base, shared, slot, inputs, size, point)


def token_predictions(
    job: Job, predictor: Any, base: Tree, shared: Tree, slot: Tree, inputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Of each wanted token its nats, and 1 where it is the likeliest: (examples, K, 2) float32.

    Args:
        job: for its lengths and the size of its batches.
        predictor: (base, shared, slot, inputs) to `TokenScores`.
        base: the frozen variables.
        shared: what tasks share.
        slot: of the task that answers.
        inputs: of all examples.
    """
    wanted = inputs["targets"]
    values = np.stack([np.zeros(wanted.shape, np.float32), np.ones(wanted.shape, np.float32)], axis=-1)
    size = job.config.eval_batch_size

    def scored(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        found = predictor(base, shared, slot, rows)
        job.preemption.point()
        return np.stack([np.asarray(found.nats), np.asarray(found.right)], axis=-1)

    if joined := joined_rows(inputs):
        for shape in sorted({row.shape for row in joined}):
            alike = [row for row in joined if row.shape == shape]
            for batch in np.split(np.arange(len(alike)), range(size, len(alike), size)):
                index, weights = padded(batch, size)
                found = scored(joined_inputs(inputs, [alike[each] for each in index]))
                for row, own in zip((alike[each] for each in batch), found[weights > 0], strict=True):
                    for number, answer in enumerate(apart(own, row, inputs), start=row.first):
                        values[number, : len(answer)] = answer
        return values
    buckets = bucketed(inputs, job.config.length_buckets, learnt=learnt_widths(job))
    every = np.arange(len(wanted))
    places = np.zeros(len(wanted), int) if buckets is None else buckets.of(every)
    needed = wanted_counts(wanted)
    for place in np.unique(places):
        rows, cut = every[places == place], dict(inputs)
        if buckets is not None and buckets.learnt is not None:
            most = max(buckets.learnt[place], int(needed[rows].max()))
            cut |= {name: inputs[name][:, : buckets.lengths[place]] for name in buckets.inputs}
            cut |= {name: inputs[name][:, :most] for name in LEARNT}
        for batch in np.split(rows, range(size, len(rows), size)):
            index, weights = padded(batch, size)
            own = scored({name: array[index] for name, array in cut.items()})[weights > 0]
            values[batch, : own.shape[1]] = own
    return values

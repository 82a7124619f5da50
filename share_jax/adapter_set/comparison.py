"""The errors of a new set beside those of chance and of cutting, and the groups that its adapters began in."""

from dataclasses import dataclass

import numpy as np

from share_jax.adapter_set.contents import SetContents
from share_jax.adapter_set.survey import Survey
from share_jax.adapters.shared_starts import Starts
from share_jax.annotations import Float
from share_jax.subspace.baselines import NUMBER_BYTES, cut_errors, null_errors
from share_jax.subspace.state import ShareState


@dataclass(frozen=True)
class Comparison:
    """What a set's errors are compared with, task by task, relative to whole adapters."""

    null: Float[np.ndarray, " T"]  # random adapters of the same spectra at the same k
    cut: Float[np.ndarray, " T"]  # every adapter cut alone to the same bytes
    starts: Starts


def compare(built: ShareState, contents: SetContents, survey: Survey, size: int) -> Comparison:
    """Both errors of every task. What the pseudo rank and rounding cost the set, they are charged, too.

    Args:
        built: the state before it was stored.
        contents: what was stored.
        survey: what was noted of the adapters.
        size: bytes of the set, without tensors that stay uncompressed.
    """
    shapes = {name: layer.shape for name, layer in built.layers.items()}
    rounding = np.zeros(len(built.tasks)) if contents.rounding is None else contents.rounding
    first = np.array([contents.tasks[name].cut for name in built.tasks])

    def charged(errors: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        kept = np.sqrt(np.maximum(1 - first**2, 0))
        return np.sqrt(first**2 + (kept * errors) ** 2 + rounding**2)

    null = null_errors(built.layers, survey.spectra)
    cut = cut_errors(survey.spectra, shapes, size, NUMBER_BYTES[contents.settings.storage])
    return Comparison(charged(null), charged(cut), survey.starts())

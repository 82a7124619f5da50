"""`python -m experiments.run` as a process of its own, on a tiny model without pretraining: it starts in seconds.

What is tested is the run around the model; everything else is the command itself. With TINY_RUN_MARKS=folder the file
`folder/merging` stands there while a merge is under way, so that a test can kill the process in the midst of one.
"""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments import run
from experiments.backbones.backbone import Backbone
from experiments.config import digits5
from share_jax.models.vit import VitClassifier, VitConfig
from share_jax.train import share_learner

CONFIG = VitConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32)


def tiny_vit(seed: int, classes: int, dtype: Any, first_layer: int) -> Backbone:
    """The digits' model with one narrow layer and random weights."""
    model = VitClassifier(CONFIG, classes, first_layer, dtype)
    params = model.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))["params"]
    return Backbone("tiny-vit", model, params, ("encoder/.*/ffn_down/kernel",), ("head/.*",), first_layer)


def marked(merge: Any, mark: Path) -> Any:
    """The merge, with a file that stands there while it is under way."""

    def merging(*args: Any, **kwargs: Any) -> Any:
        mark.touch()
        merged = merge(*args, **kwargs)
        mark.unlink()
        return merged

    return merging


if __name__ == "__main__":
    digits5.digits_vit = tiny_vit
    if "TINY_RUN_MARKS" in os.environ:
        share_learner.merge = marked(share_learner.merge, Path(os.environ["TINY_RUN_MARKS"]) / "merging")
    sys.exit(run.main())

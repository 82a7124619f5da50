"""Presets of the experiments that need weights and data sets of the user's; see `experiments.config.large`.

`experiments/streams/tfds.md` has, for each of them, the commands that prepare the data and run it, the hardware that is
meant, and the published figures to compare with; no result of ours is known.
"""

from typing import Any

IMAGES = ("cifar100_10", "imagenet_r_10", "food101_10", "caltech101_10", "flowers102_10", "images3")
LARGE = (*IMAGES, "glue6")

_VIT = {
    "rank": 8,
    "alpha": 16.0,
    "num_basis": 64,
    "phi": 8,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
}
_GLUE = {
    "rank": 8,
    "alpha": 16.0,
    "num_basis": 32,
    "phi": 8,
    "learning_rate": 5e-4,
    "head_learning_rate": 5e-4,
    "max_length": 128,
    "length_buckets": (32, 48, 64, 96),
}
"""Rank and columns of each basis as in the language table of the method's paper (p = r = 8, k = 32)."""

_SMALL = {"steps": 10, "batch_size": 8, "eval_batch_size": 32, "train_per_task": 64, "test_per_task": 32}

QUICK: dict[str, dict[str, Any]] = {
    **{name: {**_VIT, **_SMALL} for name in IMAGES},
    "glue6": {**_GLUE, **_SMALL, "max_length": 48, "length_buckets": ()},
}
DEFAULT: dict[str, dict[str, Any]] = {
    **{name: {**_VIT, "steps": 400} for name in IMAGES},
    "images3": {**_VIT, "steps": 2000},
    "glue6": {**_GLUE, "steps": 3000},
}
FULL: dict[str, dict[str, Any]] = {
    **{name: {**_VIT, "steps": 1600} for name in IMAGES},
    "images3": {**_VIT, "steps": 8000},
    "glue6": {**_GLUE, "steps": 12000},
}

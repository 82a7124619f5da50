"""digits5: scikit-learn's 8x8 digits two by two, five tasks that take seconds; for smoke tests and demos."""

import numpy as np

from experiments.streams.base import Split, Stream, stream_from_arrays
from share_jax.errors import InputError, message

_TEST_SHARE = 0.3
_SPLIT_SEED = 0


def digits_split() -> tuple[Split, Split]:
    """All ten digits as (train, test): `images` float32 (N, 8, 8, 1) in [0, 1]; one fixed split, alike in each class.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        fix = "pip install scikit-learn"
        raise InputError(message("digits", got=error, expected="scikit-learn", fix=fix)) from error
    images, labels = load_digits(return_X_y=True)
    images = (np.asarray(images, np.float32) / 16).reshape(-1, 8, 8, 1)
    labels = np.asarray(labels, np.int32)
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        places = np.flatnonzero(labels == digit)
        order = np.random.default_rng([_SPLIT_SEED, digit]).permutation(places)
        test[order[: round(_TEST_SHARE * len(places))]] = True
    return Split({"images": images[~test]}, labels[~test]), Split({"images": images[test]}, labels[test])


def digits5(seed: int = 0) -> Stream:
    """Five tasks of two digits each, task-incremental; pairs and order are drawn from `seed`, the split is fixed.

    Raises:
        InputError: scikit-learn is not installed.
    """
    train, test = digits_split()
    groups = np.random.default_rng(seed).permutation(10).reshape(5, 2)
    return stream_from_arrays(
        "digits5",
        train=(train.inputs, train.labels),
        test=(test.inputs, test.labels),
        groups=groups.tolist(),
    )

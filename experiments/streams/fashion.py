"""split_fashion5: Fashion-MNIST's ten kinds of clothing two by two, five tasks.

Source: Xiao et al. 2017, "Fashion-MNIST" (arXiv 1708.07747), 60,000 and 10,000 images; split as split MNIST is. The
files are those of Debian's package dataset-fashion-mnist, installed or fetched by apt-get; or a folder with the same
four files, or one in which TFDS has prepared `fashion_mnist`; or, where there is no apt-get, TFDS's own folder.
"""

import gzip
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from experiments.assets import Member, is_whole, make_folder
from experiments.data.tfds_sets import prepared_set, records
from experiments.report.notify import to_stderr
from experiments.streams.base import Split, Stream
from experiments.streams.mnist import pairs
from share_jax.errors import FormatError, InputError, message
from share_jax.storage.cache_dir import cache_root

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PACKAGE = "dataset-fashion-mnist"
_TFDS = "fashion_mnist"

FILES = {
    "train-images": Member(
        "train-images-idx3-ubyte.gz",
        26_421_856,
        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    ),
    "train-labels": Member(
        "train-labels-idx1-ubyte.gz", 29_491, "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
    ),
    "test-images": Member(
        "t10k-images-idx3-ubyte.gz", 4_422_079, "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
    ),
    "test-labels": Member(
        "t10k-labels-idx1-ubyte.gz", 5_125, "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
    ),
}

CLASSES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def split_fashion5(
    folder: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> Stream:
    """Five tasks of two kinds each, top and trouser, pullover and dress, ..., in an order drawn from `seed`.

    Args:
        folder: with the four files; by default Debian's, fetched if need be (see `fashion_split`).
        cache_dir: see `share_jax.storage.cache_dir.cache_root`.
        seed: of the order of the tasks, and of the images.
        train_per_task: most training images of a task, shared equally among its kinds; None is all 12,000.
        test_per_task: the same for the test; None is all 2,000.

    Raises:
        ShareError: the images cannot be had or read, or a limit is below two.
    """
    train, test = fashion_split(folder, cache_dir)
    return pairs("split_fashion5", train, test, CLASSES, seed, (train_per_task, test_per_task))


def fashion_split(
    folder: str | os.PathLike[str] | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> tuple[Split, Split]:
    """All kinds as (train, test): `images` float32 (N, 28, 28, 1) in [0, 1], 6,000 and 1,000 of each.

    Args:
        folder: with the four files, or of TFDS with `fashion_mnist/VERSION` in it.
        cache_dir: where they are put if they have to be fetched.

    Raises:
        InputError: they are nowhere and cannot be fetched.
        FormatError: a file of `folder` is not the pinned one.
    """
    if folder is None:
        found = next((place for place in (DEBIAN, _cached(cache_dir)) if _all_whole(place)), None)
        if found is None and shutil.which("apt-get") is None:
            return _from_tfds(None)
        folder = found or _fetch(_cached(cache_dir))
    root = Path(folder)
    if (root / _TFDS).is_dir():
        return _from_tfds(root)
    for member in FILES.values():
        if not is_whole(root / member.name, member):
            fix = f"pass a folder with the four files of Debian's {PACKAGE}, or TFDS's with {_TFDS} in it"
            got = "other bytes" if (root / member.name).exists() else "no file"
            raise FormatError(message(str(root / member.name), got=got, expected="Fashion-MNIST", fix=fix))
    arrays = {name: _idx(root / member.name) for name, member in FILES.items()}
    train, test = (_split(arrays[f"{part}-images"], arrays[f"{part}-labels"]) for part in ("train", "test"))
    return train, test


def _cached(cache_dir: str | os.PathLike[str] | None) -> Path:
    return cache_root(cache_dir) / "assets" / "fashion-mnist"


def _all_whole(folder: Path) -> bool:
    return all(is_whole(folder / member.name, member) for member in FILES.values())


def _fetch(folder: Path) -> Path:
    """Brings Debian's files into a folder of the cache, by apt-get and dpkg-deb; nothing is installed."""
    make_folder(folder)
    to_stderr(f"downloading {PACKAGE} (31 MB) to {folder}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as place:
        _run(["apt-get", "download", "--quiet", PACKAGE], place)
        packages = sorted(Path(place).glob(f"{PACKAGE}_*.deb"))
        if not packages:
            raise _nowhere("no package")
        _run(["dpkg-deb", "-x", packages[0].name, "content"], place)
        for member in FILES.values():
            file = Path(place) / "content" / DEBIAN.relative_to("/") / member.name
            if not is_whole(file, member):
                raise _nowhere(f"another {member.name}")
            os.replace(file, folder / member.name)
    return folder


def _run(command: list[str], place: str) -> None:
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise _nowhere(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        said = [row.strip() for row in done.stderr.splitlines() if row.strip()]
        raise _nowhere(said[-1] if said else f"{command[0]}'s exit status {done.returncode}")


def _nowhere(got: str) -> InputError:
    fix = f"apt install {PACKAGE}, or pass --data-folder with its four files"
    return InputError(message(f"download of {PACKAGE}", got=got, expected="Fashion-MNIST", fix=fix))


def _from_tfds(folder: Path | None) -> tuple[Split, Split]:
    builder = prepared_set(_TFDS, folder)

    def split(part: str) -> Split:
        rows = list(records(builder, part))
        return _split(np.stack([row["image"][..., 0] for row in rows]), np.array([row["label"] for row in rows]))

    return split("train"), split("test")


def _idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format: two zeros, type 8, the number of axes, their sizes, then the bytes."""
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    shape = np.frombuffer(data, ">u4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split({"images": (images / np.float32(255)).astype(np.float32)[..., None]}, labels.astype(np.int32))

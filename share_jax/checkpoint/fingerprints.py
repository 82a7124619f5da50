"""The fingerprint of a base model: what tells one set of frozen weights from another."""

import hashlib
import weakref
import zlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from share_jax.trees import flat, plain_text
from share_jax.typing import Tree


@dataclass(frozen=True)
class Fingerprint:
    """Of a tree of parameters.

    Attributes:
        whole: sha256 over every parameter's path, shape, dtype and bytes, in hexadecimal.
        leaves: CRC-32 of every parameter's bytes by its path, in hexadecimal: to name the one that differs.
    """

    whole: str
    leaves: dict[str, str]


_KNOWN: list[tuple[tuple[tuple[str, weakref.ref[jax.Array]], ...], Fingerprint]] = []
"""Fingerprints of trees whose arrays are still there, each by its very arrays."""


def fingerprint(params: Tree) -> Fingerprint:
    """The fingerprint of a tree, which is hashed once for as long as its arrays live.

    That holds for trees of `jax.Array`, which nobody can change. Other arrays are hashed at every call.

    Args:
        params: nested dict of arrays, or a flat one by path.
    """
    arrays_of = (
        (plain_text(path), leaf) for whole, part in flat(params).items() for path, leaf in _arrays(whole, part)
    )
    leaves = dict(sorted(arrays_of, key=lambda item: item[0]))
    for known, found in _KNOWN:
        arrays = {path: ref() for path, ref in known}
        if arrays.keys() == leaves.keys() and all(own is leaves[path] for path, own in arrays.items()):
            return found
    made = _hashed(leaves)
    if leaves and all(isinstance(leaf, jax.Array) for leaf in leaves.values()):
        _KNOWN[:] = [entry for entry in _KNOWN if all(ref() is not None for _, ref in entry[0])]
        _KNOWN.append((tuple((path, weakref.ref(leaf)) for path, leaf in leaves.items()), made))
    return made


def _arrays(path: str, leaf: Any) -> list[tuple[str, Any]]:
    """The arrays of a leaf by their paths: several where it is a quantised kernel, stored as a tree of its own."""
    found = jax.tree_util.tree_flatten_with_path(leaf)[0]
    return [(f"{path}{jax.tree_util.keystr(keys)}" if keys else path, array) for keys, array in found]


def _hashed(leaves: dict[str, Any]) -> Fingerprint:
    whole, each = hashlib.sha256(), {}
    for path, leaf in leaves.items():
        array = np.ascontiguousarray(jax.device_get(leaf))
        data = array.tobytes()
        whole.update(f"{path} {array.shape} {array.dtype}\n".encode())
        whole.update(data)
        each[path] = f"{zlib.crc32(data):08x}"
    return Fingerprint(whole.hexdigest(), each)

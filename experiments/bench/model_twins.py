"""Hands a subject's weights and inputs to the peer, and holds both to the same logits before anything is timed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from experiments.bench.peer import Peer, PeerError
from experiments.bench.subjects import Subject, torch_weights
from share_jax.errors import message

AGREE = 1e-3
"""How far the logits of the two runtimes may be apart in float32."""


def twin_files(subject: Subject, folder: Path) -> dict[str, Any]:
    """Writes what the peer builds the subject's twin from; the files' paths, and the sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, inputs = folder / "weights.safetensors", folder / "inputs.safetensors"
    save_file(torch_weights(subject.params, subject.twin), weights)
    arrays = {name: np.asarray(x) for name, x in (*subject.inputs.items(), ("labels", subject.labels))}
    save_arrays(arrays, inputs)
    return {"spec": subject.twin, "weights": str(weights), "inputs": str(inputs)}


def save_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes arrays by name, in whatever order they lie in memory."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def check_logits(name: str, ours: np.ndarray, theirs: np.ndarray, within: float) -> None:
    """Refuses a twin whose logits are others.

    Raises:
        PeerError: they are further apart than `within`; the two would not be the same model.
    """
    apart = float(np.abs(ours - theirs).max())
    if not apart <= within:
        fix = "measure with the versions of experiments/bench/peers.txt"
        raise PeerError(message(f"logits of {name}", got=f"{apart:.2g} apart", expected=f"{within}", fix=fix))


def agreed_twin(subject: Subject, peer: Peer, folder: Path) -> dict[str, Any]:
    """The files of a twin whose logits are those of the subject.

    Raises:
        PeerError: they are not; the two would not be the same model.
    """
    files = twin_files(subject, folder)
    theirs = np.array(peer.make("twin", "forward", files=files)["logits"])
    peer.drop(["twin"])
    ours = np.asarray(jax.jit(subject.model.apply)(subject.base, **subject.inputs))[: len(theirs)]
    check_logits(subject.name, ours, theirs, AGREE)
    return files

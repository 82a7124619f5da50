"""What an error is compared with: random adapters of the same spectra, and every adapter cut down by itself.

The null asks whether adapters share anything. Take a task's update W = U S V.T and put random frames in place of U and
V, each task's and side's drawn by itself. Of the balanced columns U sqrt(S), of squared lengths s_j, the k leading
directions of the random stack capture the share g(s_j; k) in expectation (`linalg.random_stack`). With P and Q the
projections of the two sides, the columns X and Y of a task give |P W Q|_F^2 = <X.T P X, Y.T Q Y>. Both matrices are
independent, and off their diagonals of mean 0, so that

    E |W - P W Q|_F^2 = sum_j s_j^2 (1 - g_a(s_j; k) g_b(s_j; k')).

That is the error of the null, from the singular values alone. In the flat geometry a task is one column per side, of
the squared norm of its factor, and the same holds of the whole update.

Cutting is what needs no other adapter: each keeps the leading part of its own singular value decompositions that fits
into its share of the bytes.
"""

from collections.abc import Mapping

import numpy as np

from share_jax.annotations import Float, Int
from share_jax.linalg.random_stack import captured_shares
from share_jax.runtime.threads import parallel_map
from share_jax.subspace.state import Subspace

NUMBER_BYTES = {"f32": 4.0, "bf16": 2.0, "int8": 1.0}
"""Of a number in each storage."""

Spectra = Mapping[str, Float[np.ndarray, "T m"]]
"""Target -> singular values of every task's update, zeros where a task has fewer or none."""


def lost_at_random(
    squares: tuple[Float[np.ndarray, "T m"], Float[np.ndarray, "T m"]],
    energy: Float[np.ndarray, "T m"],
    rows: tuple[int, int],
    ks: tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"]],
) -> Float[np.ndarray, "K T"]:
    """The expected squared error of every task of the null on one target.

    Args:
        squares: squared lengths of the columns of either side.
        energy: the part of the update's squared norm that each column stands for.
        rows: length of a column of either side.
        ks: columns of either side's basis, at several sizes.
    """
    shape = (len(ks[0]), *energy.shape)
    alike = rows[0] == rows[1] and np.array_equal(*ks) and np.array_equal(*squares)
    a = captured_shares(squares[0].ravel(), rows[0], ks[0]).reshape(shape)
    b = a if alike else captured_shares(squares[1].ravel(), rows[1], ks[1]).reshape(shape)
    return np.sum(energy * (1 - a * b), axis=-1)


def null_of_layer(
    layer: Subspace, values: Float[np.ndarray, "T m"], ks: tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"]]
) -> Float[np.ndarray, "K T"]:
    """`lost_at_random` for a target's geometry."""
    if layer.geometry == "columns":
        return lost_at_random((values, values), values**2, layer.shape, ks)
    rows = layer.basis_a.shape[0], layer.basis_b.shape[0]
    squares = layer.energy_a[:, None], layer.energy_b[:, None]
    return lost_at_random(squares, layer.norm[:, None] ** 2, rows, ks)


def null_errors(layers: Mapping[str, Subspace], spectra: Spectra) -> Float[np.ndarray, " T"]:
    """Every task's error, relative to its whole adapter, were the adapters random and their spectra the same.

    Args:
        layers: the compressed targets.
        spectra: of the updates that were compressed.
    """

    def one(name: str) -> np.ndarray:
        k, kp = layers[name].num_basis
        return null_of_layer(layers[name], spectra[name], (np.array([k]), np.array([kp])))[0]

    lost = np.sum(parallel_map(one, list(layers)), axis=0)
    return relative_errors(lost, spectra)


def relative_errors(lost: Float[np.ndarray, "*K T"], spectra: Spectra) -> Float[np.ndarray, "*K T"]:
    """Squared errors, relative to the tasks' whole adapters; 0 for a task whose update is zero."""
    norm = np.sum([np.sum(values**2, axis=-1) for values in spectra.values()], axis=0)
    return np.sqrt(np.clip(lost / np.where(norm > 0, norm, 1), 0, 1))


def cut_errors(
    spectra: Spectra, shapes: Mapping[str, tuple[int, int]], size: float, bytes_per_number: float
) -> Float[np.ndarray, " T"]:
    """Every task's error if each is cut by itself, so that all of them take no more than `size`.

    A column of a target costs `d_in + d_out` numbers. A task's share of the bytes is its share of all columns' cost; it
    takes the columns that save most per byte first. What rounding to few bytes would add is left out.

    Args:
        spectra: of the updates.
        shapes: (d_in, d_out) of the targets.
        size: bytes of all adapters together.
        bytes_per_number: of the storage.
    """
    values = np.concatenate(list(spectra.values()), axis=1)
    cost = np.concatenate([np.full(x.shape[1], float(sum(shapes[n]))) for n, x in spectra.items()]) * bytes_per_number
    own = (values > 0) @ cost
    budget = size * own / max(own.sum(), 1e-300)
    gain = values**2
    order = np.argsort(-gain / cost, axis=1, kind="stable")
    kept = np.cumsum(cost[order], axis=1) <= budget[:, None]
    lost = np.sum(np.where(kept, 0, np.take_along_axis(gain, order, axis=1)), axis=1)
    return relative_errors(lost, spectra)

"""How alike adapters are: cosines of their updates, overlaps of their column spaces, and simple clusters."""

from collections.abc import Callable, Sequence

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import groups, pack, shapes_of
from share_jax.annotations import Float
from share_jax.errors import InputError, message


def cosine(adapters: Sequence[Adapter]) -> Float[np.ndarray, "T T"]:
    """`<dW_i, dW_j> / (|dW_i| |dW_j|)` over all targets, without a dense product.

    `<A_i B_i, A_j B_j> = <A_i.T A_j, B_i B_j.T>`. A zero update has cosine 0 with everything, itself included.

    Raises:
        InputError: two adapters disagree about a target's shape.

    Example:
        >>> from share_jax.adapters import Factors
        >>> one = {"query": Factors(np.ones((4, 1)), np.array([[1.0, 0.0]]))}
        >>> other = {"query": Factors(np.ones((4, 1)), np.array([[0.0, 1.0]]))}
        >>> cosine([one, other])
        array([[1., 0.],
               [0., 1.]])
    """
    inner = np.zeros((len(adapters), len(adapters)))
    for names in groups(shapes_of(adapters, {})).values():
        for name in names:
            packed = pack(adapters, [name])
            a, b = (_flat(x[0]) for x in (packed.a, packed.b))
            tasks, p = len(adapters), packed.a.shape[-1]
            inner += ((a.T @ a) * (b.T @ b)).reshape(tasks, p, tasks, p).sum(axis=(1, 3))
    norm = np.sqrt(np.diag(inner))
    scale = np.outer(norm, norm)
    return np.clip(inner / np.where(scale > 0, scale, 1), -1, 1)


def overlap(adapters: Sequence[Adapter]) -> Float[np.ndarray, "T T"]:
    """Mean squared cosine of the principal angles of the column spaces, over both sides and all common targets.

    `|Q_i.T Q_j|_F^2 / min(r_i, r_j)` with orthonormal bases Q of the updates' column and row spaces: 1 if one space
    holds the other, 0 if they are orthogonal. Adapters without a common target have overlap 0.

    Raises:
        InputError: two adapters disagree about a target's shape.

    Example:
        >>> from share_jax.adapters import Factors
        >>> one = {"query": Factors(np.ones((4, 1)), np.array([[1.0, 0.0]]))}
        >>> other = {"query": Factors(np.ones((4, 1)), np.array([[0.0, 1.0]]))}
        >>> overlap([one, other]).round(3)  # one column space, and orthogonal row spaces
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    tasks = len(adapters)
    total, count = np.zeros((tasks, tasks)), np.zeros((tasks, tasks))
    for name in shapes_of(adapters, {}):
        packed = pack(adapters, [name])
        for x in (packed.a[0], packed.b[0]):
            bases = [_span(x[t], int(packed.ranks[0, t])) for t in range(tasks)]
            ranks = np.array([q.shape[1] for q in bases])
            owner = np.repeat(np.arange(tasks), ranks)
            q = np.concatenate(bases, axis=1)
            squares = np.zeros((tasks, tasks))
            np.add.at(squares, (owner[:, None], owner[None, :]), (q.T @ q) ** 2)
            smaller = np.minimum.outer(ranks, ranks)
            total += np.where(smaller > 0, squares / np.maximum(smaller, 1), 0)
            count += smaller > 0
    return np.clip(total / np.maximum(count, 1), 0, 1)


MEASURES = {"cosine": cosine, "overlap": overlap}
"""By the names that users give them."""


def in_blocks(
    measure: str, read: Callable[[Sequence[int]], list[Adapter]], count: int, size: int, progress: Callable[[int], None]
) -> Float[np.ndarray, "T T"]:
    """A measure of many adapters, two blocks of them at a time, so that memory does not grow with their number.

    Args:
        measure: a name in `MEASURES`.
        read: gives the adapters at some positions.
        count: how many there are.
        size: how many are a block.
        progress: called with the number of adapters that have been compared so far.
    """
    blocks = [list(range(i, min(i + size, count))) for i in range(0, count, size)]
    matrix = np.eye(count)
    for i, rows in enumerate(blocks):
        mine = read(rows)
        for columns in blocks[i + 1 :] or ([] if len(blocks) > 1 else [[]]):
            both = rows + columns
            matrix[np.ix_(both, both)] = MEASURES[measure]([*mine, *read(columns)])
            progress(both[-1] + 1)
    return matrix


def clusters(matrix: Float[np.ndarray, "..."], threshold: float) -> list[list[int]]:
    """Groups of mutual likeness by average linkage: merge the two most alike groups while their mean is >= `threshold`.

    Deterministic: of equal pairs the one with the lowest indices goes first; groups and members are sorted.

    Args:
        matrix: (T, T), how alike each pair is, such as `cosine` gives it.
        threshold: the least mean likeness at which two groups are merged.

    Raises:
        InputError: the matrix is not square.

    Example:
        >>> likeness = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
        >>> clusters(likeness, threshold=0.5)
        [[0, 1], [2]]
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        fix = "pass the matrix of cosine() or overlap()"
        raise InputError(message("likeness", got=matrix.shape, expected="a square matrix", fix=fix))
    found = [[i] for i in range(len(matrix))]
    likeness = np.array(matrix, np.float64)
    np.fill_diagonal(likeness, -np.inf)
    while len(found) > 1:
        i, j = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
        if not likeness[i, j] >= threshold:
            break
        i, j = sorted((int(i), int(j)))
        sizes = len(found[i]), len(found[j])
        joined = (sizes[0] * likeness[i] + sizes[1] * likeness[j]) / sum(sizes)
        likeness[i], likeness[:, i] = joined, joined
        likeness[i, i] = -np.inf
        likeness = np.delete(np.delete(likeness, j, axis=0), j, axis=1)
        found[i] = sorted(found[i] + found.pop(j))
    return sorted(found)


def _flat(x: Float[np.ndarray, "T d p"]) -> Float[np.ndarray, "d n"]:
    tasks, d, p = x.shape  # a target may have no columns at all
    return np.swapaxes(x, 0, 1).reshape(d, tasks * p).astype(np.float64)


def _span(x: Float[np.ndarray, "d p"], rank: int) -> Float[np.ndarray, "d q"]:
    """Orthonormal basis of the columns, as many as the numerical rank says."""
    u, s, _ = np.linalg.svd(x[:, :rank].astype(np.float64), full_matrices=False)
    tolerance = max(x.shape) * np.finfo(np.float32).eps * s.max(initial=0.0)
    return u[:, s > tolerance]

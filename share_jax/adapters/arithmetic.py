"""New adapters out of learnt ones: in balanced factors, cut to a rank, weighted sums, TIES and DARE.

A weighted sum is exact in factors. TIES and DARE work element by element, which on factors would depend on their
gauge: they are applied to the reconstructed update, one target at a time, and the result is cut to a rank by SVD.
"""

from collections.abc import Callable, Sequence

import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.adapters.stacking import groups, pack
from share_jax.annotations import Float
from share_jax.errors import InputError, message
from share_jax.linalg.balance import balanced


def balance(adapter: Adapter, *, rank: int | None = None) -> dict[str, Factors]:
    """The same updates in balanced factors, scale 1: `lora_a = U sqrt(S)`, `lora_b = sqrt(S) V.T`.

    `rank` keeps only that many columns, the best approximation of that rank (Eckart and Young 1936).

    Args:
        adapter: factors by target, of any scale.
        rank: columns that are kept at most; all when None.

    Raises:
        InputError: `rank` is below 1.

    Example:
        >>> adapter = {"query": Factors(np.full((6, 3), 2.0), np.ones((3, 4)))}
        >>> smaller = balance(adapter, rank=1)["query"]
        >>> smaller.rank, np.allclose(smaller.lora_a @ smaller.lora_b, 6.0)
        (1, True)
    """
    if rank is not None and rank < 1:
        raise InputError(message("rank", got=rank, expected="at least 1, or None for no cut", fix="pass rank=8"))
    out: dict[str, Factors] = {}
    for targets in groups({name: f.shape for name, f in adapter.items()}).values():
        packed = pack([adapter], targets)
        a, b = (x[:, 0] for x in balanced(packed.a, packed.b)[:2])
        for i, name in enumerate(targets):
            keep = min(adapter[name].rank, *adapter[name].shape, rank or adapter[name].rank)
            out[name] = Factors(a[i, :, :keep], b[i, :, :keep].T)
    return {name: out[name] for name in adapter}


def cut_to(adapter: Adapter, rank: int | None) -> Adapter:
    """The adapter in balanced factors of at most `rank` columns; itself where none has more, or without a rank."""
    if rank is None or all(factors.rank <= rank for factors in adapter.values()):
        return adapter
    return balance(adapter, rank=rank)


def weighted_sum(
    adapters: Sequence[Adapter], weights: Sequence[float], *, rank: int | None = None
) -> dict[str, Factors]:
    """`sum_i w_i dW_i`, by factors side by side; of rank `sum r_i`, or its best approximation of rank `rank`.

    A task without a target contributes zero there.

    Args:
        adapters: of one base model.
        weights: w_i, one for each adapter.
        rank: of the result at most; sum r_i when None.

    Raises:
        InputError: no adapter, weights that do not match, or shapes that disagree.

    Example:
        >>> ones = {"query": Factors(np.ones((4, 1)), np.ones((1, 3)))}
        >>> summed = weighted_sum([ones, ones], [0.25, 0.5])["query"]
        >>> summed.rank, np.allclose(summed.lora_a @ summed.lora_b, 0.75)
        (2, True)
    """
    _check(adapters, weights)
    out = {}
    for name in _targets(adapters):
        parts = [(w, x[name]) for w, x in zip(weights, adapters, strict=True) if name in x]
        a = [np.asarray(f.lora_a, np.float32) * np.float32(w * f.scale) for w, f in parts]
        b = [np.asarray(f.lora_b, np.float32) for _, f in parts]
        out[name] = Factors(np.concatenate(a, axis=1), np.concatenate(b, axis=0))
    return balance(out, rank=rank)


def ties(
    adapters: Sequence[Adapter], weights: Sequence[float], *, density: float, rank: int | None = None
) -> dict[str, Factors]:
    """TIES merging (Yadav et al. 2023, algorithm 1) of the updates, cut to `rank` (default: `sum r_i`).

    Trim: of each weighted update keep the share `density` of largest magnitude. Elect: per element the sign of the sum.
    Disjoint mean: the mean over those that have the elected sign, `sum_i [sgn = s] x_i / #[sgn = s]`.

    Args:
        adapters: of one base model.
        weights: w_i, one for each adapter.
        density: share of each update's elements that is kept, in (0, 1].
        rank: of the result; sum r_i when None.

    Raises:
        InputError: no adapter, weights that do not match, or a density outside (0, 1].

    Example:
        >>> up = {"query": Factors(np.ones((4, 1)), np.ones((1, 3)), scale=1.0)}
        >>> down = {"query": Factors(np.ones((4, 1)), np.ones((1, 3)), scale=-3.0)}
        >>> merged = ties([up, down], [1.0, 1.0], density=1.0)["query"]
        >>> np.allclose(merged.lora_a @ merged.lora_b, -3.0)  # the elected sign is that of the larger one
        True
    """
    _check(adapters, weights)
    if not 0 < density <= 1:
        raise InputError(message("density", got=density, expected="above 0 and at most 1", fix="pass 0.2"))

    def combine(updates: Float[np.ndarray, "m d_in d_out"], _: int) -> Float[np.ndarray, "d_in d_out"]:
        kept = np.stack([_trimmed(x, density) for x in updates])
        sign = np.sign(kept.sum(axis=0))
        agree = (np.sign(kept) == sign) & (kept != 0)
        return np.where(agree, kept, 0).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)

    return _elementwise(adapters, weights, combine, rank)


def dare(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    *,
    drop_rate: float,
    seed: int,
    rank: int | None = None,
) -> dict[str, Factors]:
    """DARE (Yu et al. 2024, equation 3): drop elements of each update with probability q, scale the rest up, add.

    `sum_i w_i m_i * dW_i / (1 - q)`, m_i ~ Bernoulli(1 - q): its expectation is the weighted sum. Cut to `rank`
    (default: `sum r_i`). Each target draws from a stream of its own, which follows from `seed` and its position.

    Args:
        adapters: of one base model.
        weights: w_i, one for each adapter.
        drop_rate: q, the probability that an element is dropped, in [0, 1).
        seed: of the dropped elements.
        rank: of the result; sum r_i when None.

    Raises:
        InputError: no adapter, weights that do not match, or a drop rate outside [0, 1).

    Example:
        >>> ones = {"query": Factors(np.ones((4, 1)), np.ones((1, 4)))}
        >>> merged = dare([ones], [1.0], drop_rate=0.5, seed=0, rank=4)["query"]
        >>> update = merged.lora_a @ merged.lora_b
        >>> bool(np.all(np.isclose(update, 0, atol=1e-5) | np.isclose(update, 2)))  # dropped, or scaled up
        True
    """
    _check(adapters, weights)
    if not 0 <= drop_rate < 1:
        raise InputError(message("drop_rate", got=drop_rate, expected="at least 0 and below 1", fix="pass 0.5"))

    def combine(updates: Float[np.ndarray, "m d_in d_out"], index: int) -> Float[np.ndarray, "d_in d_out"]:
        keep = np.random.default_rng([seed % 2**64, index]).random(updates.shape, np.float32) >= drop_rate
        return np.where(keep, updates / (1 - drop_rate), 0).sum(axis=0)

    return _elementwise(adapters, weights, combine, rank)


def _elementwise(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    combine: Callable[[np.ndarray, int], np.ndarray],
    rank: int | None,
) -> dict[str, Factors]:
    """`combine` on the weighted updates of one target at a time, cut to a rank by SVD."""
    if rank is not None and rank < 1:
        raise InputError(message("rank", got=rank, expected="at least 1, or None for sum r_i", fix="pass rank=8"))
    out = {}
    for index, name in enumerate(_targets(adapters)):
        parts = [(w, x[name]) for w, x in zip(weights, adapters, strict=True) if name in x]
        updates = [
            w * f.scale * (np.asarray(f.lora_a, np.float32) @ np.asarray(f.lora_b, np.float32)) for w, f in parts
        ]
        u, s, vt = np.linalg.svd(combine(np.stack(updates).astype(np.float32), index), full_matrices=False)
        keep = min(len(s), rank or sum(f.rank for _, f in parts))
        root = np.sqrt(s[:keep])
        out[name] = Factors((u[:, :keep] * root).astype(np.float32), (root[:, None] * vt[:keep]).astype(np.float32))
    return out


def _trimmed(x: Float[np.ndarray, "d_in d_out"], density: float) -> Float[np.ndarray, "d_in d_out"]:
    count = max(1, round(density * x.size))
    if count >= x.size:
        return x
    threshold = np.partition(np.abs(x), x.size - count, axis=None)[x.size - count]
    return np.where(np.abs(x) >= threshold, x, 0)


def _targets(adapters: Sequence[Adapter]) -> list[str]:
    return list(dict.fromkeys(name for adapter in adapters for name in adapter))


def _check(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    if not adapters or len(adapters) != len(weights):
        got = f"{len(adapters)} adapters and {len(weights)} weights"
        raise InputError(
            message("task arithmetic", got=got, expected="one weight per adapter", fix="pass as many of both")
        )
    for name in _targets(adapters):
        shapes = {x[name].shape for x in adapters if name in x}
        if len(shapes) > 1:
            fix = "combine adapters of one base model"
            raise InputError(message(f"target {name}", got=sorted(shapes), expected="one shape", fix=fix))

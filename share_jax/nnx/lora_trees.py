"""LoRA pairs of a live model as tasks of a bank, and a bank's task as the pairs of a live model.

- `nnx.LoRALinear` and `nnx.LoRA`, at `{layer}/lora/lora_a` or, around a `base_module`, `{layer}/lora_a`; gemma's
  `{layer}/lora/a`. There is no alpha: the scale is 1.
- qwix, and so tunix: `{layer}/{kernel}_lora_a`, with the kernel's contracted axes in front of the rank and its others
  behind it. The scale is alpha / rank, and alpha is in the rule alone.

Source: flax `nnx/nn/lora.py`; qwix `_src/providers/lora.py`; gemma `gemma/peft/_lora.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.bank.bank import TaskBank
from share_jax.errors import InputError, TargetError, message
from share_jax.formats.peft_config import is_scale
from share_jax.layers.kernel_trees import target_names
from share_jax.layers.targets import Target
from share_jax.nnx.model_leaves import LiveTree, live_tree
from share_jax.subspace.from_bank import bank_adapters, bank_heads
from share_jax.subspace.into_bank import WithTasks, with_adapters

AROUND = "base_module"
"""Key of what `nnx.LoRA` wraps: no part of the path that the layer has without it."""

LEAST_ALPHA = 1e-6
"""The factors are divided by alpha / rank."""


class _Pair(NamedTuple):
    """Paths of the two factors, and whether alpha / rank scales their product."""

    a: str
    b: str
    scaled: bool


def import_lora(model: Any, adapted: Any, bank: TaskBank, name: str, *, alpha: float | None = None) -> WithTasks:
    """The bank with the LoRA pairs of a live model as one more task; learnt tasks keep their bits.

    Args:
        model: an NNX module, its `nnx.State`, or nested dicts as of a Linen module, with the pairs that were trained.
        adapted: the adapted model without them, such as `share_jax.adapt` of the model before LoRA was added.
        bank: what has been learnt, on `adapted`; an empty one from `Learner.start`, for example.
        name: the new task's.
        alpha: of the rule by which qwix or tunix made the pairs; of `nnx.LoRA` there is none.

    Returns:
        The bank, and the measured error of the update: zero, or rounding, but for `Share`, which projects.

    Raises:
        TargetError: a pair's kernel is no target, or is of another shape; a head is missing.
        TaskError: the name is taken.
        InputError: there are no pairs; alpha is needed, or there is none; the method cannot hold the pairs.

    Example:
        >>> import jax, jax.numpy as jnp, optax, share_jax
        >>> from flax import nnx
        >>> plain, trained = nnx.Linear(6, 4, rngs=nnx.Rngs(0)), nnx.LoRALinear(6, 4, lora_rank=2, rngs=nnx.Rngs(0))
        >>> method = share_jax.SharedA(rank=2, alpha=2)
        >>> adapted = share_jax.adapt(plain, jnp.ones((1, 6)), targets="kernel", method=method)
        >>> learner = share_jax.Learner(adapted, adapted.variables(plain), optax.sgd(0.1))
        >>> empty = learner.start(adapted.init(jax.random.key(0), learner.base["params"], 1))
        >>> import_lora(trained, adapted, empty, "theirs").bank.names
        ('theirs',)
    """
    tree = live_tree(model)
    targets = {_bare(target.path): target for target in adapted.targets}
    adapter: dict[str, Factors] = {}
    pairs = _pairs(tree, tuple(targets))
    for path, pair in pairs.items():
        a, b = (np.asarray(tree.leaves[each], np.float32) for each in pair[:2])
        scale = _alpha(alpha, pair) / a.shape[-1] if pair.scaled else 1.0
        adapter |= _factors(targets[path], pair, a, b, scale)
    if alpha is not None and not any(pair.scaled for pair in pairs.values()):
        fix = "leave it out"
        raise InputError(message("alpha", got=alpha, expected="none for pairs that no alpha scales", fix=fix))
    bare = {_bare(path): leaf for path, leaf in tree.leaves.items()}
    heads = {path: np.asarray(bare[_bare(path)]) for path in adapted.heads if _bare(path) in bare}
    return with_adapters(bank, adapted, {name: adapter}, {name: heads})


def export_lora(bank: TaskBank, adapted: Any, name: str, model: Any, *, alpha: float | None = None) -> Any:
    """A copy of a live LoRA model whose pairs, and heads, are those of a task; pairs of no target become zero.

    Args:
        bank: the learnt tasks.
        adapted: the adapted model that learnt them.
        name: the task's.
        model: an NNX module, its `nnx.State`, or nested dicts, with pairs of at least the task's rank. It stays as it
            is; what is no pair and no head is in the copy, too.
        alpha: of the rule by which qwix or tunix made the pairs.

    Raises:
        TaskError: there is no such task.
        TargetError: a target has no pair, or one of another shape or smaller rank; a head is not there.
        InputError: there are no pairs, or alpha is needed.

    Example:
        >>> import jax, jax.numpy as jnp, optax, share_jax
        >>> from flax import nnx
        >>> plain, trained = nnx.Linear(6, 4, rngs=nnx.Rngs(0)), nnx.LoRALinear(6, 4, lora_rank=2, rngs=nnx.Rngs(0))
        >>> method = share_jax.SharedA(rank=2, alpha=2)
        >>> adapted = share_jax.adapt(plain, jnp.ones((1, 6)), targets="kernel", method=method)
        >>> learner = share_jax.Learner(adapted, adapted.variables(plain), optax.sgd(0.1))
        >>> empty = learner.start(adapted.init(jax.random.key(0), learner.base["params"], 1))
        >>> bank = import_lora(trained, adapted, empty, "theirs").bank
        >>> again = export_lora(bank, adapted, "theirs", trained)
        >>> bool((again.lora.lora_a[...] == trained.lora.lora_a[...]).all())
        True
    """
    bank.index(name)
    tree, own = live_tree(model), bank_adapters(bank, adapted)[name]
    paths = {_bare(target.path): target for target in adapted.targets}
    pairs = _pairs(tree, tuple(paths), others=True)
    missing = next((path for path in paths if path not in pairs), None)
    if missing is not None:
        fix = "add LoRA to that layer of the model, too"
        raise TargetError(message(f"target {missing}", got="no pair in the model", expected="lora_a, lora_b", fix=fix))
    made: dict[str, np.ndarray] = {}
    for path, pair in pairs.items():
        a, b = (tree.leaves[each] for each in pair[:2])
        if path not in paths:
            made[pair.b] = np.zeros(b.shape, np.float32)
            continue
        scale = _alpha(alpha, pair) / a.shape[-1] if pair.scaled else 1.0
        made |= _leaves(paths[path], pair, (tuple(a.shape), tuple(b.shape)), own, scale)
    bare = {_bare(path): path for path in tree.leaves}
    for path, leaf in bank_heads(bank, adapted)[name].items():
        if _bare(path) not in bare:
            fix = "pass a model that has it"
            raise TargetError(message(f"head {path}", got="none in the model", expected="one", fix=fix))
        made[bare[_bare(path)]] = leaf
    return tree.with_leaves(made)


def _bare(path: str) -> str:
    return "/".join(key for key in path.split("/") if key != AROUND)


def _pairs(tree: LiveTree, paths: Sequence[str], *, others: bool = False) -> dict[str, _Pair]:
    """The pairs by the path of the target that each changes.

    Args:
        tree: the live model's leaves.
        paths: of the targets.
        others: whether pairs of no target are taken, too, by their own path.

    Raises:
        InputError: there are none.
        TargetError: one is of no target, or has one factor alone.
    """
    found: dict[tuple[str, bool], dict[str, str]] = {}
    for path in tree.leaves:
        named = _named(path)
        if named is not None:
            found.setdefault(named[:2], {})[named[2]] = path
    if not found:
        expected = "leaves such as kernel_lora_a, or lora/lora_a"
        raise InputError(message(tree.what, got="no LoRA pairs", expected=expected, fix="pass the model that has them"))
    out: dict[str, _Pair] = {}
    for (place, of_kernel), sides in found.items():
        if sides.keys() != {"a", "b"}:
            got, fix = ", ".join(sides.values()), "pass the whole model"
            raise TargetError(message(f"pair of {place}", got=got, expected="lora_a and lora_b", fix=fix))
        own = [path for path in paths if (path if of_kernel else path.rpartition("/")[0]) == place]
        if len(own) > 1:
            got, fix = f"{len(own)} targets of that layer", "adapt one of them"
            raise TargetError(message(f"pair of {place}", got=got, expected="one", fix=fix))
        if not own and not others:
            got, fix = "no target", "adapt that kernel, too"
            raise TargetError(message(f"pair of {place}", got=got, expected=f"one of {len(paths)}", fix=fix))
        out[own[0] if own else f"{place}/"] = _Pair(sides["a"], sides["b"], of_kernel)
    return out


def _named(path: str) -> tuple[str, bool, str] | None:
    """(path, whether it is a kernel's and not a layer's, "a" or "b") of a factor; None for other leaves."""
    *place, last = _bare(path).split("/")
    side = last[-1:]
    if side not in ("a", "b"):
        return None
    if last.endswith(f"_lora_{side}"):
        return "/".join([*place, last.removesuffix(f"_lora_{side}")]), True, side
    inner = bool(place) and place[-1] == "lora"
    if last != f"lora_{side}" and not (inner and last == side):
        return None
    return "/".join(place[:-1] if inner else place), False, side


def _alpha(alpha: float | None, pair: _Pair) -> float:
    if alpha is None:
        expected, fix = "the alpha of the rule that made it", "pass alpha="
        raise InputError(message(f"pair {pair.a}", got="a scale of alpha / rank", expected=expected, fix=fix))
    if not is_scale(alpha) or abs(alpha) < LEAST_ALPHA:
        expected, fix = f"a finite number, {LEAST_ALPHA:g} or more in size", "pass the rule's alpha"
        raise InputError(message("alpha", got=alpha, expected=expected, fix=fix))
    return float(alpha)


def _layers(target: Target, pair: _Pair, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether each factor has the axis of the target's layers in front.

    Raises:
        TargetError: they are no factors of that kernel.
    """
    layers, rank = target.stacked or 1, a[-1] if a else 0
    of_a, of_b = rank * target.d_in, rank * target.d_out
    sizes = int(np.prod(a)), int(np.prod(b))
    fits = rank and sizes[0] in (of_a, layers * of_a) and sizes[1] in (of_b, layers * of_b)
    if not fits or target.layer_axes not in ((), (0,)):
        expected = f"(..., {target.d_in}, r) and (..., r, {target.d_out})"
        stacked = f" in each of {layers} layers along axes {target.layer_axes}" if target.stacked else ""
        fix = "take the LoRA model that was made of the adapted one"
        raise TargetError(message(f"pair {pair.a}", got=f"{a} and {b}", expected=expected + stacked, fix=fix))
    stacked = target.stacked is not None
    return stacked and sizes[0] == layers * of_a, stacked and sizes[1] == layers * of_b


def _factors(target: Target, pair: _Pair, a: np.ndarray, b: np.ndarray, scale: float) -> Adapter:
    """The factors of every kernel of a target by its name."""
    each_a, each_b = _layers(target, pair, a.shape, b.shape)
    rank, names = a.shape[-1], target_names(target)
    down = a.reshape(-1, target.d_in, rank)
    up = b.reshape(-1, rank, target.d_out)
    return {name: Factors(down[i if each_a else 0], up[i if each_b else 0], scale) for i, name in enumerate(names)}


def _leaves(
    target: Target, pair: _Pair, shapes: tuple[tuple[int, ...], tuple[int, ...]], own: Adapter, scale: float
) -> dict[str, np.ndarray]:
    """A target's two leaves of the model, the inverse of `_factors`."""
    each = _layers(target, pair, *shapes)
    rank = shapes[0][-1]
    downs, ups = [], []
    for name in target_names(target):
        factors = own[name]
        short = rank - factors.rank
        if short < 0:
            expected, fix = f"at least the task's {factors.rank}", "pass a model of that rank"
            raise TargetError(message(f"rank of pair {pair.a}", got=rank, expected=expected, fix=fix))
        ratio = np.float32(float(factors.scale) / scale)
        downs.append(np.pad(np.asarray(factors.lora_a, np.float32), ((0, 0), (0, short))))
        ups.append(np.pad(np.asarray(factors.lora_b, np.float32) * ratio, ((0, short), (0, 0))))
    made: dict[str, np.ndarray] = {}
    for path, values, several, shape in zip(pair[:2], (downs, ups), each, shapes, strict=True):
        if not several and any(not np.array_equal(value, values[0]) for value in values[1:]):
            got, fix = "another factor in every layer", "pass a model whose layers have factors of their own"
            raise TargetError(message(f"pair {path}", got=got, expected="one that all layers share", fix=fix))
        made[path] = (np.stack(values) if several else values[0]).reshape(shape)
    return made

"""Where every array of a train step lies on a mesh: base, `shared`, `tasks`, optimizer state and batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey

from share_jax.adapted import AdaptedModel, as_adapted
from share_jax.layers.stored_kernel import is_quantized
from share_jax.parameterizations.base import LeafSpec
from share_jax.parameterizations.built_in import leaf_specs
from share_jax.sharding.microbatches import batch_size, check_divides
from share_jax.sharding.rules import Rules, Where, complete, parts
from share_jax.trees import flat, nested, path_of
from share_jax.typing import Tree

P = PartitionSpec


@dataclass(frozen=True)
class Kernel:
    """How one kernel of the base model is split.

    Attributes:
        shape: its shape.
        spec: where each of its axes goes.
        rows: where the input side goes; None if it is replicated.
        columns: where the output side goes; None if it is replicated.
    """

    shape: tuple[int, ...]
    spec: tuple[Where, ...]
    rows: Where
    columns: Where


@dataclass(frozen=True)
class Layout:
    """A mesh, the rules, and what follows from them for one model. Made by `layout_of`; holds no arrays.

    Attributes:
        mesh: of all devices.
        rules: where each logical axis goes.
        kernels: how the base model's kernels are split, by path.
        layered: paths of those that belong to a plain Flax layer, which gathers them when it is called.
        model: whose layers gather those, and whose method's leaves stand beside the kernels; without it those of the
            library's methods are known by their names.

    Example:
        >>> import numpy as np
        >>> from share_jax.sharding import MeshShape, make_mesh
        >>> params = {"ffn": {"kernel": np.ones((8, 16)), "bias": np.ones(16)}}
        >>> layout = layout_of(make_mesh(MeshShape(data=jax.device_count())), params)
        >>> tuple(layout.base({"params": params})["params"]["ffn"]["kernel"].spec)
        ('fsdp', 'tensor')
        >>> tuple(layout.slot({"ffn": {"lora_b": np.ones((4, 16))}})["ffn"]["lora_b"].spec)
        (None, 'tensor')
    """

    mesh: Mesh
    rules: Rules
    kernels: Mapping[str, Kernel]
    layered: frozenset[str] = frozenset()
    model: AdaptedModel | None = None

    @property
    def batch_parts(self) -> int:
        """Equal parts into which the examples of a batch fall."""
        return parts(self.mesh, self.rules["batch"])

    def named(self, *spec: Where) -> NamedSharding:
        """A sharding on this mesh."""
        return NamedSharding(self.mesh, P(*spec))

    def base(self, variables: Tree) -> dict[str, Any]:
        """Shardings of {"params": ..., ...}; other collections are replicated."""
        own = {name: jax.tree.map(lambda _: self.named(), tree) for name, tree in variables.items() if name != "params"}
        leaves = flat(variables["params"])
        specs = {path: self.kernels[path].spec if path in self.kernels else () for path in leaves}
        of_leaf = {
            path: jax.tree.map(lambda _, spec=spec: self.named(*spec), leaves[path]) for path, spec in specs.items()
        }
        return {**own, "params": nested(of_leaf)}

    def shared(self, tree: Tree) -> dict[str, Any]:
        """Shardings of the `shared` tree: each leaf as the kernel that it stands beside."""
        known = self._known("shared")
        return nested({path: self.named(*self._leaf(path, leaf.shape, known)) for path, leaf in flat(tree).items()})

    def slot(self, tree: Tree) -> dict[str, Any]:
        """Shardings of one task's leaves."""
        known = self._known("task")
        return nested({path: self.named(*self._leaf(path, leaf.shape, known)) for path, leaf in flat(tree).items()})

    def tasks(self, tree: Tree) -> dict[str, Any]:
        """Shardings of the stack of slots, leaves (T, ...).

        Raises:
            InputError: if the rule for `task` does not divide the number of slots.
        """
        where = self.rules["task"]
        for leaf in jax.tree.leaves(tree)[:1]:
            fix = "start with a capacity that divides, or leave the rule for task at None"
            check_divides("task slots", leaf.shape[0], parts(self.mesh, where), fix)
        known = self._known("task")
        specs = {path: self._leaf(path, leaf.shape[1:], known) for path, leaf in flat(tree).items()}
        return nested({path: self.named(where, *spec) for path, spec in specs.items()})

    def batch(self, batch: Any) -> Any:
        """Shardings of a batch: examples are split, scalars are replicated.

        Raises:
            InputError: if the batch does not divide.
        """
        fix = "change the batch size or the mesh; the last batch of an epoch is padded with weight 0"
        check_divides("examples in a batch", batch_size(batch), self.batch_parts, fix)
        split, whole = self.named(self.rules["batch"]), self.named()
        return jax.tree.map(lambda leaf: split if getattr(leaf, "ndim", 0) else whole, batch)

    def state(self, state: Any) -> Any:
        """Shardings of a `StepState`: moments lie as the leaves that they belong to."""
        trained = {"shared": self.shared(state.shared), "slot": self.slot(state.slot)}
        by_path = flat(trained)
        shapes = flat({"shared": state.shared, "slot": state.slot})

        def of(path: tuple, leaf: Any) -> NamedSharding:
            keys = [str(entry.key) for entry in path if isinstance(entry, DictKey)]
            for start, key in enumerate(keys):
                name = path_of(keys[start:])
                if key in trained and name in by_path and shapes[name].shape == leaf.shape:
                    return by_path[name]
            return self.named()

        opt_state = jax.tree_util.tree_map_with_path(of, state.opt_state)
        return type(state)(trained["shared"], trained["slot"], opt_state, self.named(), self.named())

    def pin_batch(self, batch: Any) -> Any:
        """Within jit: fixes where the examples lie, whatever the batch came as."""
        return jax.lax.with_sharding_constraint(batch, self.batch(batch))

    def pin_state(self, state: Any) -> Any:
        """Within jit: the next state lies where this one did."""
        return jax.lax.with_sharding_constraint(state, self.state(state))

    def pin_replicated(self, tree: Any) -> Any:
        """Within jit: every device gets all of it."""
        return jax.lax.with_sharding_constraint(tree, jax.tree.map(lambda _: self.named(), tree))

    def table(self) -> str:
        """How each kernel is split, a line each: path, shape, the mesh axis of every dimension."""
        width = max((len(path) for path in self.kernels), default=0)
        return "\n".join(
            f"{path:<{width}}  {' x '.join(map(str, k.shape))}  {', '.join(map(_shown, k.spec))}"
            for path, k in self.kernels.items()
        )

    def _known(self, owner: str) -> dict[str, LeafSpec]:
        return leaf_specs(owner, None if self.model is None else self.model.method)

    def _leaf(self, path: str, shape: tuple[int, ...], known: Mapping[str, LeafSpec]) -> tuple[Where, ...]:
        """The spec of a leaf without task axis; axes in front, of a scan or of heads side by side, are replicated."""
        if path in self.kernels and shape[len(shape) - len(self.kernels[path].shape) :] == self.kernels[path].shape:
            return (None,) * (len(shape) - len(self.kernels[path].shape)) + self.kernels[path].spec
        owner, _, name = path.rpartition("/")
        unknown = ("d_in", "d_out") if len(shape) == 2 else (None,) * len(shape)
        logical = known[name].axes if name in known else unknown
        beside = (owner, *(f"{owner}/{kernel}".strip("/") for kernel in ("kernel", "embedding")))
        kernel = next((self.kernels[path] for path in beside if path in self.kernels), None)
        ahead = len(shape) - len(logical)

        def where(axis: int) -> Where:
            side = logical[axis]
            if side is None:
                return None
            if kernel is None or name not in known:
                rule = self.rules[side]
            else:
                rule = kernel.rows if side == "d_in" else kernel.columns
            return rule if shape[ahead + axis] % parts(self.mesh, rule) == 0 else None

        return (None,) * ahead + tuple(where(axis) for axis in range(len(logical)))


def _shown(where: Where) -> str:
    return "replicated" if where is None else where if isinstance(where, str) else " and ".join(where)


def layout_of(mesh: Mesh, params: Tree, model: Any = None, rules: Rules | None = None) -> Layout:
    """Where a model's arrays go.

    Args:
        mesh: from `make_mesh`.
        params: the base model's parameters, arrays or `jax.ShapeDtypeStruct`; only shapes are used.
        model: the `AdaptedModel`, which knows the input axes of each kernel. Without it the last axis of a kernel is
            its output, as it is for all of Flax's layers but DenseGeneral with several features.
        rules: where logical axes go, in place of the defaults in `share_jax.sharding.rules`.

    Raises:
        InputError: if the rules do not fit the mesh.

    Example:
        >>> import numpy as np
        >>> from share_jax.sharding import MeshShape, make_mesh
        >>> params = {"ffn": {"kernel": np.ones((8, 16)), "bias": np.ones(16)}}
        >>> layout = layout_of(make_mesh(MeshShape(data=jax.device_count())), params)
        >>> print(layout.table())
        ffn/kernel  8 x 16  fsdp, tensor
    """
    whole = complete(rules, mesh)
    seam = None if model is None else as_adapted(model)
    known = {} if seam is None else seam.kernels
    kernels = {}
    for path, leaf in flat(params).items():
        if leaf.ndim < 2 or is_quantized(leaf):  # codes and scales of a quantised kernel are replicated
            continue
        inner, in_axes = known.get(path, (leaf.ndim, leaf.ndim - 1))
        kernels[path] = _kernel(mesh, whole, tuple(leaf.shape), leaf.ndim - inner, in_axes)
    return Layout(mesh, whole, kernels, frozenset(path for path in kernels if path in known), seam)


def _kernel(mesh: Mesh, rules: Rules, shape: tuple[int, ...], ahead: int, in_axes: int) -> Kernel:
    spec: list[Where] = [None] * len(shape)
    found: dict[str, Where] = {"d_in": None, "d_out": None}
    sides = (("d_in", range(ahead, ahead + in_axes)), ("d_out", range(ahead + in_axes, len(shape))))
    for side, axes in sides:
        divides = [axis for axis in axes if shape[axis] % parts(mesh, rules[side]) == 0]
        if divides and rules[side] is not None:
            spec[divides[0]] = found[side] = rules[side]
    return Kernel(shape, tuple(spec), found["d_in"], found["d_out"])

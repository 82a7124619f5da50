"""Weights that are split over the devices of a batch are stored in parts and used whole: gathered where a layer runs.

The compiler could do without being told, by splitting sums over the parts of a kernel's rows. But where `data`, `fsdp`
and `tensor` are all above one, XLA's partitioner then leaves out a reduction. The gradients are wrong by half their
size, without a word; https://github.com/openxla/xla/issues/40034 is of that kind, and tests/sharding/test_parallel.py
holds such a mesh. Gathered weights never meet that path; what is sent is what ZeRO-3 sends.
"""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax

from share_jax.adapted import Forward
from share_jax.bank.slots import TaskSlots, as_slots
from share_jax.sharding.layout import Layout
from share_jax.sharding.rules import Where, axes_of
from share_jax.trees import flat, nested
from share_jax.typing import PRNGKey, Tree


def used_spec(layout: Layout, spec: tuple[Where, ...]) -> tuple[Where, ...]:
    """Where the axes of a leaf lie while it is used: as stored, but for the mesh axes that split the batch."""
    batch = axes_of(layout.rules["batch"])
    return tuple(tuple(axis for axis in axes_of(where) if axis not in batch) or None for where in spec)


def gathering(forward: Forward, layout: Layout) -> Forward:
    """The forward pass with every weight gathered over the batch's mesh axes.

    Kernels of plain layers are gathered inside their layer's call, one at a time: in a scan's body layer by layer, and
    under remat once more in the backward pass. All others, and the small leaves of the adapter, at the start.

    Args:
        forward: of the layout's model, whatever is around it.
        layout: the mesh and rules.
    """

    def pin(leaf: Any, spec: tuple[Where, ...]) -> Any:
        return jax.lax.with_sharding_constraint(leaf, layout.named(*used_spec(layout, spec)))

    def small(tree: Tree, where: Tree) -> Any:
        specs = flat(where)
        return nested({path: pin(leaf, tuple(specs[path].spec)) for path, leaf in flat(tree).items()})

    def slot_of(slot: Any) -> TaskSlots:
        slots = as_slots(slot).at_hand()
        return replace(slots, leaves=small(slots.leaves, layout.slot(slots.leaves)))

    def whole(path: str, leaf: Any) -> Any:
        kernel = layout.kernels.get(path)
        return leaf if kernel is None else pin(leaf, kernel.spec[len(kernel.spec) - leaf.ndim :])

    def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
        leaves = flat(base["params"])
        kernels = {path: k for path, k in layout.kernels.items() if path in leaves and path not in layout.layered}
        early = {path: pin(leaves[path], kernel.spec) for path, kernel in kernels.items()}
        base = {**base, "params": nested({**leaves, **early})}
        with nullcontext() if layout.model is None else layout.model.gathering(whole):
            return forward(base, small(shared, layout.shared(shared)), slot_of(slot), inputs, key)

    return run

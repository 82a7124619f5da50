"""Weights that are split over the devices of a batch are stored in parts and used whole: gathered where a layer runs.

The compiler could do without being told, by splitting sums over the parts of a kernel's rows. On a mesh where `data`,
`fsdp` and `tensor` are all above one, XLA's partitioner then leaves out a reduction and the gradients are wrong, by
half their size and without a word (https://github.com/openxla/xla/issues/40034 is of that kind, and
tests/sharding/test_parallel.py holds such a mesh). Gathered weights never meet that path; what is sent is what ZeRO-3
sends.
"""

from typing import Any

import flax.linen as nn
import jax

from share_jax.layers.kernel_matrix import layer_type
from share_jax.sharding.layout import Layout
from share_jax.sharding.rules import Where, axes_of
from share_jax.train.update import Forward
from share_jax.trees import flat, nested
from share_jax.typing import PRNGKey, Tree


def used_spec(layout: Layout, spec: tuple[Where, ...]) -> tuple[Where, ...]:
    """Where the axes of a leaf lie while it is used: as stored, but for the mesh axes that split the batch."""
    batch = axes_of(layout.rules["batch"])
    return tuple(tuple(axis for axis in axes_of(where) if axis not in batch) or None for where in spec)


def gathering(forward: Forward, layout: Layout) -> Forward:
    """The forward pass with every weight gathered over the batch's mesh axes.

    Kernels of plain Flax layers are gathered inside their layer's call, one at a time: in a scan's body layer by layer,
    and under remat once more in the backward pass. All others, and the small leaves of the adapter, at the start.

    Args:
      forward: from `forward_of`.
      layout: the mesh and rules.
    """

    def pin(leaf: Any, spec: tuple[Where, ...]) -> Any:
        return jax.lax.with_sharding_constraint(leaf, layout.named(*used_spec(layout, spec)))

    def small(tree: Tree) -> Any:
        where = flat(layout.slot(tree))
        return nested({path: pin(leaf, tuple(where[path].spec)) for path, leaf in flat(tree).items()})

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module: Any = context.module
        path = "/".join(module.path)
        if path in inside or path not in layers or context.method_name not in ("__call__", "attend"):
            return next_fun(*args, **kwargs)
        if layer_type(module) is None:
            return next_fun(*args, **kwargs)
        names = {name: f"{path}/{name}".strip("/") for name in module.variables["params"]}

        def whole(variables: Any) -> Any:
            own = dict(variables["params"])
            for name, leaf in own.items():
                kernel = layout.kernels.get(names.get(name, ""))
                if kernel is not None:
                    own[name] = pin(leaf, kernel.spec[len(kernel.spec) - leaf.ndim :])
            return {"params": own}

        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(module, context.method_name)(*args, **kwargs)

        inside.append(path)
        try:
            return nn.map_variables(call, "params", trans_in_fn=whole)(module, *args, **kwargs)
        finally:
            inside.pop()

    def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        leaves = flat(base["params"])
        kernels = {path: k for path, k in layout.kernels.items() if path in leaves and path not in layout.layered}
        early = {path: pin(leaves[path], kernel.spec) for path, kernel in kernels.items()}
        base = {**base, "params": nested({**leaves, **early})}
        with nn.intercept_methods(intercept):
            return forward(base, small(shared), small(slot), inputs, key)

    layers = {path.rpartition("/")[0] for path in layout.layered}
    inside: list[str] = []
    return run

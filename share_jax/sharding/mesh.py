"""A mesh of devices for `jit`: `jax.make_mesh` with the three axes that `share_jax.sharding.rules` speaks of."""

from dataclasses import astuple

import jax
from jax.sharding import AxisType, Mesh

from share_jax.errors import InputError, message
from share_jax.sharding.mesh_shape import AXES, MeshShape


def make_mesh(shape: MeshShape) -> Mesh:
    """A mesh over all devices of all processes, its axes of the Auto type: the compiler places what no rule does.

    The fastest axes, `tensor` and then `fsdp`, lie on neighbouring devices, which talk the most.

    Args:
        shape: devices along each axis.

    Raises:
        InputError: if the shape does not fit the devices that there are.

    Example:
        >>> mesh = make_mesh(MeshShape(data=jax.device_count()))
        >>> mesh.axis_names, mesh.size == jax.device_count()
        (('data', 'fsdp', 'tensor'), True)
    """
    have = jax.device_count()
    if shape.devices != have:
        fix = f"choose axes whose product is {have}, as data={have}"
        if jax.default_backend() == "cpu":
            fix += f", or set XLA_FLAGS=--xla_force_host_platform_device_count={shape.devices}"
        got = f"{shape} for {shape.devices} devices"
        raise InputError(message("mesh", got=got, expected=f"one for {have}, all that there are", fix=fix))
    # JAX's default axis type is Explicit, under which a gather by task ids would have to name its output's sharding.
    return jax.make_mesh(astuple(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))

"""Which software and which device a run was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "share_jax")


def versions() -> dict[str, str | None]:
    """Versions by package, None where a package is not installed, and the kind of the first device.

    Starts JAX's backend when no computation has done so yet.
    """
    import jax

    found: dict[str, str | None] = {"python": platform.python_version()}
    found.update((package, _version(package)) for package in PACKAGES)
    device = jax.devices()[0]
    found["platform"] = device.platform
    found["device_kind"] = device.device_kind
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

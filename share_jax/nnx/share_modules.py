"""The same layers with form 2: two frozen orthonormal bases per kernel, and coefficients per task.

    ShareLinear(768, 3072, num_tasks=10, method=Share(32, 4), rngs=rngs)
    ShareLinearGeneral(768, (12, 64), num_tasks=10, rngs=rngs)
    ShareEinsum("btd,ndh->btnh", (12, 768, 64), num_tasks=10, rngs=rngs)
    ShareConv(3, 64, (7, 7), num_tasks=10, rngs=rngs)
    ShareEmbed(32000, 768, num_tasks=10, rngs=rngs)

The `method` is `Share()` by default.
"""

from share_jax.nnx.modules import (
    SharedLoRAConv,
    SharedLoRAEinsum,
    SharedLoRAEmbed,
    SharedLoRALinear,
    SharedLoRALinearGeneral,
)
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.share import Share


class ShareLinear(SharedLoRALinear):
    """`nnx.Linear` plus x @ basis_a @ (coeff_a[task_id] @ coeff_b[task_id].T) @ basis_b.T.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = ShareLinear(4, 3, num_tasks=3, method=Share(num_basis=2, pseudo_rank=1), rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((2, 4)), jnp.array([2, 0])).shape
        (2, 3)
    """

    default: Parameterization = Share()


class ShareLinearGeneral(SharedLoRALinearGeneral):
    """`nnx.LinearGeneral` plus the same on its flattened kernel.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> method = Share(num_basis=2, pseudo_rank=1)
        >>> layer = ShareLinearGeneral(4, (2, 3), num_tasks=3, method=method, rngs=nnx.Rngs(0))
        >>> jax.eval_shape(layer, jnp.ones((2, 4)), jnp.array([2, 0])).shape
        (2, 2, 3)
    """

    default: Parameterization = Share()


class ShareEinsum(SharedLoRAEinsum):
    """`nnx.Einsum` plus the same from the contracted axes to those that are kept.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> method = Share(num_basis=2, pseudo_rank=1)
        >>> layer = ShareEinsum("bd,ndh->bnh", (2, 4, 3), num_tasks=3, method=method, rngs=nnx.Rngs(0))
        >>> jax.eval_shape(layer, jnp.ones((2, 4)), jnp.array([2, 0])).shape
        (2, 2, 3)
    """

    default: Parameterization = Share()


class ShareConv(SharedLoRAConv):
    """`nnx.Conv` plus a convolution by basis_a, the task's core, and a product with basis_b.T.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> method = Share(num_basis=2, pseudo_rank=1)
        >>> layer = ShareConv(3, 4, kernel_size=(3, 3), num_tasks=3, method=method, rngs=nnx.Rngs(0))
        >>> jax.eval_shape(layer, jnp.ones((2, 5, 5, 3)), jnp.array([2, 0])).shape
        (2, 5, 5, 4)
    """

    default: Parameterization = Share()


class ShareEmbed(SharedLoRAEmbed):
    """`nnx.Embed` plus basis_a[ids], the task's core, and basis_b.T; `attend` takes the transpose.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = ShareEmbed(10, 4, num_tasks=3, method=Share(num_basis=2, pseudo_rank=1), rngs=nnx.Rngs(0))
        >>> jax.eval_shape(layer, jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([2, 0])).shape
        (2, 3, 4)
    """

    default: Parameterization = Share()

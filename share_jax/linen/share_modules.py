"""The same layers with form 2: two frozen orthonormal bases per kernel, and coefficients per task.

A batch of different tasks costs two shared products, x @ basis_a and @ basis_b.T, and one small core per example.
"""

from share_jax.linen.modules import (
    SharedLoRAConv,
    SharedLoRADense,
    SharedLoRADenseGeneral,
    SharedLoRAEmbed,
)
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.share import Share


class ShareDense(SharedLoRADense):
    """`nn.Dense` plus x @ basis_a @ (coeff_a[task_id] @ coeff_b[task_id].T) @ basis_b.T.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer, x = ShareDense(3, num_tasks=3, method=Share(num_basis=2, pseudo_rank=1)), jnp.ones((2, 4))
        >>> variables = layer.init(jax.random.key(0), x, task_id=0)
        >>> layer.apply(variables, x, jnp.array([2, 0])).shape
        (2, 3)
        >>> jax.tree.map(jnp.shape, variables["tasks"])
        {'coeff_a': (3, 2, 1), 'coeff_b': (3, 2, 1)}
    """

    method: Parameterization = Share()


class ShareDenseGeneral(SharedLoRADenseGeneral):
    """`nn.DenseGeneral` plus the same on its flattened kernel.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer = ShareDenseGeneral((2, 3), num_tasks=3, method=Share(num_basis=2, pseudo_rank=1))
        >>> x = jnp.ones((2, 4))
        >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x, jnp.array([2, 0]))
        >>> y.shape, variables["tasks"]["coeff_a"].shape
        ((2, 2, 3), (3, 2, 1))
    """

    method: Parameterization = Share()


class ShareConv(SharedLoRAConv):
    """`nn.Conv` plus a convolution by basis_a, the task's core, and a product with basis_b.T.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer = ShareConv(4, kernel_size=(3, 3), num_tasks=3, method=Share(num_basis=2, pseudo_rank=1))
        >>> x = jnp.ones((2, 5, 5, 3))
        >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x, jnp.array([2, 0]))
        >>> y.shape, variables["tasks"]["coeff_a"].shape
        ((2, 5, 5, 4), (3, 2, 1))
    """

    method: Parameterization = Share()


class ShareEmbed(SharedLoRAEmbed):
    """`nn.Embed` plus basis_a[ids], the task's core, and basis_b.T; `attend` takes the transpose.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer = ShareEmbed(10, 4, num_tasks=3, method=Share(num_basis=2, pseudo_rank=1))
        >>> tokens = jnp.array([[1, 2, 3], [4, 5, 6]])
        >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), tokens, jnp.array([2, 0]))
        >>> y.shape, variables["tasks"]["coeff_a"].shape
        ((2, 3, 4), (3, 2, 1))
    """

    method: Parameterization = Share()

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
    """`nn.Dense` plus x @ basis_a @ (coeff_a[task_id] @ coeff_b[task_id].T) @ basis_b.T."""

    method: Parameterization = Share()


class ShareDenseGeneral(SharedLoRADenseGeneral):
    """`nn.DenseGeneral` plus the same on its flattened kernel."""

    method: Parameterization = Share()


class ShareConv(SharedLoRAConv):
    """`nn.Conv` plus a convolution by basis_a, the task's core, and a product with basis_b.T."""

    method: Parameterization = Share()


class ShareEmbed(SharedLoRAEmbed):
    """`nn.Embed` plus basis_a[ids], the task's core, and basis_b.T; `attend` takes the transpose."""

    method: Parameterization = Share()

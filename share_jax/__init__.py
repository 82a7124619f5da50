"""Continual learning of many tasks in one shared low-rank subspace of a frozen JAX/Flax model.

Names are loaded when they are first used, so that `import share_jax` costs nothing. So are modules:
`share_jax.storage.lock.hold` needs no import of its own.
"""

import importlib
from typing import TYPE_CHECKING, Any

from share_jax.runtime.lazy_import import submodules

if TYPE_CHECKING:
    from share_jax.bank.router import Router as Router
    from share_jax.bank.router import add_task as add_task
    from share_jax.bank.router import empty_router as empty_router
    from share_jax.bank.router import remove_task as remove_task
    from share_jax.bank.router import route as route
    from share_jax.bank.router import routing_rule as routing_rule
    from share_jax.bank.router import task_scores as task_scores
    from share_jax.checkpoint.saved_bank import load_bank as load_bank
    from share_jax.checkpoint.saved_bank import save_bank as save_bank
    from share_jax.linen.adapted_model import Adapted as Adapted
    from share_jax.linen.adapted_model import adapt as adapt
    from share_jax.linen.head import TaskHead as TaskHead
    from share_jax.linen.modules import SharedLoRAConv as SharedLoRAConv
    from share_jax.linen.modules import SharedLoRADense as SharedLoRADense
    from share_jax.linen.modules import SharedLoRADenseGeneral as SharedLoRADenseGeneral
    from share_jax.linen.modules import SharedLoRAEmbed as SharedLoRAEmbed
    from share_jax.linen.share_modules import ShareConv as ShareConv
    from share_jax.linen.share_modules import ShareDense as ShareDense
    from share_jax.linen.share_modules import ShareDenseGeneral as ShareDenseGeneral
    from share_jax.linen.share_modules import ShareEmbed as ShareEmbed
    from share_jax.parameterizations.separate import SeparateLoRA as SeparateLoRA
    from share_jax.parameterizations.share import Share as Share
    from share_jax.parameterizations.shared_a import SharedA as SharedA
    from share_jax.train.learner import Learner as Learner
    from share_jax.train.losses import LossSums as LossSums
    from share_jax.train.prefix_cache import PrefixCache as PrefixCache

__version__ = "0.1.0"

_HOME = {
    "SharedA": "share_jax.parameterizations.shared_a",
    "SeparateLoRA": "share_jax.parameterizations.separate",
    "Share": "share_jax.parameterizations.share",
    "Adapted": "share_jax.linen.adapted_model",
    "adapt": "share_jax.linen.adapted_model",
    "TaskHead": "share_jax.linen.head",
    "SharedLoRADense": "share_jax.linen.modules",
    "SharedLoRADenseGeneral": "share_jax.linen.modules",
    "SharedLoRAConv": "share_jax.linen.modules",
    "SharedLoRAEmbed": "share_jax.linen.modules",
    "ShareDense": "share_jax.linen.share_modules",
    "ShareDenseGeneral": "share_jax.linen.share_modules",
    "ShareConv": "share_jax.linen.share_modules",
    "ShareEmbed": "share_jax.linen.share_modules",
    "Learner": "share_jax.train.learner",
    "LossSums": "share_jax.train.losses",
    "save_bank": "share_jax.checkpoint.saved_bank",
    "load_bank": "share_jax.checkpoint.saved_bank",
    "Router": "share_jax.bank.router",
    "empty_router": "share_jax.bank.router",
    "add_task": "share_jax.bank.router",
    "remove_task": "share_jax.bank.router",
    "routing_rule": "share_jax.bank.router",
    "task_scores": "share_jax.bank.router",
    "route": "share_jax.bank.router",
    "PrefixCache": "share_jax.train.prefix_cache",
}

__all__ = [  # noqa: RUF022  (in the order of use)
    "Adapted",
    "adapt",
    "SharedA",
    "SeparateLoRA",
    "Share",
    "SharedLoRADense",
    "SharedLoRADenseGeneral",
    "SharedLoRAConv",
    "SharedLoRAEmbed",
    "ShareDense",
    "ShareDenseGeneral",
    "ShareConv",
    "ShareEmbed",
    "TaskHead",
    "Learner",
    "LossSums",
    "save_bank",
    "load_bank",
    "Router",
    "empty_router",
    "add_task",
    "remove_task",
    "routing_rule",
    "task_scores",
    "route",
    "PrefixCache",
    "__version__",
]


_module = submodules(__name__)


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module(_HOME[name]), name) if name in _HOME else _module(name)


def __dir__() -> list[str]:
    return __all__

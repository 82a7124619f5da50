"""An adapted NNX module as a module again, with a task chosen: for samplers and servers that take a module."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from share_jax.adapted import SHARED, TASKS
from share_jax.bank.bank import TaskBank
from share_jax.nnx.variables import SharedVariable, TaskVariable
from share_jax.traced.adapted_function import OWN_RNGS, STATE, AdaptedFunction
from share_jax.trees import flat, nested, text_of


@dataclass(frozen=True, eq=False)
class _Held:
    """What a module's graph holds beside its variables, the same one by identity."""

    adapted: AdaptedFunction


class ChosenTask(nnx.Module):
    """A module whose output is that of a bank's task, or for each example of a batch of its own task.

    All other attributes, such as a model's `config` or `init_cache`, are those of the module itself.

    Attributes:
        model: the module, which is not copied.
        shared: what all tasks share.
        tasks: the stack of slots.
        task_id: the chosen id, or one per example; a variable, so that another choice compiles nothing.

    Example:
        >>> import jax.numpy as jnp, optax, share_jax
        >>> model, x = nnx.Linear(6, 4, rngs=nnx.Rngs(0)), jnp.ones((2, 6))
        >>> adapted = share_jax.adapt(model, x, targets="kernel")
        >>> learner = share_jax.Learner(adapted, adapted.variables(model), optax.sgd(0.1))
        >>> bank = learner.start(adapted.init(jax.random.key(0), learner.base["params"], 1))
        >>> bank = learner.learn(bank, "first", [{"inputs": x, "labels": np.array([0, 1])}])
        >>> ChosenTask(adapted, model, bank, "first")(x).shape
        (2, 4)
    """

    def __init__(
        self,
        adapted: AdaptedFunction,
        model: nnx.Module,
        bank: TaskBank,
        task: str | int | Sequence[str | int] | np.ndarray | jax.Array,
    ) -> None:
        """Chooses a task.

        Args:
            adapted: from `share_jax.adapt` of this module.
            model: the module, with its weights.
            bank: the learnt tasks.
            task: name or id of a learnt one, or one for each example of the batches to come.

        Raises:
            TaskError: if there is no such task.
            InputError: if the module is another than the adapted one.
        """
        adapted.variables(model)
        self._held = _Held(adapted)
        self.model = model
        self.shared = nnx.data({path: SharedVariable(leaf) for path, leaf in flat(bank.shared).items()})
        self.tasks = nnx.data({path: TaskVariable(leaf) for path, leaf in flat(bank.tasks).items()})
        self.task_id = TaskVariable(bank.ids(task))

    def __getattr__(self, name: str) -> Any:
        """Attributes of the module itself."""
        model = vars(self).get("model")
        if model is None or name.startswith("_"):
            raise AttributeError(name)
        return getattr(model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output with the chosen task's update; what it writes into caches is kept."""
        adapted = self._held.adapted
        trees: dict[str, Any] = {
            SHARED: nested({path: leaf[...] for path, leaf in self.shared.items()}),
            TASKS: nested({path: leaf[...] for path, leaf in self.tasks.items()}),
        }
        variables = {**adapted.variables(self.model), **trees}
        if "rngs" in kwargs:
            kwargs[OWN_RNGS] = kwargs.pop("rngs")
        caches = set(adapted.model.caches)
        if not caches:
            return adapted.apply(variables, *args, task_id=self.task_id[...], **kwargs)
        out, after = adapted.apply(variables, *args, task_id=self.task_id[...], mutable=True, **kwargs)
        written = {path: leaf for path, leaf in flat(after[STATE]).items() if path in caches}
        for path, variable in nnx.to_flat_state(nnx.state(self.model, nnx.Cache)):
            if (text := text_of(path)) in written:
                variable.set_value(written[text])
        return out

"""How a target's update is parameterised: `SharedA`, `SeparateLoRA`, `Share`.

`base` is the protocol that modules, adapting, checkpoints and accounting are written against: which leaves are shared,
which belong to a task, and the factor pair that they give. `built_in` finds the library's own by their names and
by what a checkpoint keeps of them, `from_factors` takes over pairs learnt elsewhere. A new LoRA variant is a new
file that follows `base`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

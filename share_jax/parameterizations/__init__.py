"""How a target's update is parameterised: `SharedA`, `SeparateLoRA`, `Share`.

`base` is the protocol that modules, adapting, checkpoints and accounting are written against: which leaves are shared,
which belong to a task, and the factor pair that they give. `from_factors` takes pairs learnt elsewhere over, `stored`
makes a method of what a checkpoint keeps of it. A new LoRA variant is a new file that follows it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

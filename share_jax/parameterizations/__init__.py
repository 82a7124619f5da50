"""How a target's update is parameterised: `SharedA`, `SeparateLoRA`, `Share`, `ShareAdapt`.

`base` is the protocol that modules, adapting, checkpoints and accounting are written against: which leaves are shared,
which belong to a task, and the factor pair that they give. `shared_a`, `separate` and `share` are the library's own.
`built_in` finds those by their names and by what a checkpoint keeps of them, `method_names` names those that a user
chooses among, `from_factors` takes over pairs learnt elsewhere; `lora_pair` is what several methods share.
A new LoRA variant is a new file that follows `base`. To be found by name it is listed in `built_in.BUILT_IN`; to be
public, in `__init__.pyi`; to take over adapters, it follows `FromFactors`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

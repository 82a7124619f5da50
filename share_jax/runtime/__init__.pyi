from .malloc import keep_freed as keep_freed
from .preemption import Preempted as Preempted
from .preemption import Preemption as Preemption

from .adapted_function import AdaptedFunction as AdaptedFunction
from .agreement import KernelUse as KernelUse
from .agreement import kernel_use as kernel_use
from .discover import program_of as program_of
from .pytree_model import adapt_function as adapt_function

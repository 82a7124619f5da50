from .kernels import KernelUse as KernelUse
from .kernels import kernel_use as kernel_use
from .reading import program_of as program_of
from .updating import Updates as Updates
from .updating import run_updated as run_updated

from .mixed_batch import mixed_kernel as mixed_kernel

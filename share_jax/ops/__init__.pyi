from .mixed_batch import mixed_kernel as mixed_kernel
from .remat_policy import Remat as Remat

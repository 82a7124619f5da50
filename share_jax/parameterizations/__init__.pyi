from .base import LeafSpec as LeafSpec
from .base import Parameterization as Parameterization
from .separate import SeparateLoRA as SeparateLoRA
from .share import Share as Share
from .share import ShareAdapt as ShareAdapt
from .shared_a import SharedA as SharedA

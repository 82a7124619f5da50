from .adapted_function import AdaptedFunction as AdaptedFunction
from .pytree_model import adapt_function as adapt_function

from .projected import Projected as Projected
from .targets import Target as Target
from .targets import match as match

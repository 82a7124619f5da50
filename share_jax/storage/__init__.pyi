from .cache_dir import cache_root as cache_root
from .lock import hold as hold

from .cache_dir import cache_root as cache_root
from .cache_dir import keep_compiled as keep_compiled
from .lock import hold as hold

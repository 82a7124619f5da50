"""Files: atomic writes, locks, caches, safetensors, and paths that are not trusted.

`atomic_write` writes so that a kill leaves the old file or the new one; `lock` lets one process at a time into a
folder; `cache_dir` is the user's cache; `safetensors_file` reads tensors strictly and lazily, and `torch_file`
those of `torch.save`, whose pickle `pickle_steps` goes through without executing it; `untrusted` opens files of a
folder that somebody else made, and `unfetched` tells what lies in the place of a file that was not fetched;
`manifest_file` is the checksummed JSON that says what a folder holds, and `steady` reads a folder that a save meets.
What every folder on disk needs, whatever it holds, goes here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

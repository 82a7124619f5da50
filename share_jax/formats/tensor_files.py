"""Files of named tensors, whichever tool wrote them: safetensors, `torch.save` without its code, GGUF."""

import os

from share_jax.formats.gguf_tensors import GgufTensors
from share_jax.storage.safetensors_file import TensorFile
from share_jax.storage.torch_file import TorchFile

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of the names of files of `torch.save`."""
GGUF = ".gguf"
"""Ending of the names of GGUF files, which need the package `gguf`."""
TENSOR_FILES = (".safetensors", *PICKLED)
"""Endings of the names of files that can be opened here."""


def open_tensors(folder: str | os.PathLike, name: str) -> TensorFile | TorchFile | GgufTensors:
    """Opens a file of named tensors, by the ending of its name; a context manager.

    Args:
        folder: where it lies; nothing outside is read.
        name: of the file.

    Raises:
        FormatError: it is missing or damaged, or holds anything but tensors.
    """
    if name.endswith(GGUF):
        return GgufTensors(folder, name)
    return TorchFile(folder, name) if name.endswith(PICKLED) else TensorFile(folder, name)

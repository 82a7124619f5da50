"""Files as `torch.save` writes them, made without PyTorch: a zip archive with a pickle and the bytes of the tensors."""

import struct
import zipfile

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    return b"J" + struct.pack("<i", value)


def sizes(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(place, array):
    """The steps that describe one tensor, whose bytes lie in `data/place`."""
    storage = b"(" + text("storage") + f"ctorch\n{STORAGES[array.dtype.name]}\n".encode() + text(str(place))
    storage += text("cpu") + number(array.size) + b"tQ"
    steps = [n // array.itemsize for n in array.strides]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage[1:] + number(0) + sizes(array.shape) + sizes(steps)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def pickle_of(tensors):
    body = b"".join(text(name) + tensor(i, array) for i, (name, array) in enumerate(tensors.items()))
    return b"\x80\x02}(" + body + b"u."


def write_torch(path, tensors, pickled=None, compression=zipfile.ZIP_STORED):
    """Writes the tensors; `pickled` stands in for the pickle that describes them."""
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle_of(arrays) if pickled is None else pickled)
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
    return path

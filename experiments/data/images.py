"""Images of records as a vision transformer takes them: decoded, cut to a square and normalised when they are read."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from share_jax.errors import FormatError, InputError, message

MEAN, DEVIATION = 0.5, 0.5
"""Of every channel in [0, 1], as of Google's checkpoints: images are in [-1, 1]."""


def _upright(image: Any) -> Any:
    """The image as its camera held it, with 8 bits a channel: Pillow clips 16 bits to white."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, np.float32).clip(0, 65_535) / 257).round().astype(np.uint8))
    return image


def image_reader(size: int, feature: str = "image") -> Callable[[Any], np.ndarray]:
    """A function from a record to its image, float32 (size, size, 3) in [-1, 1].

    The shorter side is resized to `size` (bilinear, averaging where the image shrinks) and the middle is kept. Nothing
    is drawn at random, so an example is the same in every epoch.

    Args:
        size: pixels a side.
        feature: of the record that holds the image: encoded bytes, or an array (height, width, 1 or 3) of uint8.

    Raises:
        InputError: Pillow is not installed. The function: FormatError, if there is no image in the record.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise InputError(message("images", got=error, expected="Pillow", fix="pip install pillow")) from error

    def read(record: Any) -> np.ndarray:
        stored = record[feature]
        try:
            if isinstance(stored, bytes):
                image = Image.open(io.BytesIO(stored))
            else:
                array = np.asarray(stored)
                image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
            image = _upright(image).convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError, TypeError, KeyError, IndexError) as error:
            fix = "prepare the data set again"
            raise FormatError(message(f"feature {feature!r}", got=error, expected="an image", fix=fix)) from error
        scale = size / min(image.size)
        wide, high = (max(size, round(side * scale)) for side in image.size)
        left, top = (wide - size) // 2, (high - size) // 2
        image = image.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
        return (np.asarray(image, np.float32) / 255 - MEAN) / DEVIATION

    return read

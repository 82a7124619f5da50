"""A matrix as a picture: an SVG that needs nothing else, its cells one small PNG inside."""

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from share_jax.storage.atomic_write import replace_text

_LOW, _MID, _HIGH = (33, 102, 172), (247, 247, 247), (178, 24, 43)
"""Blue at -1, near white at 0, red at 1: readable without telling red from green."""


def write_heatmap(path: Path, names: Sequence[str], matrix: np.ndarray, title: str) -> None:
    """Writes the (T, T) matrix of values between -1 and 1, in one step, to an absolute path."""
    replace_text(heatmap(names, matrix, title), path)


def heatmap(names: Sequence[str], matrix: np.ndarray, title: str) -> str:
    """The SVG text; names and values are written out while there is room for them."""
    count = len(names)
    cell = max(2, min(40, 800 // max(count, 1)))
    named = cell >= 12
    left = 16 + (7 * max((min(len(name), 40) for name in names), default=0) if named else 0)
    side = cell * count
    width, height = max(left + side + 90, 260), side + 50 + (left if named else 0)
    # one pixel per point: not every viewer leaves enlarged pixels sharp
    pixels = colours(np.asarray(matrix)).repeat(cell, axis=0).repeat(cell, axis=1)
    image = base64.b64encode(png(pixels)).decode()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">{escape(title)}, {count} tasks</text>',
        f'<image x="{left}" y="32" width="{side}" height="{side}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{image}"/>',
    ]
    for i, name in enumerate(names if named else ()):
        label = escape(name if len(name) <= 40 else name[:39] + "…")
        middle = 32 + i * cell + cell / 2 + 4
        parts.append(f'<text x="{left - 6}" y="{middle}" text-anchor="end">{label}</text>')
        x, y = left + i * cell + cell / 2 + 4, 32 + side + 8
        parts.append(f'<text transform="translate({x} {y}) rotate(-90)" text-anchor="end">{label}</text>')
    if cell >= 32:
        for (i, j), value in np.ndenumerate(matrix):
            dark = "white" if abs(value) > 0.6 else "black"
            x, y = left + j * cell + cell / 2, 32 + i * cell + cell / 2 + 4
            parts.append(f'<text x="{x}" y="{y}" text-anchor="middle" font-size="11" fill="{dark}">{value:.2f}</text>')
    scale = base64.b64encode(png(colours(np.linspace(1, -1, 101)[:, None]))).decode()
    tall = max(side, 60)
    parts.append(
        f'<image x="{left + side + 16}" y="32" width="14" height="{tall}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{scale}"/>'
    )
    for value, y in ((1, 42), (0, 32 + tall / 2 + 4), (-1, 32 + tall)):
        parts.append(f'<text x="{left + side + 36}" y="{y}">{value}</text>')
    return "\n".join([*parts, "</svg>", ""])


def colours(matrix: np.ndarray) -> np.ndarray:
    """(rows, columns, 3) bytes."""
    x = np.clip(matrix, -1, 1)[..., None]
    low, mid, high = (np.array(c, np.float64) for c in (_LOW, _MID, _HIGH))
    return np.rint(np.where(x < 0, mid + (mid - low) * x, mid + (high - mid) * x)).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """An 8-bit RGB PNG of (rows, columns, 3) bytes."""
    rows, columns, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )

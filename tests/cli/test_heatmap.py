"""The heat map is well-formed, self-contained and shows the matrix."""

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from share_jax.cli.heatmap import colours, heatmap, png

XML = "{http://www.w3.org/2000/svg}"


def test_png_is_read_back_as_it_was():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_colours_run_from_blue_over_white_to_red():
    low, middle, high = (tuple(int(c) for c in x) for x in colours(np.array([-1.0, 0.0, 1.0])))
    assert low[2] > low[0]
    assert min(middle) > 240
    assert high[0] > high[2]


@pytest.mark.parametrize(("count", "texts"), [(3, True), (200, False)])
def test_svg_holds_the_matrix_and_names_while_there_is_room(count, texts):
    matrix = np.random.default_rng(1).uniform(-1, 1, (count, count))
    names = [f"<task> & {i}" for i in range(count)]
    root = ET.fromstring(heatmap(names, matrix, "cosine"))
    images = root.findall(f"{XML}image")
    assert all(image.get("href").startswith("data:image/png;base64,") for image in images)
    data = base64.b64decode(images[0].get("href").split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    cell = len(pixels) // count
    np.testing.assert_array_equal(pixels[cell // 2 :: cell, cell // 2 :: cell], colours(matrix))
    found = [text.text for text in root.iter(f"{XML}text")]
    assert (names[1] in found) is texts
    assert (f"{matrix[0, 1]:.2f}" in found) is texts

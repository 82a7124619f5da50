"""The heat map is well-formed, self-contained and shows the matrix."""

import base64
import io
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from share_jax.cli.heatmap import heatmap

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
LOW, MIDDLE, HIGH = (np.array(c) for c in ((33, 102, 172), (247, 247, 247), (178, 24, 43)))


def colours(matrix):
    """(rows, columns, 3): from blue over white to red."""
    x = matrix[..., None]
    return np.where(x < 0, MIDDLE + (MIDDLE - LOW) * x, MIDDLE + (HIGH - MIDDLE) * x)


def pixels(image):
    """(rows, columns, 3) of an image that an SVG holds, as it is seen."""
    kind, data = image.get(LINK).split(",")
    assert kind == "data:image/png;base64"
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(float)
    return whole[::-1] if "scale(1 -1)" in image.get("transform") else whole


@pytest.mark.parametrize(("count", "texts"), [(3, True), (200, False)])
def test_svg_holds_the_matrix_and_names_while_there_is_room(count, texts):
    matrix = np.random.default_rng(1).uniform(-1, 1, (count, count))
    names = [f"<task> & ${i}$" for i in range(count)]
    whole = heatmap(names, matrix, "cosine")
    assert whole == heatmap(names, matrix, "cosine")
    root = ET.fromstring(whole)
    shown = pixels(next(root.iter(f"{SVG}image")))
    cell = len(shown) // count
    assert shown.shape == (cell * count, cell * count, 3)
    # a byte holds the whole part of a colour, and 4,096 colours stand for all
    np.testing.assert_allclose(shown[cell // 2 :: cell, cell // 2 :: cell], colours(matrix), atol=1.25)
    found = [text.text for text in root.iter(f"{SVG}text")]
    assert f"cosine, {count} tasks" in found
    assert (names[1] in found) is texts
    assert (f"{matrix[0, 1]:.2f}" in found) is texts


def test_without_matplotlib_it_is_one_line_before_anything_is_read(run, made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, said = run("similarity", made[0], "--heatmap", tmp_path / "map.svg", json_out=False)
    assert (code, len(said)) == (2, 1)
    assert "pip install 'share_jax[plots]'" in said[0]
    assert not (tmp_path / "map.svg").exists()
    assert run("similarity", made[0])[0] == 0

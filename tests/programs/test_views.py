"""A view of a kernel names the kernel's axes through every transpose and reshape, in NumPy's own order."""

import numpy as np
import pytest

from share_jax.programs.views import in_order, whole, whole_axes


def elements(view, shape):
    """For every entry of a view the place in the kernel that it shows, from the view's parts alone."""
    places = np.zeros((), int)
    for axis in view.axes:
        for part in axis:
            behind = int(np.prod(shape[part.axis + 1 :]))
            places = places[..., None] + np.arange(part.size) * part.stride * behind
    return places.reshape(view.shape)


@pytest.mark.parametrize(
    "steps",
    [
        [(6, 4, 5)],
        [(2, 3, 4, 5), "t"],
        ["t", (5, 2, 2, 6), "t", (12, 10)],
        [(6, 20), "t", (4, 5, 6), "t"],
        [(120,), (6, 4, 5), "t"],
        [(1, 6, 4, 1, 5), "t"],
    ],
    ids=str,
)
def test_a_view_shows_what_numpy_shows(steps):
    shape = (6, 4, 5)
    view, array = whole(0, shape), np.arange(120).reshape(shape)
    for step in steps:
        order = tuple(reversed(range(array.ndim)))
        array = array.transpose(order) if step == "t" else array.reshape(step)
        view = view.transposed(order) if step == "t" else view.reshaped(step)
    np.testing.assert_array_equal(elements(view, shape), array)
    sizes, order = in_order(view.axes)
    np.testing.assert_array_equal(array.reshape(sizes).transpose(order).reshape(-1), np.arange(120))
    assert whole_axes(view.axes, shape) == (0, 1, 2)


def test_parts_of_an_axis_are_no_whole_axis_and_uneven_parts_are_none():
    view = whole(0, (6, 4)).reshaped((2, 3, 4))
    assert whole_axes(view.axes[:2], (6, 4)) == (0,)
    assert whole_axes(view.axes[:1], (6, 4)) is None
    assert whole(0, (6, 4)).reshaped((4, 6)) is None


def test_a_scan_slices_a_whole_axis_alone():
    first = whole(0, (2, 3, 4)).transposed((1, 0, 2)).sliced()
    assert (first.shape, first.slices, first.sliced().slices) == ((2, 4), (1,), (1, 0))
    assert whole(0, (6, 4)).reshaped((2, 3, 4)).sliced() is None
    assert whole(0, (2, 3, 4)).reshaped((6, 4)).sliced() is None

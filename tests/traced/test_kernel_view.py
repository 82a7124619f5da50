"""A view of a kernel names the kernel's axes through every transpose and reshape, in NumPy's own order."""

import numpy as np
import pytest

from share_jax.traced.kernel_view import to_side, view_of


def numbered(*shape):
    """A kernel whose elements say where they stand."""
    return view_of("w", np.arange(np.prod(shape)).reshape(shape), {}, {})


def turned(view, *order):
    return view.transposed(view.value.transpose(order), order)


def elements(view):
    """For every entry of a view the place in the kernel that it shows, from the view's pieces alone."""
    places = np.zeros((), int)
    for piece in view.pieces(range(len(view.axes))):
        behind = int(np.prod(view.shape[piece.axis + 1 :]))
        places = places[..., None] + np.arange(piece.size) * piece.stride * behind
    return places.reshape(view.value.shape)


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
    view = numbered(6, 4, 5)
    for step in steps:
        order = tuple(reversed(range(view.value.ndim)))
        view = turned(view, *order) if step == "t" else view.reshaped(view.value.reshape(step))
    np.testing.assert_array_equal(elements(view), view.value)
    axes = range(len(view.axes))
    whole = to_side(view.value, len(view.axes), view.pieces(axes), (0, 1, 2))
    np.testing.assert_array_equal(whole, np.arange(120))
    assert view.whole(axes) == (0, 1, 2)


def test_parts_of_an_axis_are_no_whole_axis_and_uneven_parts_are_none():
    plain = numbered(6, 4)
    view = plain.reshaped(plain.value.reshape(2, 3, 4))
    assert view.whole((0, 1)) == (0,)
    assert view.whole((0,)) is None
    assert plain.reshaped(plain.value.reshape(4, 6)) is None


def test_a_loop_takes_a_whole_axis_alone():
    first = turned(numbered(2, 3, 4), 1, 0, 2).layer()
    assert (len(first.axes), first.slices, first.layer().slices) == (2, (1,), (1, 0))
    assert first.layers().axes == turned(numbered(2, 3, 4), 1, 0, 2).axes
    parts, joined = numbered(6, 4), numbered(2, 3, 4)
    assert parts.reshaped(parts.value.reshape(2, 3, 4)).layer() is None
    assert joined.reshaped(joined.value.reshape(6, 4)).layer() is None

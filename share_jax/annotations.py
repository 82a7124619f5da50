"""Array types that say dtype and shape, such as `Float[np.ndarray, "d_in r"]`, in jaxtyping's notation.

Where jaxtyping is loaded before the library, as its flag of pytest does, they are its own, and are checked. Elsewhere
they are `typing.Annotated` with the shape as text: loading jaxtyping would take each command a tenth of a second.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Int, Int8, Shaped
else:

    class _Kind:
        """Stands for jaxtyping's class of one kind of dtype."""

        def __getitem__(self, array_and_shape: tuple[Any, str]) -> Any:
            """The type of such an array, which nothing checks."""
            return Annotated[array_and_shape]

    Bool = Float = Int = Int8 = Shaped = _Kind()

__all__ = ["Bool", "Float", "Int", "Int8", "Shaped"]

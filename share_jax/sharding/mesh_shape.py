"""The shape of a device mesh, as plain numbers; imports no jax."""

from dataclasses import astuple, dataclass, fields

from share_jax.errors import InputError, message

AXES = ("data", "fsdp", "tensor")
"""The mesh axes, slowest first: examples; examples and rows of the weights; columns of the weights."""


@dataclass(frozen=True)
class MeshShape:
    """How many devices lie along each axis.

    Attributes:
        data: copies of the model, each with its share of the batch.
        fsdp: parts of the weights' rows, each with its share of the batch.
        tensor: parts of the weights' columns, all with the same examples.

    Raises:
        InputError: if a number is below 1.
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for axis, size in zip(AXES, astuple(self), strict=True):
            if not isinstance(size, int) or size < 1:
                raise InputError(
                    message(f"mesh axis {axis}", got=size, expected="at least 1", fix="pass data=8 or the like")
                )

    def __str__(self) -> str:
        return ",".join(f"{axis}={size}" for axis, size in zip(AXES, astuple(self), strict=True))

    @property
    def devices(self) -> int:
        """Devices that it needs.

        >>> MeshShape(data=2, tensor=4).devices
        8
        """
        return self.data * self.fsdp * self.tensor

    @property
    def batch_parts(self) -> int:
        """Equal parts into which a batch falls.

        >>> MeshShape(data=2, fsdp=2, tensor=2).batch_parts
        4
        """
        return self.data * self.fsdp


def parse_mesh(text: str) -> MeshShape:
    """The shape that a text such as "data=4,fsdp=2" spells; axes that are not named have one device.

    >>> parse_mesh("data=4,fsdp=2")
    MeshShape(data=4, fsdp=2, tensor=1)

    Raises:
        InputError: if it is of another form, or names an unknown axis or one twice.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, size = (word.strip() for word in part.partition("="))
        if not equals or name not in {f.name for f in fields(MeshShape)} or name in sizes or not size.isdecimal():
            fix = "write --mesh data=4,fsdp=2 or the like"
            raise InputError(message("mesh", got=repr(text), expected=f"AXIS=NUMBER of {', '.join(AXES)}", fix=fix))
        sizes[name] = int(size)
    return MeshShape(**sizes)

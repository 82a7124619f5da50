"""What a compiled step needs on each device, from the compiler's own account."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Memory:
    """Bytes on each device while a compiled function runs.

    Attributes:
        arguments: its inputs: weights, state, batch.
        outputs: its results, `aliased` of them in the place of donated inputs.
        aliased: bytes that are input and output in one.
        temporaries: activations, gradients and gathered weights, at their highest.
        code: the program.

    Example:
        >>> Memory(arguments=100, outputs=40, aliased=40, temporaries=25, code=5).total
        130
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """Everything at once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def memory_of(compiled: Any) -> Memory | None:
    """The account of a compiled function, `jax.jit(f).lower(...).compile()`; None where the backend keeps none.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((4, 4))).compile()
        >>> memory_of(compiled).arguments  # 16 numbers of float32
        64
    """
    found = compiled.memory_analysis()
    if found is None:
        return None
    return Memory(
        arguments=int(found.argument_size_in_bytes),
        outputs=int(found.output_size_in_bytes),
        aliased=int(found.alias_size_in_bytes),
        temporaries=int(found.temp_size_in_bytes),
        code=int(found.generated_code_size_in_bytes),
    )

"""Adapters packed and turned into columns, once or for several passes over the same ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from share_jax.adapters.factors import Adapter, nbytes
from share_jax.adapters.stacking import Packed, pack
from share_jax.subspace.factor_columns import Columns, columns_of

HELD_BYTES = 2**27
"""Factors that are held between two passes: at most so many bytes; packed and as columns they take that twice more, and
their Gram matrices a few percent of it, more where ranks are high."""

Block = tuple[list[str], list[Adapter]]
"""Names and adapters that go through a pass together."""

Prepare = Callable[[Sequence[Adapter], Sequence[str], int], tuple[Packed, Columns]]
"""(adapters, targets of one shape, least columns) to factors and balanced columns."""


Results = dict[tuple[str, ...], tuple[Packed, Columns]]
"""What preparing a block gave, by the targets of a group."""


def prepared(adapters: Sequence[Adapter], names: Sequence[str], columns: int) -> tuple[Packed, Columns]:
    """Packs and balances."""
    packed = pack(adapters, names, columns=columns)
    return packed, columns_of(packed, "columns")


class PreparedBlocks:
    """Blocks of adapters that are read, packed and balanced once, as long as all of them fit."""

    def __init__(self, limit: int = HELD_BYTES) -> None:
        """Holds nothing yet."""
        self._limit, self._bytes = limit, 0
        self._blocks: list[tuple[Block, Results]] | None = []

    def first(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks as they come, held until they are too many; then none is."""
        for block in blocks:
            if self._blocks is not None:
                self._bytes += sum(map(nbytes, block[1]))
                if self._bytes <= self._limit:
                    self._blocks.append((block, {}))
                else:
                    self._blocks = None
            yield block

    def again(self, read: Callable[[], Iterable[Block]]) -> Iterable[Block]:
        """The same blocks once more, read anew if they were too many."""
        return read() if self._blocks is None else [block for block, _ in self._blocks]

    def prepare(self, adapters: Sequence[Adapter], names: Sequence[str], columns: int) -> tuple[Packed, Columns]:
        """As `prepared`, kept for blocks that are held: `adapters` must be a block's own list."""
        results = next((own for block, own in self._blocks or () if block[1] is adapters), {})
        found = results.get(tuple(names))
        if found is None or found[0].a.shape[-1] < columns:
            found = results[tuple(names)] = prepared(adapters, names, columns)
        return found

"""Parameter counts and bytes: what is shared, what one task adds, and what separate LoRAs would hold."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax

from share_jax.errors import InputError, message
from share_jax.typing import Tree


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters, counted from the real trees.

    Attributes:
        base: the frozen pretrained model, without the heads that tasks own.
        shared: what all tasks share (A, or the bases).
        per_task: adapter parameters that one task adds.
        heads_per_task: head parameters that one task adds.
        tasks: how many tasks are counted, T.
        separate_per_task: what one ordinary LoRA on the same kernels holds.
        head_sets: sets of heads that are held; one per task unless a method shares one head.

    Example:
        >>> counts = ParameterCounts(
        ...     base=1000, shared=40, per_task=10, heads_per_task=6, tasks=5, separate_per_task=50, head_sets=5
        ... )
        >>> counts.total_tasks, counts.separate_lora_total, counts.ratio_to_separate
        (90, 250, 0.36)
    """

    base: int
    shared: int
    per_task: int
    heads_per_task: int
    tasks: int
    separate_per_task: int
    head_sets: int

    @property
    def total_tasks(self) -> int:
        """Adapter parameters for all tasks: shared + T * per_task."""
        return self.shared + self.tasks * self.per_task

    @property
    def separate_lora_total(self) -> int:
        """Adapter parameters of T separate LoRAs."""
        return self.tasks * self.separate_per_task

    @property
    def ratio_to_separate(self) -> float | None:
        """total_tasks over separate_lora_total, heads on neither side; None where there are no adapters."""
        return self.total_tasks / self.separate_lora_total if self.separate_lora_total else None

    @property
    def ratio_to_separate_with_heads(self) -> float | None:
        """The same with heads on both sides: the sets that this method holds, and one per task."""
        whole = self.separate_lora_total + self.tasks * self.heads_per_task
        own = self.total_tasks + self.head_sets * self.heads_per_task
        return own / whole if self.separate_lora_total else None

    @property
    def ratio_to_base(self) -> float | None:
        """Adapters and heads of all tasks over the base model; None where nothing is frozen."""
        return (self.total_tasks + self.head_sets * self.heads_per_task) / self.base if self.base else None

    def held_once(self, *, one_head: bool = False) -> "ParameterCounts":
        """The counts of a method that keeps one adapter, and maybe one head, for all tasks."""
        head_sets = 1 if one_head else self.head_sets
        return replace(self, shared=self.shared + self.per_task, per_task=0, head_sets=head_sets)

    def as_dict(self) -> dict[str, int | float | None]:
        """All counts and ratios under the names that `results.json` uses."""
        return {
            **asdict(self),
            "total_tasks": self.total_tasks,
            "separate_lora_total": self.separate_lora_total,
            "ratio_to_separate": self.ratio_to_separate,
            "ratio_to_separate_with_heads": self.ratio_to_separate_with_heads,
            "ratio_to_base": self.ratio_to_base,
        }


def count(tree: Tree | Iterable[jax.Array]) -> int:
    """Parameters in a tree of arrays or of shapes."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Tree | Iterable[jax.Array]) -> int:
    """Bytes of a tree's arrays in memory."""
    return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def separate_lora_count(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Parameters of one ordinary LoRA of this rank on kernels of these (d_in, d_out).

    >>> separate_lora_count([(1536, 384)], 4)
    7680
    """
    return sum(rank * (d_in + d_out) for d_in, d_out in shapes)


def bytes_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder.

    Raises:
        InputError: if there is nothing at the path.

    Example:
        >>> folder = Path("task")
        >>> folder.mkdir()
        >>> written = Path(folder, "slot.bin").write_bytes(bytes(64))
        >>> bytes_on_disk(folder)
        64
    """
    if not path.exists():
        raise InputError(message("path", got=path, expected="a file or folder", fix="check where it was written"))
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

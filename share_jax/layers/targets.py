"""Which kernels are adapted: regular expressions over kernel paths, every one of which must match."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from share_jax.errors import TargetError, message
from share_jax.layers.kernel_matrix import matrix_shape


@dataclass(frozen=True)
class Target:
    """One adapted kernel.

    Attributes:
        path: the kernel's path in `params`, as "encoder/layer_0/ffn/kernel".
        module_path: keys to the layer that owns it.
        layer: name of the layer's class, as "Dense".
        shape: the kernel's shape within one layer, without an axis that `nn.scan` or `nn.vmap` stacked.
        in_axes: how many of its axes are inputs.
        stacked: length of the leading axis that `nn.scan` or `nn.vmap` added; None if there is none.
        inputs: which of its axes are inputs, in the order in which they make d_in; the leading ones if None.
    """

    path: str
    module_path: tuple[str, ...]
    layer: str
    shape: tuple[int, ...]
    in_axes: int
    stacked: int | None
    inputs: tuple[int, ...] | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """The kernel's axes with its inputs in front: a transpose by it and a reshape make the matrix."""
        inputs = tuple(range(self.in_axes)) if self.inputs is None else self.inputs
        return inputs + tuple(axis for axis in range(len(self.shape)) if axis not in inputs)

    @property
    def d_in(self) -> int:
        return matrix_shape(tuple(self.shape[axis] for axis in self.order), self.in_axes)[0]

    @property
    def d_out(self) -> int:
        return matrix_shape(tuple(self.shape[axis] for axis in self.order), self.in_axes)[1]


def match(patterns: Sequence[str] | str, paths: Iterable[str], *, what: str) -> tuple[str, ...]:
    """The paths that some pattern matches whole, in the order of `paths`.

    Args:
        patterns: regular expressions; each has to match a whole path (`re.fullmatch`).
        paths: the candidates.
        what: what is being matched, for the message.

    Raises:
        TargetError: if a pattern is not a regular expression, or matches nothing; the message lists near matches.
    """
    listed = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    candidates = tuple(paths)
    chosen: set[str] = set()
    for pattern in listed:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise TargetError(
                message(
                    f"{what} pattern",
                    got=f"{pattern!r} ({error})",
                    expected="a regular expression",
                    fix="escape it",
                )
            ) from error
        hits = {path for path in candidates if compiled.fullmatch(path)}
        if not hits:
            raise TargetError(_nothing(pattern, candidates, what))
        chosen |= hits
    return tuple(path for path in candidates if path in chosen)


def _nothing(pattern: str, candidates: tuple[str, ...], what: str) -> str:
    plain = re.sub(r"[\\^$.*+?()\[\]{}|]+", "", pattern)
    partly = [path for path in candidates if re.search(pattern, path)]
    near = partly or difflib.get_close_matches(plain, candidates, n=3, cutoff=0.3) or list(candidates)
    shown = ", ".join(near[:3]) + (f" and {len(near) - 3} more" if len(near) > 3 else "")
    if partly:
        hint = f"write '.*{pattern}.*' to match {shown}"
    else:
        hint = f"near matches: {shown}" if near else "there are no candidates"
    return message(
        f"{what} pattern", got=f"{pattern!r}, which matches no path", expected="at least one match", fix=hint
    )


def table(targets: Sequence[Target]) -> str:
    """What matched, a line each: path, layer, d_in x d_out."""
    rows = [
        (t.path, t.layer, f"{t.d_in} x {t.d_out}" + (f", stacked {t.stacked}" if t.stacked else "")) for t in targets
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    return "\n".join(f"{path:<{widths[0]}}  {layer:<{widths[1]}}  {shape}" for path, layer, shape in rows)

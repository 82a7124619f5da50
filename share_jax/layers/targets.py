"""Which kernels are adapted: regular expressions over kernel paths, every one of which must match."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from share_jax.errors import TargetError, message
from share_jax.layers.kernel_matrix import matrix_shape
from share_jax.trees import keys_of, plain_text


@dataclass(frozen=True)
class Target:
    """One adapted kernel.

    Attributes:
        path: the kernel's path in `params`, as "encoder/layer_0/ffn/kernel".
        module_path: keys to the layer that owns it.
        layer: name of the layer's class, as "Dense".
        shape: the kernel's shape within one layer, without an axis that `nn.scan` or `nn.vmap` stacked.
        in_axes: how many of its axes are inputs.
        stacked: how many layers a scan or a vmap stacked in the array; None if it is one layer's kernel.
        inputs: which of its axes are inputs, in the order in which they make d_in; the leading ones if None.
        stacked_axes: of the whole array, the axes along which its layers are stacked, the outermost first.
        own_leaves: its leaves lie under the kernel's path, and not under its layer's, which has several targets.

    Example:
        >>> target = Target("attention/query/kernel", ("attention", "query"), "DenseGeneral", (8, 2, 4), 1, None)
        >>> target.d_in, target.d_out
        (8, 8)
    """

    path: str
    module_path: tuple[str, ...]
    layer: str
    shape: tuple[int, ...]
    in_axes: int
    stacked: int | None
    inputs: tuple[int, ...] | None = None
    stacked_axes: tuple[int, ...] = (0,)
    own_leaves: bool = False

    @property
    def layer_axes(self) -> tuple[int, ...]:
        """The axes of the whole array along which layers are stacked."""
        return () if self.stacked is None else self.stacked_axes

    @property
    def leaves_path(self) -> tuple[str, ...]:
        """Keys to its leaves in the trees `shared` and `tasks`."""
        return keys_of(self.path) if self.own_leaves else self.module_path

    @property
    def order(self) -> tuple[int, ...]:
        """The kernel's axes with its inputs in front: a transpose by it and a reshape make the matrix."""
        inputs = tuple(range(self.in_axes)) if self.inputs is None else self.inputs
        return inputs + tuple(axis for axis in range(len(self.shape)) if axis not in inputs)

    @property
    def d_in(self) -> int:
        """Rows of the kernel as a matrix."""
        return matrix_shape(tuple(self.shape[axis] for axis in self.order), self.in_axes)[0]

    @property
    def d_out(self) -> int:
        """Columns of the kernel as a matrix."""
        return matrix_shape(tuple(self.shape[axis] for axis in self.order), self.in_axes)[1]


def with_own_leaves(
    targets: Sequence[Target], heads: Iterable[str] = (), names: Iterable[str] = ()
) -> tuple[Target, ...]:
    """The targets, with leaves of their own where those of a module would be taken for another's.

    That is where a module has several targets, or a head with the name of an adapter's leaf.

    Args:
        targets: the adapted kernels.
        heads: paths of the parameters that each task owns whole.
        names: of the leaves that the parameterisation makes.

    Example:
        >>> one, other = (Target(f"ffn/{name}", ("ffn",), "FFN", (8, 8), 1, None) for name in ("up", "down"))
        >>> [target.leaves_path for target in with_own_leaves([one, other])], with_own_leaves([one])[0].leaves_path
        ([('ffn', 'up'), ('ffn', 'down')], ('ffn',))
    """
    owners, taken = Counter(target.module_path for target in targets), {keys_of(head) for head in heads}
    named = tuple(names)

    def own(target: Target) -> bool:
        return owners[target.module_path] > 1 or any((*target.module_path, name) in taken for name in named)

    return tuple(replace(target, own_leaves=own(target)) for target in targets)


def match(patterns: Sequence[str] | str, paths: Iterable[str], *, what: str) -> tuple[str, ...]:
    """The paths that some pattern matches whole, in the order of `paths`.

    Args:
        patterns: regular expressions; each has to match a whole path (`re.fullmatch`).
        paths: the candidates.
        what: what is being matched, for the message.

    Raises:
        TargetError: if a pattern is not a regular expression, or matches nothing; the message lists near matches.

    Example:
        >>> paths = ["layer_0/ffn/kernel", "layer_0/query/kernel", "layer_1/ffn/kernel"]
        >>> match(".*/ffn/kernel", paths, what="target")
        ('layer_0/ffn/kernel', 'layer_1/ffn/kernel')
        >>> match("ffn", paths, what="target")
        Traceback (most recent call last):
        share_jax.errors.TargetError: target pattern: got 'ffn', which matches no path, expected at least one match; ...
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
        hits = {path for path in candidates if compiled.fullmatch(path) or compiled.fullmatch(plain_text(path))}
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

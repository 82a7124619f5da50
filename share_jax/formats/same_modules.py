"""One module under two names: a model saved from within, or renamed, in adapters that are to share a subspace."""

from collections.abc import Sequence

from share_jax.formats.adapter_file import Source
from share_jax.storage.untrusted import shown

_HEADS = ("model", "module", "transformer", "base_model", "decoder")
"""Parts that a wrapping class puts before the layers, and that renamings of models move."""
LISTED = 2000
"""Sources that are compared."""


def two_names(sources: Sequence[Source], known: dict[str, tuple[int, int]] | None = None) -> str | None:
    """A warning where modules of one shape seem to be one module under two names, none of them in one source.

    Args:
        sources: the tasks.
        known: (d_in, d_out) of a set's layers.
    """
    groups = [("the set", dict(known))] if known else []
    groups += [(s.label, {n: (x.d_in, x.d_out) for n, x in s.layers.items()}) for s in sources[:LISTED]]
    firsts: dict[tuple[str, tuple[int, int]], tuple[str, str]] = {}
    modules: dict[str, str] = {}
    for label, shapes in groups:
        for name, shape in shapes.items():
            key = plain_name(name), shape
            first, by = firsts.setdefault(key, (name, label))
            if first != name and first not in shapes:
                modules.setdefault(name, f"{shown(first)} ({by}) and {shown(name)} ({label})")
    if not modules:
        return None
    return (
        f"{len(modules)} modules seem to be there under two names, and share nothing: {next(iter(modules.values()))}; "
        "save these adapters from one class of the model"
    )


def plain_name(name: str) -> str:
    """The name without the parts of wrapping classes before the first layer.

    >>> plain_name("model.language_model.layers.0.q"), plain_name("language_model.model.layers.0.q")
    ('language_model.layers.0.q', 'language_model.layers.0.q')
    """
    parts = name.split(".")
    end = next((i for i, part in enumerate(parts) if part.isdecimal()), len(parts) - 1)
    return ".".join([part for part in parts[:end] if part not in _HEADS] + parts[end:])

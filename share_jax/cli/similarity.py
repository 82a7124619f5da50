"""`share-jax similarity DIR...|OUT`: which tasks are alike."""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from share_jax.cli.options import Progress, command, emit, fraction

if TYPE_CHECKING:
    import numpy as np

_BLOCK_BYTES = 2**28


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = command(
        subparsers, "similarity", run, "Show which adapters, or which tasks of a set, are alike.",
        "share-jax similarity shared --heatmap similarity.svg",
    )  # fmt: skip
    parser.add_argument("folders", nargs="+", metavar="DIR", help="adapters, or one set")
    parser.add_argument("--measure", choices=("cosine", "overlap"), default="cosine",
                        help="of the updates (cosine) or of the subspaces (overlap)")  # fmt: skip
    parser.add_argument(
        "--threshold", type=fraction, default=0.5, metavar="X", help="least similarity in a cluster (0.5)"
    )
    parser.add_argument("--heatmap", metavar="FILE.svg", help="write the matrix as a picture")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from share_jax.adapter_set.manifest import NAME
    from share_jax.cli.output_folder import check_file_output
    from share_jax.storage.untrusted import check_folder, exists_inside

    begin = time.perf_counter()
    picture = None if args.heatmap is None else check_file_output(args.heatmap)
    progress = Progress(args)
    first = check_folder(args.folders[0], "folder")
    if len(args.folders) == 1 and exists_inside(first, NAME):
        names, matrix = _of_set(args, first)
    else:
        names, matrix = _of_folders(args, progress)

    from share_jax.adapters.similarity import clusters

    progress.close()
    groups = [[names[i] for i in group] for group in clusters(matrix, args.threshold)]
    if picture is not None:
        from share_jax.cli.heatmap import write_heatmap

        write_heatmap(picture, names, matrix, f"{args.measure} similarity")
    data = {
        "tasks": names,
        "measure": args.measure,
        "matrix": [[float(x) for x in row] for row in matrix],
        "threshold": args.threshold,
        "clusters": groups,
        "heatmap": args.heatmap,
        "seconds": time.perf_counter() - begin,
    }
    emit(args, data, lambda: _text(names, matrix, groups))
    return 0


def _measure(name: str) -> Callable:
    from share_jax.adapters import similarity

    return {"cosine": similarity.cosine, "overlap": similarity.overlap}[name]


def _of_set(args: argparse.Namespace, folder: Any) -> tuple[list[str], "np.ndarray"]:
    """In the coordinates of the bases, where a task is as small as its coefficients."""
    import numpy as np

    from share_jax.adapter_set.store import read_set

    state = read_set(folder).state

    from share_jax.adapters.factors import Factors
    from share_jax.subspace.state import factors_of

    adapters: list[dict] = [{} for _ in state.tasks]
    flat = {name for name, layer in state.layers.items() if layer.geometry == "flat"}
    for name, layer in state.layers.items():
        if name in flat:
            continue
        # basis = Q R with orthonormal Q: R @ coeff has the lengths and angles of basis @ coeff
        r_a, r_b = (np.linalg.qr(basis, mode="r") for basis in (layer.basis_a, layer.basis_b))
        for t, rank in enumerate(layer.ranks):
            if rank:
                a, b = r_a @ layer.coeff_a[t][:, :rank], r_b @ layer.coeff_b[t][:, :rank]
                adapters[t][name] = Factors(a, np.ascontiguousarray(b.T))
    if flat:
        for t, task in enumerate(state.tasks):
            adapters[t].update({n: f for n, f in factors_of(state, task).items() if n in flat})
    return list(state.tasks), np.asarray(_measure(args.measure)(adapters))


def _of_folders(args: argparse.Namespace, progress: Progress) -> tuple[list[str], "np.ndarray"]:
    """Two blocks of adapters at a time, so that memory does not grow with their number."""
    import numpy as np

    from share_jax.adapter_set.build import adapters_of
    from share_jax.cli.inputs import open_inputs
    from share_jax.formats.open import check_common_shapes

    sources = open_inputs(args.folders)
    check_common_shapes(sources, {})
    most = max(sum(4 * x.rank * (x.d_in + x.d_out) for x in s.layers.values()) for s in sources)
    size = max(1, _BLOCK_BYTES // (2 * most))
    blocks = [list(range(i, min(i + size, len(sources)))) for i in range(0, len(sources), size)]
    matrix = np.eye(len(sources))
    measure = _measure(args.measure)
    for i, rows in enumerate(blocks):
        mine = [adapter for _, adapter in adapters_of([sources[t] for t in rows], None)]
        for columns in blocks[i + 1 :] or ([] if len(blocks) > 1 else [[]]):
            other = [adapter for _, adapter in adapters_of([sources[t] for t in columns], None)]
            both = rows + columns
            matrix[np.ix_(both, both)] = np.asarray(measure(mine + other))
            progress("compared up to adapter", both[-1] + 1, len(sources))
    return [source.name for source in sources], matrix


def _text(names: Sequence[str], matrix: "np.ndarray", groups: list[list[str]], most: int = 12) -> str:
    from share_jax.cli.table import table

    shown = names[:most]
    rows = [("", *(str(i + 1) for i in range(len(shown))))]
    rows += [(f"{i + 1} {name}", *(f"{x:+.2f}" for x in matrix[i][:most])) for i, name in enumerate(shown)]
    lines = [table(rows)]
    if len(names) > most:
        lines.append(f"  ... {len(names)} tasks (all with --json or --heatmap)")
    lines += ["", f"{len(groups)} clusters"]
    lines += [f"  {', '.join(group[:10])}{' ...' if len(group) > 10 else ''}" for group in groups[:20]]
    return "\n".join(lines)

"""`share-jax similarity DIR...|OUT`: which tasks are alike."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.adapter_set.build import adapters_of
from share_jax.adapter_set.manifest import NAME
from share_jax.adapter_set.store import read_set
from share_jax.adapter_set.survey import Survey
from share_jax.adapters.factors import Adapter
from share_jax.adapters.shared_starts import Starts
from share_jax.adapters.similarity import MEASURES, clusters, in_blocks
from share_jax.cli.advice_text import advice_lines, split_commands, starts_data, starts_line
from share_jax.cli.heatmap import check_drawing, write_heatmap
from share_jax.cli.inputs import is_bank, open_inputs
from share_jax.cli.options import Progress, add_task_names, emit, fraction
from share_jax.cli.output_folder import check_file_output
from share_jax.cli.table import table
from share_jax.errors import InputError, message
from share_jax.formats.open import check_common_shapes
from share_jax.storage.untrusted import exists_inside
from share_jax.subspace.coordinates import coordinates_of

_BLOCK_BYTES = 2**28

EXAMPLE = "share-jax similarity shared --heatmap similarity.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("folders", nargs="+", metavar="DIR", help="adapters or banks, or one set")
    add_task_names(parser)
    parser.add_argument("--measure", choices=tuple(MEASURES), default="cosine",
                        help="of the updates (cosine) or of the subspaces (overlap)")  # fmt: skip
    parser.add_argument(
        "--threshold", type=fraction, default=0.5, metavar="X", help="least similarity in a cluster (0.5)"
    )
    parser.add_argument("--heatmap", metavar="FILE.svg", help="write the matrix as a picture")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    picture = None if args.heatmap is None else check_file_output(args.heatmap)
    if picture is not None:
        check_drawing()
    progress = Progress(args)
    first = Path(args.folders[0])
    starts = None
    if len(args.folders) == 1 and exists_inside(first, NAME) and not is_bank(first):
        if args.name:
            fix = "leave it out: a set's tasks have their names"
            raise InputError(message("--name", got=", ".join(args.name), expected="none for a set", fix=fix))
        names, matrix = _of_set(first, args.measure)
    else:
        names, matrix, starts = _of_folders(args.folders, args.name, args.measure, progress)
    progress.close()
    groups = [[names[i] for i in group] for group in clusters(matrix, args.threshold)]
    if picture is not None:
        write_heatmap(picture, names, matrix, f"{args.measure} similarity")
    data = {
        "tasks": names,
        "measure": args.measure,
        "matrix": [[float(x) for x in row] for row in matrix],
        "threshold": args.threshold,
        "clusters": groups,
        "starts": None if starts is None else starts_data(starts, names),
        "commands": []
        if starts is None or not starts.divided
        else split_commands(starts, args.folders, names, "OUT", [], args.name),
        "heatmap": args.heatmap,
        "seconds": time.perf_counter() - begin,
    }
    emit(args, data, lambda: _text(names, matrix, groups, data))
    return 0


def _of_set(folder: Path, measure: str) -> tuple[list[str], np.ndarray]:
    state = read_set(folder).state
    return list(state.tasks), MEASURES[measure](coordinates_of(state))


def _of_folders(
    folders: Sequence[str], names: Sequence[str] | None, measure: str, progress: Progress
) -> tuple[list[str], np.ndarray, Starts]:
    sources = open_inputs(folders, tasks=names)
    check_common_shapes(sources, {})
    survey = Survey([source.name for source in sources])
    most = max(sum(4 * x.rank * (x.d_in + x.d_out) for x in s.layers.values()) for s in sources)

    def read(places: Sequence[int]) -> list[Adapter]:
        return [adapter for _, adapter in adapters_of([sources[t] for t in places], None, survey=survey)]

    def done(count: int) -> None:
        progress("compared up to adapter", count, len(sources))

    size = max(1, _BLOCK_BYTES // (2 * most))
    matrix = in_blocks(measure, read, len(sources), size, done)
    return [source.name for source in sources], matrix, survey.starts()


def _text(
    names: Sequence[str], matrix: np.ndarray, groups: list[list[str]], data: Mapping[str, Any], most: int = 12
) -> str:
    shown = names[:most]
    rows = [("", *(str(i + 1) for i in range(len(shown))))]
    rows += [(f"{i + 1} {name}", *(f"{x:+.2f}" for x in matrix[i][:most])) for i, name in enumerate(shown)]
    lines = [table(rows)]
    if len(names) > most:
        lines.append(f"  ... {len(names)} tasks (all with --json or --heatmap)")
    lines += ["", f"{len(groups)} clusters"]
    lines += [f"  {', '.join(group[:10])}{' ...' if len(group) > 10 else ''}" for group in groups[:20]]
    if data["starts"] is not None:
        lines += ["", starts_line(data["starts"])]
    if data["commands"]:
        lines += advice_lines({"action": "split", "reason": "a set for each group.", "commands": data["commands"]})
    return "\n".join(lines)

"""`share-jax plan DIR...`: error against bytes for many sizes, and what to do, before anything is written."""

import argparse
import time
from dataclasses import asdict
from typing import Any

from share_jax.adapter_set.advice import AIM, Advice, advise, frontier
from share_jax.adapter_set.plan import MEASURED_BYTES, Plan, measure_plan
from share_jax.adapter_set.plan_rows import PlanRow
from share_jax.cli.advice_text import (
    advice_lines,
    compress_command,
    further_words,
    name_words,
    size_words,
    split_commands,
    starts_data,
    starts_line,
)
from share_jax.cli.error_plot import write_plot
from share_jax.cli.heatmap import check_drawing
from share_jax.cli.inputs import open_inputs
from share_jax.cli.options import Progress, add_task_names, emit, error_limit, whole
from share_jax.cli.output_folder import check_file_output
from share_jax.cli.report import counted, megabytes
from share_jax.cli.table import table
from share_jax.formats.base_model import common_base, with_base
from share_jax.formats.open import check_common_shapes
from share_jax.subspace.baselines import NUMBER_BYTES

EXAMPLE = "share-jax plan adapters/* --plot plan.png"
_MOST = 30
_ALONE = Advice("leave", "One adapter has nothing to share: leave it as it is.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("folders", nargs="+", metavar="DIR", help="adapters of any known format, or banks")
    add_task_names(parser)
    parser.add_argument("--k", type=whole, nargs="+", action="extend", metavar="N", help="sizes to try")
    parser.add_argument("--geometry", choices=("columns", "flat"), help="try this geometry alone (default: both)")
    parser.add_argument("--storage", choices=tuple(NUMBER_BYTES), help="try this storage alone (default: all)")
    parser.add_argument("--max-error", type=error_limit, default=AIM, metavar="E",
                        help=f"mean relative error that the advice aims for ({AIM:g})")  # fmt: skip
    parser.add_argument("--all-layers", action="store_true",
                        help=f"measure every layer, even past {megabytes(MEASURED_BYTES)} of factors")  # fmt: skip
    parser.add_argument("--all-rows", action="store_true", help="also print rows with more error and more bytes")
    parser.add_argument("--plot", metavar="FILE.png", help="draw error against bytes")
    parser.add_argument("--base-model", metavar="NAME", help="the base model of all inputs, whatever they name")
    parser.add_argument("--names", metavar="FILE", help="JSON: PyTorch's name of every module by its path in a bank")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    picture = None if args.plot is None else check_file_output(args.plot)
    if picture is not None:
        check_drawing("--plot")
    sources = with_base(open_inputs(args.folders, names=args.names, tasks=args.name), args.base_model)
    common_base(sources)
    check_common_shapes(sources, {})
    progress = Progress(args)
    plan = measure_plan(
        sources,
        ks=args.k,
        geometries=("columns", "flat") if args.geometry is None else (args.geometry,),
        storages=tuple(NUMBER_BYTES) if args.storage is None else (args.storage,),
        limit=None if args.all_layers else MEASURED_BYTES,
        progress=progress,
    )
    progress.close()
    names = [source.name for source in sources]
    advice = advise(plan.rows, plan.bytes_in, args.max_error) if len(names) > 1 else _ALONE
    if picture is not None:
        write_plot(picture, plan.rows, plan.bytes_in, len(names), args.max_error, _advised(advice))
    data = {
        "tasks": names,
        "bytes_in": plan.bytes_in,
        "layers": plan.layers,
        "layers_measured": plan.measured,
        "rows": [
            {**asdict(row), "choice": dict([row.choice]), "ratio": plan.bytes_in / row.bytes} for row in plan.rows
        ],
        "starts": starts_data(plan.starts, names),
        "advice": {"action": advice.action, "reason": advice.reason, "commands": _commands(args, advice, plan, names)},
        "plot": args.plot,
        "seconds": time.perf_counter() - begin,
    }
    emit(args, data, lambda: _text(plan, data, _advised(advice), args.all_rows))
    return 0


def _advised(advice: Advice) -> PlanRow | None:
    """The row that is advised; none where the advice is to do without."""
    return advice.row if advice.action in ("compress", "split") else None


def _commands(args: argparse.Namespace, advice: Advice, plan: Plan, names: list[str]) -> list[str]:
    row = _advised(advice)
    if row is None:
        return []
    options = [*size_words(dict([row.choice])), "--geometry", row.geometry, "--storage", row.storage]
    options += further_words(args)
    if advice.action == "split":
        return split_commands(plan.starts, args.folders, names, "OUT", options, args.name)
    return [compress_command(args.folders, "OUT", [*options, *name_words(args.name)])]


_HEAD = ("sets", "geometry", "size", "k", "storage", "bytes", "smaller", "error", "worst", "at random", "cut alone", "")
_SETS = "  sets: one for all adapters, or split: one for each group that began with one A\n"
_MEANINGS = """\
  geometry: columns shares directions of the factors' columns, flat shares whole factors
  size: as --k or --explained-variance of compress takes it; k: what that is in the mean of layers and sides
  smaller: bytes of the adapters over bytes of the set
  error, worst: mean and largest relative error of a task's update; 0.1 is off by a tenth of it
  at random: the error of random adapters of the same singular values at the same k; near it nothing is shared
  cut alone: the error of each adapter cut by itself to the same bytes; below it no set is needed"""


def _text(plan: Plan, data: dict[str, Any], advised: PlanRow | None, everything: bool) -> str:
    shown = list(plan.rows) if everything else frontier(plan.rows)[:_MOST]
    part = "" if plan.measured == plan.layers else f", measured on {plan.measured} (--all-layers for all)"
    split = any(row.sets == "split" for row in plan.rows)
    cells = [_HEAD, *((*_cells(row, plan.bytes_in), "<- advised" if row is advised else "") for row in shown)]
    lines = [
        f"{counted(len(data['tasks']))}, {megabytes(plan.bytes_in)}, {plan.layers} layers{part}",
        starts_line(data["starts"]),
        "",
        table(cells if split else [row[1:] for row in cells]),
    ]
    if len(shown) < len(plan.rows):
        lines.append(f"  {len(shown)} of {len(plan.rows)} ways: those that none beats in bytes and in error at once "
                     "(--all-rows for all)")  # fmt: skip
    lines += ["", f"{_SETS if split else ''}{_MEANINGS}"]
    return "\n".join([*lines, *advice_lines(data["advice"])])


def _cells(row: PlanRow, bytes_in: int) -> tuple[str, ...]:
    how, value = row.choice
    size = f"k {value:g}" if how == "k" else f"variance {value:g}"
    errors = (f"{x:.3g}" for x in (row.error, row.worst, row.null, row.cut))
    return (row.sets, row.geometry, size, f"{row.k:.1f}", row.storage, megabytes(row.bytes),
            f"{bytes_in / row.bytes:.2f}x", *errors)  # fmt: skip

"""`share-jax compress DIR... -o OUT`: many adapters into one set."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from share_jax.adapter_set.advice import judge
from share_jax.adapter_set.build import build_state
from share_jax.adapter_set.comparison import Comparison, compare
from share_jax.adapter_set.contents import contents_of
from share_jax.adapter_set.manifest import Settings
from share_jax.adapter_set.store import new_set
from share_jax.adapter_set.survey import Survey
from share_jax.cli.advice_text import advice_lines, further_words, size_words, split_commands, starts_data, starts_line
from share_jax.cli.inputs import open_inputs
from share_jax.cli.options import Progress, add_output, add_size, add_task_names, choice_of, emit, warn, whole
from share_jax.cli.output_folder import check_output
from share_jax.cli.report import summary, text
from share_jax.formats.base_model import common_base, with_base
from share_jax.formats.open import check_common_shapes
from share_jax.formats.same_modules import two_names

EXAMPLE = "share-jax compress adapters/* -o shared --k 32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="adapters of any known format, as folders or files, or banks"
    )
    add_task_names(parser)
    add_output(parser, "the set")
    add_size(parser, "smallest k with every task's relative error <= E")
    parser.add_argument("--geometry", choices=("columns", "flat", "auto"), default="columns",
                        help="bases of the factors' columns, or of whole flattened factors (columns)")  # fmt: skip
    parser.add_argument("--storage", choices=("f32", "bf16", "int8"), default="f32",
                        help="how bases and coefficients are stored (f32)")  # fmt: skip
    parser.add_argument("--pseudo-rank", type=whole, metavar="P", help="cut every adapter to this rank first")
    parser.add_argument("--base-model", metavar="NAME", help="the base model of all inputs, whatever they name")
    parser.add_argument("--names", metavar="FILE", help="JSON: PyTorch's name of every module by its path in a bank")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    out = check_output(args.output, args.overwrite, args.folders)
    sources = with_base(open_inputs(args.folders, names=args.names, tasks=args.name), args.base_model)
    base = common_base(sources)
    check_common_shapes(sources, {})
    warning = two_names(sources)
    progress = Progress(args)
    settings = Settings(base, args.storage, args.geometry, choice_of(args), args.max_error, args.pseudo_rank)
    survey = Survey([source.name for source in sources])
    state = build_state(sources, settings, progress, survey)
    contents = contents_of(settings, state, sources)
    with new_set(out, overwrite=args.overwrite) as writer:
        done = writer.write(contents)
    progress.close()
    data = summary(out, replace(done, folder=out), 0.0)
    size = data["bytes_out"] - data["bytes"]["uncompressed_tensors"]
    data |= _compared(args, data, [source.name for source in sources], compare(state, contents, survey, size))
    data["warnings"] = warn(warning)
    data["seconds"] = time.perf_counter() - begin
    emit(args, data, lambda: _text(args.output, data))
    return 0


def _compared(
    args: argparse.Namespace, data: dict[str, Any], names: Sequence[str], found: Comparison
) -> dict[str, Any]:
    """What stands beside the set's figures, and what to do about it."""
    for name, null, cut in zip(names, found.null, found.cut, strict=True):
        data["per_task"][name] |= {"null_error": float(null), "cut_error": float(cut)}
    advice = judge(
        data["relative_error"]["mean"], found.null.mean(), found.cut.mean(), data["bytes_in"], data["bytes_out"],
        found.starts,
    )  # fmt: skip
    options = [*size_words(choice_of(args)), "--geometry", args.geometry, "--storage", args.storage]
    options += further_words(args)
    commands = split_commands(found.starts, args.folders, names, args.output, options, args.name)
    return {
        "null_error": {"mean": float(np.mean(found.null)), "max": float(np.max(found.null))},
        "cut_error": {"mean": float(np.mean(found.cut)), "max": float(np.max(found.cut))},
        "starts": starts_data(found.starts, names),
        "advice": {
            "action": advice.action,
            "reason": advice.reason,
            "commands": commands if advice.action == "split" else [],
        },
    }


def _text(folder: str, data: dict[str, Any]) -> str:
    return "\n".join([text(folder, data), "", starts_line(data["starts"]), *advice_lines(data["advice"])])

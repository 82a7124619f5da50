"""`share-jax convert IN -o PATH --to FORMAT`: one adapter in another tool's format."""

import argparse
import os
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from share_jax.cli.options import add_output, emit, number
from share_jax.cli.output_folder import check_file_output, check_output
from share_jax.cli.table import table
from share_jax.errors import InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.conversion import TARGETS, Conversion, convert, with_component
from share_jax.formats.format import Format
from share_jax.formats.gguf_lora import heads_in, open_gguf
from share_jax.formats.jax_trees import open_jax_tree
from share_jax.formats.kohya import open_kohya
from share_jax.formats.module_lists import modules_in
from share_jax.formats.open import format_of
from share_jax.storage.atomic_write import flush
from share_jax.storage.untrusted import publish, short_name, shown

EXAMPLE = "share-jax convert style.safetensors -o style-kohya.safetensors --to kohya"

_ONE_FILE = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("adapter", metavar="IN", help="a folder or a file of any known format")
    add_output(parser, "the adapter", "PATH")
    parser.add_argument("--to", required=True, choices=tuple(TARGETS), help="the format to write")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"), help="dtype of the factors (default: as they are)")
    parser.add_argument("--task", metavar="TASK", help="which task, of a folder with several")
    parser.add_argument("--component", metavar="NAME", help="the part of an image model, where names do not say it")
    parser.add_argument(
        "--modules", metavar="FILE", help="to undo kohya's names: the model's weights, their index, or a list of names"
    )
    parser.add_argument("--heads", type=heads_in, metavar="Q,KV", help="heads of a Llama, for its GGUF file")
    parser.add_argument("--alpha", type=number, metavar="A", help="alpha of the training, for a JAX tree that has none")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    path, kind = format_of(args.adapter)
    source = _task(args, path, kind)
    if args.output.endswith(_ONE_FILE):
        out = _check_file(args, path)
        with tempfile.TemporaryDirectory(prefix=f".{short_name(out.name)}-", dir=out.parent) as temp:
            done = convert(kind.name, path, source, args.to, Path(temp), args.dtype)
            (made,) = Path(temp).iterdir()
            os.replace(made, out)
        flush(out.parent)
    else:
        place = check_output(args.output, args.overwrite, [args.adapter])
        with publish(place, overwrite=args.overwrite) as folder:
            done = convert(kind.name, path, source, args.to, folder, args.dtype)
    data = {
        "from": kind.name,
        "to": args.to,
        "task": source.name,
        "modules": done.modules,
        "tensors": [asdict(each) for each in done.tensors],
        "largest_relative_change": done.change,
        "changed_alphas": list(done.alphas),
        "left_out_before": list(done.left_out),
        "seconds": time.perf_counter() - begin,
    }
    emit(args, data, lambda: _text(args.output, data, done))
    return 0


def _task(args: argparse.Namespace, path: Path, kind: Format) -> Source:
    """The one task to convert, its modules named by their component where that is known."""
    for option, own in (("modules", "kohya"), ("heads", "GGUF"), ("alpha", "JAX trees")):
        if getattr(args, option) is not None and kind.name != own:
            got, fix = f"an adapter of {kind.name}", f"leave --{option} out"
            raise InputError(message(f"--{option}", got=got, expected=f"one of {own}", fix=fix))
    if args.modules is not None:
        sources = open_kohya(path, modules_in(args.modules))
    elif args.heads is not None:
        sources = open_gguf(path, args.heads)
    else:
        sources = kind.open(path) if args.alpha is None else open_jax_tree(path, args.alpha)
    chosen = [source for source in sources if args.task in (None, source.name)]
    if len(chosen) != 1:
        names = ", ".join(source.name for source in sources)
        got = f"{len(sources)} tasks" if args.task is None else f"no task {shown(args.task)}"
        fix = f"pass --task, of {shown(names)}"
        raise InputError(message(f"adapter {shown(path)}", got=got, expected="one task", fix=fix))
    image = args.to not in ("peft", "mlx") or args.component is not None
    return with_component(chosen[0], args.component) if image else chosen[0]


def _check_file(args: argparse.Namespace, path: Path) -> Path:
    """Where one file may be written."""
    what = f"output {shown(args.output)}"
    if args.to in ("peft", "mlx"):
        raise InputError(message(what, got="a file", expected=f"a folder for {args.to}", fix="name a folder"))
    out = check_file_output(args.output, [path])
    if out.exists() and not args.overwrite:
        fix = "name another or pass --overwrite"
        raise InputError(message(what, got="a file that is there", expected="a new one", fix=fix))
    return out


def _text(out: str, data: dict[str, Any], done: Conversion) -> str:
    """What has become of the tensors, by role, and how far the updates moved."""
    rows = [("tensors", "what they are", "for example")]
    for role, count in Counter(each.role for each in done.tensors).items():
        first = next(each for each in done.tensors if each.role == role)
        rows.append((str(count), role, f"{first.tensor} -> {first.becomes}"))
    head = f"{out}: {data['from']} to {data['to']}, {done.modules} modules, largest change {done.change:.2g}"
    note = f"\n{len(done.alphas)} alphas are other numbers (the updates are the same)" if done.alphas else ""
    if done.left_out:
        note += f"\nPEFT left out {len(done.left_out)} modules under the old configuration, as {done.left_out[0]}"
        note += "; the new one names all" if data["to"] == "peft" else ""
    return f"{head}{note}\n{table(rows)}"

"""From one format of adapter files to another, with an account of every tensor and a comparison of both."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from share_jax.errors import FormatError, InputError, message
from share_jax.formats import components
from share_jax.formats.adapter_file import Part, Source
from share_jax.formats.comfy import open_comfy, save_comfy
from share_jax.formats.diffusers import USUAL, loads_whole, open_diffusers, save_diffusers
from share_jax.formats.export import exact_alpha
from share_jax.formats.kohya import open_kohya, save_kohya
from share_jax.formats.mlx import CONFIG as MLX_CONFIG
from share_jax.formats.mlx import WEIGHTS as MLX_WEIGHTS
from share_jax.formats.mlx import open_mlx, save_mlx
from share_jax.formats.pairs import place_of
from share_jax.formats.peft import CONFIG, WEIGHTS, open_adapter
from share_jax.formats.peft_keys import PREFIX, unwrapped
from share_jax.formats.peft_modules import fitting_config, left_out
from share_jax.formats.peft_parts import is_peft_parts, open_peft_parts
from share_jax.formats.peft_saving import save_peft
from share_jax.formats.renamed import renamed
from share_jax.storage.atomic_write import flush
from share_jax.storage.untrusted import exists_inside, open_inside, shown
from share_jax.subspace.error_bounds import relative_distance

Save = Callable[[Path, Source, str | None], dict[Part, str]]
"""(existing folder, task, dtype of the factors or None) -> what each part has become."""


@dataclass(frozen=True)
class Target:
    """A format that `convert` writes.

    Attributes:
        kind: the name of the format in `FORMATS`.
        save: writes a task.
        usual: the names of the files that make up an adapter; empty where one file has the task's name.
    """

    kind: str
    save: Save
    usual: tuple[str, ...] = ()


TARGETS: Mapping[str, Target] = {
    "peft": Target("PEFT", save_peft, (WEIGHTS, CONFIG)),
    "diffusers": Target("diffusers", save_diffusers),
    "kohya": Target("kohya", save_kohya),
    "comfy": Target("ComfyUI", save_comfy),
    "mlx": Target("MLX-LM", save_mlx, (MLX_WEIGHTS, MLX_CONFIG)),
}


@dataclass(frozen=True)
class Account:
    """What has become of one tensor."""

    tensor: str
    role: str
    module: str
    becomes: str


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        tensors: an entry for every tensor of the input.
        modules: how many pairs there are.
        change: largest relative change of a module's update, read back from what was written.
        alphas: modules whose alpha is another number than before; none where the target keeps alphas.
        left_out: modules that PEFT would not create under the configuration of the input.
    """

    tensors: tuple[Account, ...]
    modules: int
    change: float
    alphas: tuple[str, ...]
    left_out: tuple[str, ...]


def with_component(source: Source, component: str | None) -> Source:
    """The task with a component before the names of its modules, given or guessed, where they have none.

    Raises:
        InputError: the component is not known.
    """
    if component is not None and component not in components.COMPONENTS:
        expected = ", ".join(components.COMPONENTS)
        raise InputError(message("--component", got=shown(component), expected=expected, fix="name one of them"))
    bare = [module for module in source.layers if not components.split(module)[0]]
    known = component or components.guessed(bare)
    if not bare or known is None or len(bare) != len(source.layers) or set(source.extra_names) - set(source.companions):
        return source
    return renamed(source, {module: f"{known}.{module}" for module in bare})


def convert(kind: str, path: Path, source: Source, target: str, folder: Path, dtype: str | None = None) -> Conversion:
    """Writes a task in another format, or copies its files where they are of that format and have its usual names.

    Where the tool itself would leave some of an adapter out, what is written is no copy: it has names and a
    configuration that the tool loads.

    Args:
        kind: the name of the format that the task is of.
        path: where it was read.
        source: the task.
        target: a key of `TARGETS`.
        folder: an existing, empty folder.
        dtype: of the factors; their own when None.

    Raises:
        InputError: the target cannot hold the task, or the task has a tensor that has no place in it.
    """
    aim = TARGETS[target]
    lacking = tuple(sorted(left_out(source.config, source.layers))) if kind == "PEFT" else ()
    files = _files_of(path, aim) if kind == aim.kind and dtype is None and _loads(kind, path, source) else None
    if files is not None:
        for file in files:
            _copy(file, folder)
        written = {part: key for key, part in source.parts.items()}
    else:
        written = aim.save(folder, source, dtype)
    accounts = tuple(_account(key, part, written, source) for key, part in source.parts.items())
    return Conversion(accounts, len(source.layers), *_compared(source, _reread(folder, target, source)), lacking)


def _loads(kind: str, path: Path, source: Source) -> bool:
    """Whether the tool whose format it is loads all of an adapter, as far as that is known."""
    if kind == "diffusers":
        return loads_whole(path)
    if kind != "PEFT":
        return True
    named = all(key.startswith(PREFIX) and unwrapped(key) == key for key in source.parts)
    return named and fitting_config(source.config, source.layers) == source.config


def _reread(folder: Path, target: str, source: Source) -> Source:
    """The task as it was written."""
    if target == "kohya":
        try:
            return open_kohya(folder)[0]
        except FormatError:  # names that nobody undoes without the model's
            return open_kohya(folder, [components.split(module)[1] for module in source.layers])[0]
    if target == "peft":
        return open_peft_parts(folder)[0] if is_peft_parts(folder) else open_adapter(folder)
    readers = {"comfy": open_comfy, "diffusers": open_diffusers, "mlx": open_mlx}
    return readers[target](folder)[0]


def _compared(source: Source, back: Source) -> tuple[float, tuple[str, ...]]:
    """(the largest relative change of an update, the modules whose alpha is another number)."""
    old, new = {_model_key(module): module for module in source.layers}, {_model_key(m): m for m in back.layers}
    missing = next((module for key, module in old.items() if key not in new), None)
    if missing is not None or len(old) != len(new):
        got = f"no {shown(missing)} in what was written" if missing else "more modules than there were"
        raise FormatError(message(source.label, got=got, expected="every module once", fix="report it"))
    change, alphas = 0.0, []
    for key, module in old.items():
        before, after = source.adapter((module,)), back.adapter((new[key],))
        change = max(change, relative_distance(before, {module: after[new[key]]}))
        if exact_alpha(source.layers[module]) != exact_alpha(back.layers[new[key]]):
            alphas.append(module)
    return change, tuple(alphas)


def _model_key(module: str) -> tuple[str, str]:
    """A module without what the tools call its component, where that is the main model."""
    component, name = components.split(module)
    return ("", name) if component in components.MAIN else (component, name)


def _account(key: str, part: Part, written: Mapping[Part, str], source: Source) -> Account:
    where = written.get(part)
    if where is None and part.role == "middle":
        where = f"{written[Part('lora_a', part.module)]}, multiplied into it"
    if where is None and part.role == "alpha":
        where = "scale 1, which needs none"
    if where is None:
        raise InputError(
            message(f"{source.label} tensor {shown(key)}", got="no place for it in that format", expected="one",
                 fix="convert it to another (--to peft)")
        )  # fmt: skip
    return Account(key, part.role, part.module, where)


def _files_of(path: Path, aim: Target) -> list[tuple[Path, str]] | None:
    """The files of an adapter, as (folder, name), if they make up all of it as the target has it."""
    if aim.usual:
        found = [(path, name) for name in aim.usual if exists_inside(path, name)]
        return found if len(found) == len(aim.usual) else None
    place = place_of(path, USUAL)
    return [(place.folder, place.name)] if place is not None and place.name.endswith(".safetensors") else None


def _copy(file: tuple[Path, str], folder: Path) -> None:
    with os.fdopen(open_inside(*file), "rb") as source, open(folder / file[1], "xb") as out:
        shutil.copyfileobj(source, out)
    flush(folder / file[1])

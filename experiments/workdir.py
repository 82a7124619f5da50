"""The folder of a run: one run at a time; taken empty, resumed, or replaced only when asked to."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.config.command_words import without_folder
from experiments.config.run_config import Config, command_line
from share_jax.errors import FormatError, InputError, message
from share_jax.storage import lock
from share_jax.storage.atomic_write import is_partial
from share_jax.storage.manifest_file import Content, ManifestKind, digest

FILE = "run.json"
CHECKPOINTS = "checkpoints"


def _without_schema(body: Content) -> Content | None:
    """Notes of before schema 1, of which the first had no checksum either."""
    note = {name: value for name, value in body.items() if name != "sha256"}
    return note if "run" in note and body.get("sha256", digest(note)) == digest(note) else None


NOTE = ManifestKind(1, "add --repair, with the flags of that run, to note them anew", older={0: _without_schema})


@contextmanager
def locked_workdir(config: Config) -> Iterator[Path]:
    """The workdir, ready, with a note of which run it is, and locked against a second run while the context lasts.

    Raises:
        InputError: if it is a file; if it is not empty and neither --resume nor --overwrite is given; if --resume finds
            no run or the run of another configuration; if --overwrite finds something that is not a run.
        BusyError: if another run is at work in it.
    """
    folder = config.workdir
    _check(config)
    with lock.hold(folder):
        _check(config)  # once more: another run may have ended between the first look and the lock
        if config.overwrite:
            _clear(folder)
        NOTE.write({"run": _work(config)}, folder / FILE)
        yield folder


def _content(folder: Path) -> set[str]:
    """What is in the folder, without what a kill before the run was noted may have left there."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return {name for name in names if name != lock.FILE and not is_partial(name, FILE)}


def _clear(folder: Path) -> None:
    """Removes an earlier run; its note goes last, so that after a kill the rest is still known to be a run's."""
    for name in sorted(_content(folder), key=lambda name: (name == FILE, name)):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _check(config: Config) -> None:
    folder = config.workdir
    if folder.exists() and not folder.is_dir():
        raise InputError(message(f"--workdir {folder}", got="a file", expected="a folder", fix="choose another name"))
    noted, content = folder / FILE, _content(folder)
    if content and (content != {FILE} or config.resume):  # a note alone is of a run that ended before it had anything
        if not (config.resume or config.overwrite):
            fix = "add --resume to go on with it, --overwrite to replace it, or choose another folder"
            raise InputError(
                message(f"--workdir {folder}", got="a folder with content", expected="an empty one", fix=fix)
            )
        lost = not noted.exists()
        if lost and not (config.repair and (folder / CHECKPOINTS).exists()):
            fix = "choose another folder, or restore the note from a copy"
            raise InputError(message(f"--workdir {folder}", got=f"no {FILE} in it", expected="an earlier run", fix=fix))
        if config.resume and not lost:
            _check_same(noted, config)


def _work(config: Config) -> str:
    """The command without what a resumed run may have otherwise: more methods and seeds, other devices and places.

    Other weights than a checkpoint's are refused by their fingerprint.
    """
    words = without_folder(command_line(config)).split(" --")
    return " --".join(word for word in words if not word.startswith(("methods ", "seeds ", "mesh ", "weights ")))


def _check_same(noted: Path, config: Config) -> None:
    try:
        run = NOTE.read(noted).get("run")
    except FormatError as error:
        if config.repair:
            return
        raise InputError(str(error)) from error
    if run != _work(config):
        fix = "resume with the same flags, or choose another folder"
        raise InputError(message("--resume", got=_work(config), expected=run, fix=fix))

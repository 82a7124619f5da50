"""The folder of a run: taken empty, resumed, or replaced only when asked to."""

import json
import shutil
from pathlib import Path

from experiments.config import Config, command_line
from share_jax.errors import InputError, line

FILE = "run.json"


def take(config: Config) -> Path:
    """Makes the workdir ready and notes in it which run it is.

    Raises:
        InputError: if it is a file; if it is not empty and neither --resume nor --overwrite is given; if --resume finds
            no run or the run of another configuration; if --overwrite finds something that is not a run.
    """
    folder = config.workdir
    if folder.exists() and not folder.is_dir():
        raise InputError(line(f"--workdir {folder}", got="a file", expected="a folder", mend="choose another name"))
    noted = folder / FILE
    if folder.exists() and any(folder.iterdir()):
        if not (config.resume or config.overwrite):
            mend = "add --resume to go on with it, --overwrite to replace it, or choose another folder"
            raise InputError(
                line(f"--workdir {folder}", got="a folder with content", expected="an empty one", mend=mend)
            )
        if not noted.exists():
            mend = "choose another folder"
            raise InputError(line(f"--workdir {folder}", got=f"no {FILE} in it", expected="an earlier run", mend=mend))
        if config.overwrite:
            shutil.rmtree(folder)
        else:
            _check_same(noted, config)
    folder.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps({"run": _work(config)}), encoding="utf-8")
    return folder


def _work(config: Config) -> str:
    """The command without the methods and seeds, of which a resumed run may have more."""
    words = command_line(config).split(" --")
    return " --".join(word for word in words if not word.startswith(("methods ", "seeds ")))


def _check_same(noted: Path, config: Config) -> None:
    try:
        before = json.loads(noted.read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        mend = "add --overwrite to replace the run"
        raise InputError(line(str(noted), got=error, expected="the note of a run", mend=mend)) from error
    if before != _work(config):
        mend = "resume with the same flags, or choose another folder"
        raise InputError(line("--resume", got=_work(config), expected=before, mend=mend))

"""The words of a run's command that name places of the machine: they are no settings, though a run needs them."""

DATA = "--data-folder FOLDER"
"""Where a run read data from a folder; which one is the machine's own."""


def without_folder(command: str) -> str:
    """The command without its data folder, as those of earlier results are.

    >>> without_folder("python -m experiments.run --experiment olora --data-folder FOLDER --seeds 0,1")
    'python -m experiments.run --experiment olora --seeds 0,1'
    """
    return command.replace(f" {DATA}", "")


def weights_of(command: str) -> str | None:
    """The name of the weights that a command gives; None where they are the stream's own.

    >>> weights_of("python -m experiments.run --weights Qwen3-0.6B --seeds 0,1")
    'Qwen3-0.6B'
    """
    words = command.split()
    return words[words.index("--weights") + 1] if "--weights" in words[:-1] else None

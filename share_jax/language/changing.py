"""A bank's folder while it changes: held by one process, as it was opened, with no training of another task in it.

Until it has a task, or a training in flight, its settings are not fixed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from share_jax.checkpoint.checkpoint import open_checkpoint
from share_jax.checkpoint.manifest import check_free, exists
from share_jax.checkpoint.saved_bank import begin_bank
from share_jax.errors import BusyError, InputError, message
from share_jax.language.language_bank import LanguageBank
from share_jax.language.settings import write_settings
from share_jax.storage.lock import LONG, hold
from share_jax.storage.untrusted import shown


@contextmanager
def changing(opened: LanguageBank, task: str | None = None, *, restart: bool = False) -> Iterator[None]:
    """Holds the folder of a bank for this process alone while the context lasts.

    Args:
        opened: the bank.
        task: what is learnt; None where nothing is.
        restart: whether a training that was broken off is given up, whichever task it is of.

    Raises:
        BusyError: another process has it, or has changed it since it was opened.
        InputError: a training of another task was broken off in it.
        FormatError: the folder is no bank, and holds something else.
        SaveError: the folder cannot be made or written in.
    """
    what = f"bank {shown(opened.folder)}"
    if not exists(opened.folder):
        check_free(opened.folder)  # before the lock lies in it
    with hold(opened.folder, LONG):
        if exists(opened.folder):
            store = open_checkpoint(opened.folder)
            if store.names != opened.bank.names:
                got, fix = f"tasks {', '.join(store.names)}", "run the command again, or open the bank again"
                expected = f"{', '.join(opened.bank.names) or 'none'}, as when it was opened"
                raise BusyError(message(what, got=got, expected=expected, fix=fix))
            record = store.manifest.inflight
            own = None if record is None else record["info"]
            if own is not None and own["task"] != task and not restart:
                got = f"a training of {shown(own['task'])!r} that was broken off after {own['step']} updates"
                fix = "give its command again to end it, or give it up: share-jax learn --restart (restart=True)"
                raise InputError(message(what, got=got, expected="none of another task", fix=fix))
        yield


def begin(opened: LanguageBank, learner: Any, *, restart: bool = False) -> None:
    """Makes the folder of a bank without tasks one of its settings, whatever an earlier training left of others.

    Args:
        opened: the bank; nothing is done if it has tasks.
        learner: what learns its first.
        restart: whether a training that was broken off is given up where it had other settings.

    Raises:
        FormatError: a training of other settings was broken off in it.
        SaveError: it cannot be written.
    """
    if not opened.bank.names:
        begin_bank(opened.folder, learner, opened.bank, restart=restart)
        write_settings(opened.folder, opened.settings)

"""One process at a time in a folder: a lock that the kernel frees however the process ends, kill -9 included.

The lock is `flock(2)`, on a file in the folder or on the folder itself. It holds between processes of one machine, and
between machines over NFS where the mount has locking on. Object stores mounted as folders, such as GCS FUSE, have no
locks between machines: one that says so gets a warning, one that only pretends cannot be told; see to it there that a
folder has one run. The file stays behind; alone it locks nothing.
"""

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from share_jax.errors import BusyError, line

FILE = ".lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def hold(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a folder, made if need be, for this process alone while the context lasts.

    Raises:
      BusyError: if another process, or another context of this one, holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Opened without O_TRUNC: who holds the lock may have written its number.
    descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _refuse_if_taken(descriptor, folder)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # frees the lock: no child inherits the descriptor


@contextmanager
def hold_itself(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a folder that is there, without a file in it, for this process alone while the context lasts.

    Raises:
      BusyError: if another process, or another context of this one, holds it so.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _refuse_if_taken(descriptor, Path(folder))
        yield
    finally:
        os.close(descriptor)


def take(descriptor: int) -> str:
    """Takes the lock of an open file, which closing it frees.

    Returns:
      Empty when it is taken; else why there are no locks.

    Raises:
      BlockingIOError: if it is taken already.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return "no fcntl on this system"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return error.strerror or "no locks"
    return ""


def _refuse_if_taken(descriptor: int, folder: Path) -> None:
    try:
        why = take(descriptor)
    except BlockingIOError:
        got = f"a lock of {_holder(descriptor)}"
        mend = "wait for it to end, or choose another folder"
        raise BusyError(line(f"folder {folder}", got=got, expected="no other run in it", mend=mend)) from None
    if why:
        mend = "see to it that no other run uses it"
        text = line(f"folder {folder}", got=f"no lock ({why})", expected="a lock", mend=mend)
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def _holder(descriptor: int) -> str:
    """Who holds it, as a file that `hold` made says; a folder says nothing."""
    said = b"" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.pread(descriptor, 32, 0)
    return f"process {said.decode(errors='replace').strip()}" if said.strip() else "another process"

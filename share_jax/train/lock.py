"""One process at a time in a folder: a lock that the kernel frees however the process ends, kill -9 included.

The lock is `flock(2)` on a file in the folder. It holds between processes of one machine, and between machines over
NFS where the mount has locking on. Object stores mounted as folders, such as GCS FUSE, have no locks between machines:
one that says so gets a warning, one that only pretends cannot be told; see to it there that a folder has one run. The
file stays behind; alone it locks nothing.
"""

import errno
import os
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
        _lock(descriptor, folder)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # frees the lock: no child inherits the descriptor


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        _warn(folder, "no fcntl on this system")
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        got = f"a lock of process {holder}" if holder else "a lock of another process"
        mend = "wait for that run to end, or choose another folder"
        raise BusyError(line(f"folder {folder}", got=got, expected="no other run in it", mend=mend)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _warn(folder, error.strerror or "no locks")


def _warn(folder: Path, why: str) -> None:
    text = line(
        f"folder {folder}", got=f"no lock ({why})", expected="a lock", mend="see to it that no other run uses it"
    )
    warnings.warn(text, RuntimeWarning, stacklevel=4)

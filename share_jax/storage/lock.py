"""One process at a time in a folder: a lock that the kernel frees however the process ends, kill -9 included.

The lock is `flock(2)`, on a file in the folder (`hold`) or on the folder itself (`hold_itself`). It holds between
processes of one machine; on a file also between machines over NFS, where the mount has locking on. Object stores
mounted as folders, such as GCS FUSE, have no locks between machines: one that says so gets a warning, one that only
pretends cannot be told; see to it there that a folder has one run. The file stays behind; alone it locks nothing.
"""

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from share_jax.errors import BusyError, SaveError, message

FILE, LONG = ".lock", ".lock-long"
"""Of a lock for one save, and of one for a change of several saves, which another change cannot begin meanwhile."""

FILES = frozenset((FILE, LONG))

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
"""What file systems without locks say; EBADF is NFS's word on a folder, which cannot be open for writing."""


@contextmanager
def hold(folder: str | os.PathLike[str], file: str = FILE) -> Iterator[None]:
    """Holds a folder, made if need be, for this process alone while the context lasts.

    Args:
        folder: the folder.
        file: of the lock, in it; what holds another file of it does not keep this one waiting.

    Raises:
        BusyError: if another process, or another context of this one, holds it.
        SaveError: if the folder or its file of that name cannot be made or written.

    Example:
        >>> with hold("bank"):
        ...     try:
        ...         with hold("bank"):
        ...             print("not reached")
        ...     except BusyError as error:
        ...         print(error)
        folder bank: got a lock of this process itself, expected no other run in it; let that context end first
    """
    folder, owner = Path(folder), os.getpid()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Opened without O_TRUNC: who holds the lock may have written its number.
        descriptor = os.open(folder / file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        raise _not_written(folder, error) from error
    try:
        _refuse_if_taken(descriptor, folder)
        try:
            _note(descriptor)
        except OSError as error:
            raise _not_written(folder, error) from error
        yield
    finally:
        _free(descriptor, owner)


@contextmanager
def hold_itself(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a folder that is there, without a file in it, for this process alone while the context lasts.

    Raises:
        BusyError: if another process, or another context of this one, holds it so.
    """
    descriptor, owner = os.open(folder, os.O_RDONLY), os.getpid()
    try:
        _refuse_if_taken(descriptor, Path(folder))
        yield
    finally:
        _free(descriptor, owner)


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


def _free(descriptor: int, owner: int) -> None:
    """Frees a lock, also where a child that was forked meanwhile has the file open; the child itself frees nothing."""
    if os.getpid() == owner:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _note(descriptor: int) -> None:
    """Writes this process's number into the file, unless it holds something else than a number."""
    said = os.pread(descriptor, 32, 0).strip()
    if not said or said.isdigit():
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _not_written(folder: Path, error: OSError) -> SaveError:
    got, fix = error.strerror or type(error).__name__, "check the path, its rights and the room on the disk"
    return SaveError(message(f"folder {folder}", got=got, expected="a folder to write in", fix=fix))


def _refuse_if_taken(descriptor: int, folder: Path) -> None:
    try:
        why = take(descriptor)
    except BlockingIOError:
        holder = _holder(descriptor)
        own = holder == f"process {os.getpid()}"
        got = "a lock of this process itself" if own else f"a lock of {holder}"
        fix = "let that context end first" if own else "wait for it to end, or choose another folder"
        raise BusyError(message(f"folder {folder}", got=got, expected="no other run in it", fix=fix)) from None
    if why:
        fix = "see to it that no other run uses it"
        text = message(f"folder {folder}", got=f"no lock ({why})", expected="a lock", fix=fix)
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def _holder(descriptor: int) -> str:
    """Who holds it, as a file that `hold` made says; a folder says nothing."""
    said = b"" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.pread(descriptor, 32, 0)
    return f"process {said.decode(errors='replace').strip()}" if said.strip() else "another process"

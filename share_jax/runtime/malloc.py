"""Memory that the process keeps from one train step to the next instead of asking the system for it anew."""

import ctypes
import platform

ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1
"""The numbers of mallopt's settings in glibc's malloc.h."""

NEVER = -1
"""The threshold at which nothing is trimmed."""


def keep_freed() -> bool:
    """Has the C library keep freed memory for the next request: the same results, sooner, on a CPU.

    XLA's CPU backend requests the temporary arrays of a program as one block each time it is run, and frees it at the
    end. glibc hands a block over 32 MiB back to the system at once. The system then has to map and clear every page of
    it again in the next train step: an eighth of the step of a small transformer. After this call the process holds on
    to the most that it ever needed, and to somewhat more since blocks of unlike sizes share it; devices' own memory is
    not concerned.

    Call it before JAX has made its devices; right after `import jax` will do. It counts for the whole process, all of
    whose threads then draw on one pool.

    Returns:
        Whether it has taken effect: False, and nothing has changed, where the C library is not glibc.

    Source: the GNU C library's manual, Malloc Tunable Parameters, and mallopt(3).

    Example:
        >>> import subprocess
        >>> import sys
        >>> beginning = "import share_jax; kept = share_jax.runtime.keep_freed()"  # the first line of a program
        >>> subprocess.run([sys.executable, "-c", beginning], check=True).returncode
        0
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    wanted = ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER))
    return sum(library.mallopt(number, value) for number, value in wanted) == len(wanted)

"""What a command does when nobody reads on, as behind `| head`."""

import os
import sys


def drop_output() -> None:
    """Sends what is still to be printed to nowhere, so that the process can end without an error of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

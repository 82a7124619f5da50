"""The process around the mathematics: threads, memory, several hosts, preemption.

`malloc` keeps freed memory from step to step; `preemption` stops a run when the platform asks for it; `processes`
makes many processes one run; `threads` runs host work on all processors; `closed_output` is for a command whose reader
has gone. What is decided per process, not per array, goes here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

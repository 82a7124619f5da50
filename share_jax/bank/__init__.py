"""What tasks own while they are learnt and served: names and slots, the router, and what it all costs.

A task's leaves are its slot. `slots` is the task axis: reading, writing and growing stacks of slots by a traced id.
`bank` adds the tasks' names to the stack; `router` finds the task of an example that comes without an id;
`accounting` counts parameters and bytes. How tasks are stored in memory is decided here and nowhere else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""What a language model learns from, as plain text: examples, and the JSONL files that hold them.

`json_lines` reads a file of one JSON object per line, strictly; `examples` makes of each line a prompt with its
completion, a text, or a chat. Nothing here knows a tokenizer or a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

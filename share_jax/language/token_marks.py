"""What makes a model's tokens of a text, as checksums, by which a bank knows the tokenizer that it was learnt with.

A folder and a GGUF file of one model write a tokenizer unlike, so what is compared is what it gives, not its file.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from share_jax.errors import FormatError, message
from share_jax.models.text_tokenizer import TextTokenizer

PROBES = (
    "The quick brown fox jumps over the lazy dog, doesn't it? It's 3.14159 (or 2,718) at 10:45 p.m.!",
    "  def area(r: float) -> float:\n\treturn math.pi * r ** 2  # x != y\n\n\n",
    "SELECT name, count(*) FROM shops WHERE city = 'Zürich' GROUP BY name;",
    "naïve café, cafe\u0301, \ufb01ne, Größe, ÇA VA, ÅÄÖ",
    "Привет, мир! שלום. مرحبا بالعالم. नमस्ते",
    "東京の天気 你好,世界 안녕하세요 🙂 \U0001f469\u200d\U0001f467",
    'https://example.org/a_b-c?d=1&e=%20 user@example.org <b>bold</b> {"key": [1, null]}',
)
"""Texts whose tokens are compared: they meet most merges, splits and normal forms that tokenizers have."""


def token_marks(tokenizer: TextTokenizer) -> dict[str, str]:
    """Checksums of what decides a text's tokens.

    "tokenizer" is of all tokens with their ids and of the ids of `PROBES`, with what stands around a text; tokens that
    llama.cpp fills a vocabulary up with do not count. "stop token" is of the id that is learnt behind a completion;
    further ones, which only end what is generated, do not count. "chat template" is of its text, blanks at its ends
    aside, and of the special tokens that it names.

    >>> from tokenizers import Tokenizer, models
    >>> words = Tokenizer(models.WordLevel({"<end>": 0, "good": 1}, unk_token="<end>"))
    >>> one, other = (token_marks(TextTokenizer(words, stop=stop)) for stop in [(0, 1), (1,)])
    >>> [name for name in one if one[name] != other[name]]
    ['stop token']
    """
    vocabulary = tokenizer.tokenizer.get_vocab(with_added_tokens=True)
    own = sorted((text, place) for text, place in vocabulary.items() if text != f"[PAD{place}]")
    template = tokenizer.template
    named = {name: text for name, text in sorted(tokenizer.special.items()) if template and name in template}
    return {
        "tokenizer": _checksum([own, tokenizer.encode_batch(PROBES)]),
        "stop token": _checksum(tokenizer.stop[0]),
        "chat template": _checksum([template and template.strip(), named]),
    }


def check_token_marks(known: Mapping[str, str], found: Mapping[str, str], model: str) -> None:
    """Refuses a model that makes other tokens than a bank's tasks were learnt with.

    Args:
        known: the bank's.
        found: the model's.
        model: its path.

    Raises:
        FormatError: naming what differs.
    """
    if differ := [name for name, own in found.items() if known.get(name, own) != own]:
        fix = "pass the folder or file of the model that they were learnt with: --model PATH"
        got, expected = f"another {' and another '.join(differ)}", "what the bank's tasks were learnt with"
        raise FormatError(message(f"model {model}", got=got, expected=expected, fix=fix))


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()

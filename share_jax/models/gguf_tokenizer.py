"""The tokenizer in a GGUF file, rebuilt from its tokens, merges or scores, and the name of its way to split texts.

Two kinds are covered. Byte-level BPE ("gpt2", as of Llama 3, Qwen and SmolLM) splits texts as `tokenizer.ggml.pre`
says. SentencePiece BPE ("llama", as of Llama 2, Mistral and Gemma) has merges that follow from the scores.

Sources: `src/llama-vocab.cpp` of llama.cpp for the names of splits; the published `tokenizer.json` of those models for
the splits themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from share_jax.errors import FormatError, message
from share_jax.models.gguf_file import GgufFile
from share_jax.models.text_tokenizer import TextTokenizer

_ABBREVIATED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SPLITS = {
    "llama-bpe": rf"{_ABBREVIATED}|{_WORD}|\p{{N}}{{1,3}}|{_REST}",
    "qwen2": rf"{_ABBREVIATED}|{_WORD}|\p{{N}}|{_REST}",
    "tekken": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""Regular expressions whose matches are split off, by llama.cpp's name."""
_ALIKE = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
_BYTE_LEVEL = ("gpt-2", "smollm")
"""Those that split as GPT-2 does; "smollm" after every digit has been split off."""
_WITH_FIRST_TOKEN = ("llama-bpe", "tekken")
"""Those that begin every text with a token unless the file says otherwise; they also take whole words unmerged."""
_UNKNOWN, _CONTROL, _OWN = 2, 3, 4
_FIX = "take the Hugging Face folder of the model"


def tokenizer_of_gguf(file: GgufFile) -> TextTokenizer:
    """The tokenizer, its special tokens and its chat template.

    Raises:
        FormatError: the file has none, or one whose way to split texts is not known here.
    """
    meta = {
        name.removeprefix("tokenizer.ggml."): value
        for name, value in file.metadata.items()
        if name.startswith("tokenizer.")
    }
    where, kind = str(file.path), meta.get("model")
    if kind not in ("gpt2", "llama") or "tokens" not in meta:
        got = repr(kind) if "tokens" in meta else "no tokens"
        expected = "gpt2 or llama, with its tokens"
        raise FormatError(message(f"{where} tokenizer.ggml.model", got=got, expected=expected, fix=_FIX))
    tokens = [_spelt(token) if kind == "llama" else token for token in meta["tokens"]]
    for name in [name for name in meta if name.endswith("_token_id")]:
        if not isinstance(meta[name], int) or not 0 <= meta[name] < len(tokens):
            expected = f"a token, 0 to {len(tokens) - 1}"
            raise FormatError(message(f"{where} tokenizer.ggml.{name}", got=meta[name], expected=expected, fix=_FIX))
    try:
        tokenizer = _byte_level(tokens, meta, where) if kind == "gpt2" else _sentence_piece(tokens, meta)
        _add_special(tokenizer, tokens, meta)
        _add_first(tokenizer, tokens, meta, first=kind == "llama" or _split(meta) in _WITH_FIRST_TOKEN)
    except FormatError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for what it cannot take
        got = " ".join(str(error).split())[:200]
        raise FormatError(message(f"{where} tokenizer", got=got, expected="tokens and merges", fix=_FIX)) from error
    ends = [meta[name] for name in ("eos_token_id", "eot_token_id", "eom_token_id") if name in meta]
    if not ends:
        raise FormatError(message(where, got="no token that ends a text", expected="eos_token_id", fix=_FIX))
    special = {
        f"{name}_token": tokens[meta[f"{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"{key}_token_id" in meta
    }
    template = file.metadata.get("tokenizer.chat_template")
    pad = meta.get("padding_token_id", ends[0])
    return TextTokenizer(tokenizer, tuple(dict.fromkeys(ends)), pad, special, template)


def _split(meta: Mapping[str, Any]) -> str:
    name = str(meta.get("pre", "default"))
    return _ALIKE.get(name, name)


def _spelt(token: str) -> str:
    """Runs of spaces as the vocabulary writes them."""
    return "\u2581" * len(token) if token and not token.strip(" ") else token


def _byte_level(tokens: Sequence[str], meta: Mapping[str, Any], where: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    split = _split(meta)
    if split not in (*_SPLITS, *_BYTE_LEVEL):
        expected = f"one of {', '.join((*_BYTE_LEVEL, *_SPLITS))}"
        raise FormatError(message(f"{where} tokenizer.ggml.pre", got=repr(split), expected=expected, fix=_FIX))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ", 1)) for merge in meta.get("merges", [])]
    whole = split in _WITH_FIRST_TOKEN
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in _BYTE_LEVEL)
    if split in _SPLITS:
        first: Any = pre_tokenizers.Split(Regex(_SPLITS[split]), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    elif split == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    else:
        tokenizer.pre_tokenizer = byte_level
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(tokens: Sequence[str], meta: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = tokens[meta.get("unknown_token_id", 0)]
    merges = _merges(vocabulary, tokens, meta["scores"])
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    space, prefix = normalizers.Replace(" ", "\u2581"), meta.get("add_space_prefix", True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), space]) if prefix else space
    parts: list[Any] = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def _merges(vocabulary: Mapping[str, int], tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, the token of the highest score first.

    >>> _merges({"a": 0, "b": 1, "ab": 2, "abb": 3}, ["a", "b", "ab", "abb"], [0, -1, -3, -2])
    [('ab', 'b'), ('a', 'b')]
    """
    out = []
    for index in sorted(range(len(tokens)), key=lambda index: (-scores[index], index)):
        token = tokens[index]
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in pairs if left in vocabulary and right in vocabulary]
        out += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return out


def _add_special(tokenizer: Any, tokens: Sequence[str], meta: Mapping[str, Any]) -> None:
    """Tokens that a text may hold as such: control tokens, and those that the model's makers added."""
    from tokenizers import AddedToken

    kinds = meta.get("token_type", [])
    control = [token for token, kind in zip(tokens, kinds, strict=False) if kind in (_UNKNOWN, _CONTROL)]
    own = [token for token, kind in zip(tokens, kinds, strict=False) if kind == _OWN and token.strip("\u2581 \n\t")]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in own])


def _add_first(tokenizer: Any, tokens: Sequence[str], meta: Mapping[str, Any], *, first: bool) -> None:
    """What stands before and behind every text, where the file says so."""
    from tokenizers import processors

    begin = meta.get("bos_token_id") if meta.get("add_bos_token", first) else None
    end = meta.get("eos_token_id") if meta.get("add_eos_token", False) else None
    around = [(tokens[index], index) for index in (begin, end) if index is not None]
    if around:
        before, after = ([tokens[index]] if index is not None else [] for index in (begin, end))
        form = [*before, "$A", *after]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=form, pair=[*form, *(f"{part}:1" for part in [*before, "$B", *after])], special_tokens=around
        )

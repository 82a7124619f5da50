"""Prompts that fit: the longest line of a question's text is cut at its end; what is asked about it stays."""

from collections.abc import Callable

from share_jax.train.token_rows import Tokenizer


def fitted(build: Callable[[str], str], text: str, tokenizer: Tokenizer, most: int) -> str:
    """The prompt of a text, with the longest of the text's lines cut until it fits.

    Args:
        build: the prompt around a text.
        text: lines, such as a passage and a question.
        tokenizer: of the decoder.
        most: tokens that the prompt may have.

    Returns:
        `build` of what is left of the text; of "" where nothing fits, and that is then longer than `most`.
    """
    while text.strip() and (over := len(tokenizer.encode_batch([build(text)])[0]) - most) > 0:
        lines = text.split("\n")
        place = max(range(len(lines)), key=lambda number: len(lines[number]))
        (own,) = tokenizer.encode_batch([lines[place]], special=False)
        kept = tokenizer.decode(own[:-over]).rstrip("\ufffd")  # the end of a cut letter
        lines[place] = kept[: len(lines[place]) - 1]
        text = "\n".join(lines)
    return build(text)

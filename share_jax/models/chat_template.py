"""Conversations as one text, by the template that comes with a checkpoint.

A template is a program that somebody else wrote: it runs in Jinja's sandbox, in which it can change nothing.

Source: `transformers/utils/chat_template_utils.py` for what a template may rely on.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from share_jax.errors import InputError, message

Message = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant", "content": text}; further keys, such as tool calls, go to the template."""

DATE = datetime.datetime(2024, 7, 26)
"""What templates that ask for today's date are told, on any day, so that a task's prompts are those that it was learnt
from: the date that Llama's own templates write where they are told none."""


def render(template: str, messages: Sequence[Message], *, continues: bool = True, **names: Any) -> str:
    """The text of a conversation.

    Args:
        template: a Jinja template, as in `tokenizer_config.json`.
        messages: of the conversation, in order.
        continues: whether the text ends where the model's next message begins.
        **names: what else the template sees, such as `bos_token`, or `strftime_now` where today's date is wanted.

    Raises:
        InputError: the template is no valid one, or refuses the messages.

    >>> render("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", [{"role": "user", "content": "Hi"}])
    '<user>Hi'
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        made = _environment().from_string(template)
        names = {"tools": None, "documents": None, **names}
        return made.render(messages=list(messages), add_generation_prompt=continues, **names)
    except (TemplateError, TypeError, ValueError, KeyError, ArithmeticError, RecursionError) as error:
        got = " ".join(str(error).split())[:200] or type(error).__name__
        broken = isinstance(error, TemplateSyntaxError)
        fix = "take the template that the model came with" if broken else "check the messages' roles and their order"
        raise InputError(message("chat template", got=got, expected="a text", fix=fix)) from error


def _environment() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} ... {% endgeneration %} marks what the model says; here it is plain text."""

        tags: Any = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    def as_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = DATE.strftime
    return environment

"""Regular expressions of a file that is not trusted, matched as PEFT matches them, in bounded time.

Python's `re` backtracks: an expression such as `((a)+)+!` takes a time exponential in the length of a name, and nothing
stops it from within. What may take long is therefore matched by a Python of its own, which is ended when its time is
up. Expressions as people write them are matched at once.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from share_jax.errors import FormatError, message
from share_jax.storage.untrusted import shown

SECONDS = 3.0
"""How long all expressions of one file may take together."""
STEPS = 2e7
"""Steps of matching, estimated, up to which no process of its own is started; about a second."""
LENGTH = 2**16
"""Characters of one expression."""

_SKIPPED = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[a-zA-Z:=!<>-]*", re.DOTALL)
_FLAGS = re.compile(r"\s*\(\?[aimsux]+\)")
_CHILD = """
import json, re, sys
names, wanted = json.load(sys.stdin)
for place, (text, whole) in enumerate(wanted):
    print(place, flush=True)
    match = re.compile(text).fullmatch if whole else re.compile(text).match
    print(json.dumps([i for i, name in enumerate(names) if match(name)]), flush=True)
"""


class Expression(NamedTuple):
    """A regular expression, and whether it has to match the whole name or its beginning."""

    text: str
    whole: bool


def target_expression(text: str) -> Expression:
    """The expression of `target_modules` or `exclude_modules`, where they are text."""
    return Expression(text, True)


def rule_expression(rule: str) -> Expression:
    r"""The expression of a key of `rank_pattern` or `alpha_pattern`: the end of a name, from a dot or the beginning.

    Flags at the rule's beginning are those of the whole expression.

    >>> rule_expression("(?i)q_proj").text
    '(?i)(.*\\.)?(q_proj)$'
    """
    flags = _FLAGS.match(rule)
    head = flags[0].strip() if flags else ""
    return Expression(rf"{head}(.*\.)?({rule[flags.end() if flags else 0 :]})$", False)


def saved_expression(name: str) -> Expression:
    """The expression of an entry of `modules_to_save`: the module, and what lies within it."""
    return Expression(rf"(^|.*\.){name}($|\..*)", False)


def check_expression(text: str, label: str, expression: Expression) -> None:
    """Refuses what is no regular expression.

    Raises:
        FormatError: it is none, or too long.
    """
    try:
        if len(text) > LENGTH:
            raise re.error(f"{len(text)} characters")
        re.compile(expression.text)
    except (re.error, RecursionError, OverflowError) as e:
        raise FormatError(
            message(f"{label} {shown(text)}", got=shown(e), expected="a regular expression", fix="correct the file")
        ) from None


def matching(expressions: Sequence[Expression], names: Sequence[str]) -> list[frozenset[str]]:
    """The names that each expression matches.

    Args:
        expressions: valid ones; see `check_expression`.
        names: of modules.

    Raises:
        FormatError: matching takes longer than `SECONDS`; the expression is named.
    """
    length = max(map(len, names), default=0)
    if sum(_steps(each.text, length) for each in expressions) * len(names) > STEPS:
        return _matched_apart(expressions, names)
    found = []
    for text, whole in expressions:
        compiled = re.compile(text)
        match = compiled.fullmatch if whole else compiled.match
        found.append(frozenset(name for name in names if match(name)))
    return found


def _steps(text: str, length: int) -> float:
    r"""A bound on the steps of one match.

    Each quantifier of a character may try every length of a name, and each group one more way. A group that is repeated
    may nest them, which has no such bound; but `(.*\.)?` alone, with which rules begin.
    """
    plain = _SKIPPED.sub(lambda found: "(" if found[0][0] == "(" else "x", text).replace("(.*x)?", "*")
    if re.search(r"\)[*+?{]", plain):
        return float("inf")
    ways = 2.0 ** min(plain.count("("), 60) if "|" in plain else 1.0
    return ways * float(max(length, 1)) ** min(sum(plain.count(each) for each in "*+?{"), 20)


def _matched_apart(expressions: Sequence[Expression], names: Sequence[str]) -> list[frozenset[str]]:
    """As `matching`, by another process."""
    command = [sys.executable or "python3", "-I", "-S", "-c", _CHILD]
    given = json.dumps([list(names), expressions])
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS, check=False)
        lines, got = done.stdout.splitlines(), f"an expression on which Python's re ends with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output = error.output or b""
        lines = (output if isinstance(output, str) else output.decode()).splitlines()
        got = f"an expression that takes more than {SECONDS:g} s to match"
    if len(lines) == 2 * len(expressions):
        places: list[list[int]] = [json.loads(line) for line in lines[1::2]]
        return [frozenset(str(names[i]) for i in own) for own in places]
    place = int(lines[-1 if len(lines) % 2 else -2]) if lines else 0
    raise FormatError(
        message(f"regular expression {shown(expressions[place].text, 80)}", got=got,
             expected="one that matches at once",
             fix="name the modules themselves, as a list, in adapter_config.json")
    )  # fmt: skip

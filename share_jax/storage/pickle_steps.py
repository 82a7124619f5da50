"""The containers that a pickle describes, with nothing imported, called or executed.

The steps (opcodes) of a pickle are read one after the other, and only those that build numbers, texts, tuples, lists
and dicts are known. A step that would call something is recorded as a `Call`, if what it calls is one of `NAMES`.

Source: the steps as `pickletools` of Python lists them, protocols 2 to 5.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

from share_jax.errors import FormatError, message
from share_jax.storage.untrusted import shown

_STORAGES = tuple(
    f"{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
)
NAMES = frozenset(
    {("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")}
    | {("torch", name) for name in _STORAGES}
)
"""The only names that a pickle may mention."""


@dataclass(frozen=True)
class Global:
    """A name that is mentioned."""

    name: tuple[str, str]  # module, name


@dataclass(frozen=True)
class Call:
    """What a step would call."""

    name: tuple[str, str]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Stored:
    """A reference to something outside the pickle."""

    key: Any


class _Mark:
    """Where a container's items begin on the stack."""


def built_of(data: bytes, label: str) -> Any:
    """What the pickle describes: numbers, texts, containers, `Call` and `Stored`.

    Args:
        data: the pickle.
        label: for messages.

    Raises:
        FormatError: it is damaged, or it has a step or a name that tensors do not need.
    """
    machine = _Machine(label)
    try:
        for step, argument, _ in pickletools.genops(data):
            if step.name == "STOP":
                return machine.pop()
            machine.do(step.name, argument)
    except FormatError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError, UnicodeError) as e:
        raise machine.refusal(f"a damaged pickle ({shown(e, 80)})") from None
    raise machine.refusal("a pickle without an end")


class _Machine:
    """The stack and the memory of one reading."""

    def __init__(self, label: str):
        self.label = label
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def refusal(self, got: str) -> FormatError:
        expected = "a pickle of tensors alone: nothing else is read, and nothing is executed"
        return FormatError(message(self.label, got=got, expected=expected, fix="save the tensors as safetensors"))

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _Mark:
            raise ValueError("a mark in the place of a value")
        return value

    def since_mark(self) -> list[Any]:
        place = max(i for i, value in enumerate(self.stack) if value is _Mark)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def do(self, step: str, argument: Any) -> None:
        if step in _VALUES:
            self.stack.append(_VALUES[step] if argument is None else argument)
        elif step in _EMPTY:
            self.stack.append(_EMPTY[step]())
        elif step in ("PROTO", "FRAME"):
            return
        elif step in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif step == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif step in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif step in ("GLOBAL", "STACK_GLOBAL"):
            self.mention(argument)
        elif step == "BINPERSID":
            self.stack.append(Stored(self.pop()))
        elif step == "REDUCE":
            self.call()
        elif step == "BUILD":  # the attributes of an OrderedDict, such as PyTorch's `_metadata`
            if not isinstance(self.pop(), dict) or not isinstance(self.stack[-1], dict):
                raise self.refusal("attributes of an object")
        else:
            self.fill(step)

    def mention(self, argument: Any) -> None:
        if argument is None:
            name, module = self.pop(), self.pop()
        else:
            module, _, name = argument.partition(" ")
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in NAMES:
            raise self.refusal(f"the name {shown(f'{module}.{name}', 80)}")
        self.stack.append(Global((module, name)))

    def call(self) -> None:
        args, named = self.pop(), self.pop()
        if not isinstance(named, Global) or not isinstance(args, tuple):
            raise self.refusal("a call of something else")
        if named.name == ("collections", "OrderedDict"):
            if args:
                raise self.refusal("an OrderedDict with arguments")
            self.stack.append({})
        else:
            self.stack.append(Call(named.name, args))

    def fill(self, step: str) -> None:
        if step in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self.pop() for _ in range(int(step[-1]))]
            self.stack.append(tuple(reversed(items)))
        elif step == "TUPLE":
            self.stack.append(tuple(self.since_mark()))
        elif step in ("APPEND", "APPENDS"):
            items = [self.pop()] if step == "APPEND" else self.since_mark()
            self.container(list).extend(items)
        elif step in ("SETITEM", "SETITEMS"):
            items = list(reversed([self.pop(), self.pop()])) if step == "SETITEM" else self.since_mark()
            target = self.container(dict)
            for key, value in zip(items[::2], items[1::2], strict=True):
                if not isinstance(key, str | int):
                    raise self.refusal("a key that is neither a text nor a number")
                target[key] = value
        else:
            raise self.refusal(f"the step {step}")

    def container(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError("items of no container")
        return self.stack[-1]


_VALUES: dict[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _Mark, "BININT": None, "BININT1": None, "BININT2": None,
    "LONG1": None, "BINFLOAT": None, "BINUNICODE": None, "SHORT_BINUNICODE": None,
}  # fmt: skip
"""Steps that put a value on the stack: this one, or the one that they carry."""

_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}

"""Which modules PEFT creates under a configuration, and configurations under which it creates exactly those of a file.

PEFT says nothing of tensors whose module its configuration does not name: they are not loaded. Source: PEFT,
`tuners/tuners_utils.py` `check_target_module_exists` and `utils/other.py` `get_pattern_key`; before version 0.15 a
pattern had to match behind a dot, or be the module's whole name.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.formats.expressions import Expression, matching, saved_expression, target_expression
from share_jax.formats.peft_config import owner_of

T = TypeVar("T")

_WHICH = ("layers_to_transform", "layers_pattern", "exclude_modules")
"""What a configuration says, beside its targets, of which modules there are."""
_PATTERNS = ("rank_pattern", "alpha_pattern")
"""What PEFT asks for keys: empty, and not null, where there are none."""
PAIRS = 250_000
"""Rules times modules up to which short rules are tried."""


def created(config: Mapping[str, Any], modules: Iterable[str]) -> set[str]:
    """Those of the modules that PEFT creates under the configuration, if the model has them and they are linear.

    Raises:
        FormatError: an expression takes too long.
    """
    names = {module: owner_of(module) for module in modules}
    kept = set(names.values()) - _named(config.get("exclude_modules"), set(names.values()))
    kept -= saved_whole(config, kept)
    targets = config.get("target_modules")
    if targets == "all-linear":  # but for the model's output and its embeddings, which lie in none of its layers
        kept = {name for name in kept if any(part.isdecimal() for part in name.split("."))}
    elif targets is not None:
        found = _named(targets, kept)
        if not isinstance(targets, str):
            found = {name for name in found if name in targets} | _of_layers(config, found)
        kept = found
    return {module for module, name in names.items() if name in kept}


def which_modules(config: Mapping[str, Any]) -> list[Any]:
    """All that a configuration says of which modules there are; alike for configurations that say the same."""
    said = [config.get(key) for key in ("target_modules", *_WHICH)]
    return [sorted(map(str, value)) or None if isinstance(value, list) else value for value in said]


def saved_whole(config: Mapping[str, Any], modules: Iterable[str]) -> set[str]:
    """Those of the modules that `modules_to_save` names, or that lie within one that it names."""
    return _hit([saved_expression(name) for name in _texts(config.get("modules_to_save"))], modules)


def fitting_config(config: Mapping[str, Any], modules: Collection[str]) -> dict[str, Any]:
    """The configuration as PEFT loads it, with the modules themselves as targets if it would not create all of them."""
    plain = {key: {} if value is None and key in _PATTERNS else value for key, value in config.items()}
    return targeting(plain, modules) if left_out(plain, modules) else plain


def left_out(config: Mapping[str, Any], modules: Collection[str]) -> set[str]:
    """Those of the modules that PEFT would not create under the configuration; none where it targets parameters."""
    return set() if config.get("target_parameters") else set(modules) - created(config, modules)


def targeting(config: Mapping[str, Any], modules: Iterable[str]) -> dict[str, Any]:
    """The configuration under which PEFT creates exactly these modules."""
    out = {key: None if key in _WHICH else value for key, value in config.items()}
    return {**out, "target_modules": exact_expression({owner_of(module) for module in modules})}


def exact_expression(names: Iterable[str]) -> str:
    r"""A regular expression that matches these names and no other; a list of names would match their endings, too.

    >>> print(exact_expression(["h.0.q", "h.1.q", "h.0.v", "h.1.v", "lin"]))
    h\.(?:0|1)\.(?:q|v)|lin
    """
    names = sorted(names)
    if max((name.count(".") for name in names), default=0) > 100:
        return "|".join(map(re.escape, names))
    return "|".join(_branches([tuple(name.split(".")) for name in names]))


def _branches(names: Sequence[tuple[str, ...]]) -> list[str]:
    tails: dict[str, list[tuple[str, ...]]] = {}
    for first, *rest in names:
        tails.setdefault(first, []).append(tuple(rest))
    alike: dict[str, list[str]] = {}
    for first, rests in tails.items():
        inner = _branches([rest for rest in rests if rest])
        tail = rf"\.{_one_of(inner)}" if inner else ""
        alike.setdefault(f"(?:{tail})?" if inner and () in rests else tail, []).append(re.escape(first))
    return [_one_of(firsts) + tail for tail, firsts in alike.items()]


def _one_of(expressions: Sequence[str]) -> str:
    return expressions[0] if len(expressions) == 1 else f"(?:{'|'.join(expressions)})"


def rules_for(values: Mapping[str, T], common: T) -> dict[str, T]:
    r"""`rank_pattern`, or `alpha_pattern`, for modules with other values than the common one, for PEFT of any version.

    A module's whole name is a rule, if it matches no other module of them. Otherwise a rule looks back to the name's
    beginning: `^` there is never matched by older versions.

    >>> rules_for({"model.q": 4, "model.v": 8, "x.model.v": 4}, 4)
    {'(?<=^model\\.)v': 8}
    """
    other = {name: value for name, value in values.items() if value != common}
    plain = all(re.fullmatch(r"[\w.-]+", name) for name in other)
    if plain and len(other) * len(values) <= PAIRS and not any(_hits_another(rule, values) for rule in other):
        return other
    short = {name for name in other if "." not in name}
    out: dict[str, T] = {}
    for name, value in values.items():
        first, dot, rest = name.partition(".")
        if dot and (name in other or any(name.endswith(f".{each}") for each in short)):
            out[rf"(?<=^{re.escape(first)}\.){re.escape(rest)}"] = value
    return {**out, **{re.escape(name): other[name] for name in short}}


def _hits_another(rule: str, names: Iterable[str]) -> bool:
    match = re.compile(rf"(.*\.)?({rule})$").match
    return any(match(name) is not None and name != rule for name in names)


def with_owners_rank(adapter: Adapter) -> dict[str, Factors]:
    """The adapter, with zeros added so that modules of one owner have one rank: it has one in a configuration."""
    ranks: dict[str, int] = {}
    for name, factors in adapter.items():
        ranks[owner_of(name)] = max(ranks.get(owner_of(name), 0), factors.rank)
    return {name: _widened(factors, ranks[owner_of(name)]) for name, factors in adapter.items()}


def _widened(factors: Factors, rank: int) -> Factors:
    if factors.rank == rank:
        return factors
    more = ((0, 0), (0, rank - factors.rank))
    return Factors(np.pad(factors.lora_a, more), np.pad(factors.lora_b, more[::-1]), factors.scale)


def _named(value: Any, names: set[str]) -> set[str]:
    """Those of the names that an expression matches, or that a list holds or holds the ending of."""
    if isinstance(value, str):
        return _hit([target_expression(value)], names) if value else set()
    ends = set(_texts(value))
    return {name for name in names if any(end in ends for end in _endings(name))}


def _endings(name: str) -> Iterable[str]:
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _of_layers(config: Mapping[str, Any], names: set[str]) -> set[str]:
    """Those of the modules that lie in `layers_to_transform`: the first number behind `layers_pattern` tells."""
    wanted = config.get("layers_to_transform")
    if wanted is None or wanted == []:
        return names
    layers = {str(layer) for layer in (wanted if isinstance(wanted, list) else [wanted])}
    patterns = _texts(config.get("layers_pattern"))
    if all(re.fullmatch(r"\w+", pattern) for pattern in patterns):
        return {name for name in names if _layer_of(name.split("."), patterns) in layers}
    one_of = "|".join(map(re.escape, sorted(layers)))
    return _hit([Expression(rf"(?:^|.*?\.){pattern}\.(?:{one_of})\.", False) for pattern in patterns], names)


def _layer_of(parts: Sequence[str], patterns: Sequence[str]) -> str | None:
    for pattern in patterns or [None]:
        for i in range(1 if pattern else 2, len(parts) - 1):
            if parts[i].isdecimal() and (pattern is None or parts[i - 1] == pattern):
                return str(int(parts[i]))
    return None


def _hit(expressions: Sequence[Expression], names: Iterable[str]) -> set[str]:
    return set().union(*matching(expressions, sorted(names))) if expressions else set()


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []

"""What a PEFT `adapter_config.json` says of a LoRA adapter, and what of it is not supported."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats.expressions import (
    Expression,
    check_expression,
    matching,
    rule_expression,
    saved_expression,
    target_expression,
)
from share_jax.formats.foreign_folders import foreign_config
from share_jax.formats.other_kinds import METHODS
from share_jax.storage.untrusted import shown

_REFUSED = {
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "layer_replication": "layer_replication",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
DEFAULT = 8
"""The rank, and alpha, of a configuration that does not have it."""
MOST = 1e30
"""What is no smaller is no alpha, and no scale."""
_BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
_HARMLESS_CONFIGS = ("eva_config", "corda_config", "lora_ga_config", "loftq_config", "runtime_config",
                     "velora_config", "megatron_config")  # fmt: skip
"""Sub-configurations of training or of an initialisation that `init_lora_weights` decides on."""


@dataclass(frozen=True)
class LoraSettings:
    """The part of the configuration that gives each module its rank and scale.

    Example:
        >>> settings = parse_config({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": True}, "adapter")
        >>> round(settings.scale_of("layers.0.q_proj"), 4)  # alpha / sqrt(r)
        5.6569
    """

    rank: int
    alpha: float
    use_rslora: bool
    rank_rules: Mapping[str, int]  # regular expression over module names -> rank
    alpha_rules: Mapping[str, float]
    targets: str | tuple[str, ...] | None  # a regular expression, or names and name endings
    parameters: tuple[str, ...] = ()  # names, or name endings, of parameters that are targets, such as experts
    use_dora: bool = False  # each module has a magnitude vector
    lora_bias: bool = False  # each lora_B has a bias
    saved: tuple[str, ...] = ()  # modules that are saved whole: names, or expressions
    matched: Mapping[Expression, Mapping[str, bool]] = field(default_factory=dict)  # of the names of `of_modules`

    def of_modules(self, modules: Iterable[str]) -> "LoraSettings":
        """The same settings, with every expression matched to these modules, and their parameters, at once.

        Raises:
            FormatError: an expression takes too long.
        """
        owners = {owner_of(module) for module in modules}
        names = sorted(owners.union(*map(self.parameters_of, owners)))
        each = [rule_expression(rule) for rule in dict.fromkeys((*self.rank_rules, *self.alpha_rules))]
        each += [target_expression(self.targets)] if isinstance(self.targets, str) else []
        found = zip(each, matching(each, names), strict=True)
        return replace(self, matched={one: {name: name in hit for name in names} for one, hit in found})

    def rank_of(self, module: str) -> int:
        """The rank of a module, `rank_pattern` first."""
        return self.rank_rules.get(self._rule_for(self.rank_rules, module), self.rank)

    def alpha_of(self, module: str) -> float:
        """The alpha of a module, `alpha_pattern` first."""
        return self.alpha_rules.get(self._rule_for(self.alpha_rules, module), self.alpha)

    def scale_of(self, module: str) -> float:
        """alpha/r, or alpha/sqrt(r) with rsLoRA: the update is `scale * lora_a @ lora_b`."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)

    def targets_module(self, module: str) -> bool:
        """Whether `target_modules` names the module."""
        module = owner_of(module)
        if self.targets is None or self.targets == "all-linear":
            return True
        if isinstance(self.targets, str):
            return self._matches(target_expression(self.targets), module)
        return any(_ends(module, t) for t in self.targets)

    def parameters_of(self, module: str) -> tuple[str, ...]:
        """The parameters of a module that `target_parameters` names, by their whole names."""
        names = (f"{module}.{target.rpartition('.')[2]}" for target in self.parameters)
        return tuple(sorted({name for name in names if any(_ends(name, target) for target in self.parameters)}))

    def _rule_for(self, rules: Iterable[str], module: str) -> str:
        """The first rule that matches the name's end, from a dot or the beginning; else the name, as in PEFT."""
        name = owner_of(module)
        return next((rule for rule in rules if self._matches(rule_expression(rule), name)), name)

    def _matches(self, expression: Expression, name: str) -> bool:
        known = self.matched.get(expression, {})
        return known[name] if name in known else name in matching((expression,), (name,))[0]


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def owner_of(module: str) -> str:
    """The module that a configuration speaks of: PEFT gives torch's MultiheadAttention a second pair, on its out_proj.

    >>> owner_of("layers.0.self_attn.base_layer.out_proj"), owner_of("layers.0.self_attn")
    ('layers.0.self_attn', 'layers.0.self_attn')
    """
    return module.removesuffix(".base_layer.out_proj")


def parse_config(config: Mapping[str, Any], label: str) -> LoraSettings:
    """Reads a configuration.

    Args:
        config: what `adapter_config.json` holds.
        label: what the configuration is of, for messages.

    Raises:
        FormatError: a value is of the wrong kind, or something is asked for that is not supported; it is named.

    Example:
        >>> config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "rank_pattern": {"v_proj": 4}}
        >>> settings = parse_config(config, "adapter")
        >>> settings.rank_of("layers.0.q_proj"), settings.rank_of("layers.0.v_proj")
        (8, 4)
        >>> parse_config({"peft_type": "LORA", "r": 0}, "adapter")
        Traceback (most recent call last):
        share_jax.errors.FormatError: adapter r: got 0, expected a whole number of at least 1; correct the file
    """
    _refuse_unsupported(config, label)
    rank = config.get("r", DEFAULT)
    least = 0 if config.get("rank_pattern") else 1  # of modules that no rule names
    if type(rank) is not int or not least <= rank <= 2**20:
        raise _bad(label, "r", rank, "a whole number of at least 1")
    alpha = config.get("lora_alpha", DEFAULT)
    if not is_scale(alpha):
        raise _bad(label, "lora_alpha", alpha, "a number")
    use_rslora = config.get("use_rslora") or False
    if not isinstance(use_rslora, bool):
        raise _bad(label, "use_rslora", use_rslora, "true or false")
    rank_rules = _rules(config, "rank_pattern", label)
    for rule, value in rank_rules.items():
        if type(value) is not int or not 1 <= value <= 2**20:
            raise _bad(label, f"rank_pattern {shown(rule)}", value, "a whole number of at least 1")
    targets = _targets(config, label)
    alpha_rules = {rule: float(value) for rule, value in _rules(config, "alpha_pattern", label).items()}
    parameters = config.get("target_parameters") or []
    if not isinstance(parameters, list) or not all(isinstance(name, str) for name in parameters):
        raise _bad(label, "target_parameters", parameters, "a list of texts")
    for key in ("use_dora", "lora_bias"):
        if not isinstance(config.get(key) or False, bool):
            raise _bad(label, key, config[key], "true or false")
    dora, bias = (bool(config.get(key)) for key in ("use_dora", "lora_bias"))
    saved, named = _saved(config, label), tuple(parameters)
    return LoraSettings(rank, float(alpha), use_rslora, rank_rules, alpha_rules, targets, named, dora, bias, saved)


def _refuse_unsupported(config: Mapping[str, Any], label: str) -> None:
    kind = config.get("peft_type")
    if kind is None and (other := foreign_config(config)) is not None:
        raise FormatError(message(label, got=other[0], expected="a PEFT adapter", fix=other[1]))
    if kind != "LORA":
        method = METHODS.get(kind) if isinstance(kind, str) else None
        got = shown(repr(kind), 60) + (f": {method}, which is no low-rank pair" if method else "")
        fix = "give a LoRA adapter, or serve this one as a PEFT folder of its own"
        raise FormatError(message(f"{label} peft_type", got=got, expected="'LORA'", fix=fix))
    for key, value in config.items():
        if not value:
            continue
        unknown = key.startswith("use_") and value is True and key not in ("use_rslora", "use_dora")
        unknown |= key.endswith("_config") and key not in _HARMLESS_CONFIGS
        if key in _REFUSED or unknown:
            raise FormatError(
                message(
                    f"{label} {shown(key)}",
                    got=shown(value, 60),
                    expected=f"no {_REFUSED.get(key, 'unknown feature')}: it is not supported",
                    fix="leave this adapter out, and serve it as a PEFT folder of its own",
                )
            )
    if config.get("enable_lora"):
        raise FormatError(
            message(f"{label} enable_lora", got=f"{shown(config['enable_lora'], 60)}: a fused layer of PEFT before 0.3",
                 expected="one pair per layer", fix="merge it into its base model with the PEFT that wrote it")
        )  # fmt: skip
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.startswith("loftq"):
        raise FormatError(
            message(f"{label} init_lora_weights", got="'loftq': the pair is of a base model that LoftQ quantised",
                 expected="an adapter of an unchanged base model",
                 fix="serve it on its own base model, or merge it into that one (merge_and_unload)")
        )  # fmt: skip
    if isinstance(init, str) and init.startswith(_BASE_CHANGING):
        raise FormatError(
            message(
                f"{label} init_lora_weights",
                got=shown(repr(init), 60),
                expected="an initialisation that leaves the base model as it is",
                fix="convert the adapter to plain LoRA first (PEFT: path_initial_model_for_weight_conversion)",
            )
        )


def _rules(config: Mapping[str, Any], key: str, label: str) -> dict[str, Any]:
    rules = config.get(key) or {}
    if not isinstance(rules, dict):
        raise _bad(label, key, rules, "a map")
    for rule, value in rules.items():
        if not is_scale(value):
            raise _bad(label, f"{key} {shown(rule)}", value, "a number")
        check_expression(rule, f"{label} {key}", rule_expression(rule))
    return dict(rules)


def _targets(config: Mapping[str, Any], label: str) -> str | tuple[str, ...] | None:
    value = config.get("target_modules")
    if value is None:
        return None
    if isinstance(value, str):
        check_expression(value, f"{label} target_modules", target_expression(value))
        return value
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    raise _bad(label, "target_modules", value, "text or a list of texts")


def _saved(config: Mapping[str, Any], label: str) -> tuple[str, ...]:
    value = config.get("modules_to_save") or []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _bad(label, "modules_to_save", value, "a list of texts")
    for name in names:
        check_expression(name, f"{label} modules_to_save", saved_expression(name))
    return tuple(names)


def is_scale(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that an alpha or a scale may be; a number of NumPy or JAX is one, too.

    >>> is_scale(16), is_scale(np.float32(8)), is_scale(True), is_scale(float("nan"))
    (True, True, False, False)
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "dtype"):
        value = np.asarray(value).item()
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def _bad(label: str, key: str, got: Any, expected: str) -> FormatError:
    return FormatError(message(f"{label} {key}", got=shown(repr(got), 60), expected=expected, fix="correct the file"))

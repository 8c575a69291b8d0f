"""Turns the operators of a claim rule into one function, once. There is no expression language and no pattern.

A condition returns True, False, or None if it does not apply: the claim is missing, or has another type than the operand. None
never grants access, and `not` keeps None: a claim of a wrong type cannot pass a negation.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

Condition = Callable[[Any], bool | None]


def condition(operators: Mapping[str, Any]) -> Condition:
    """One condition for all of these operators: operator -> operand, with the names of the configuration."""
    parts = tuple(_OPERATORS[name](operand) for name, operand in operators.items())

    def every(claim: Any) -> bool | None:
        answers = [part(claim) for part in parts]
        return False if False in answers else None if None in answers else True

    return parts[0] if len(parts) == 1 else every


def _scalar(value: Any) -> tuple[type, Any] | None:
    """A text, number or boolean with its type, since JSON's `1` is not `true`; None for anything else."""
    kind = type(value)
    if kind is int:
        return float, value
    return (kind, value) if kind in (str, bool, float) else None


def _in(operand: Collection[Any]) -> Condition:
    wanted = frozenset(map(_scalar, operand))
    kinds = {one[0] for one in wanted if one is not None}

    def one_of(claim: Any) -> bool | None:
        given = _scalar(claim)
        return None if given is None or given[0] not in kinds else given in wanted

    return one_of


def _prefix(operand: str) -> Condition:
    return lambda claim: claim.startswith(operand) if isinstance(claim, str) else None


def _among(operand: Collection[Any], enough: Callable[[frozenset[Any], frozenset[Any]], bool]) -> Condition:
    """A condition about the items of a list; a single value counts as a list of one."""
    wanted = frozenset(map(_scalar, operand))
    kinds = {one[0] for one in wanted if one is not None}

    def among(claim: Any) -> bool | None:
        given = frozenset(map(_scalar, claim if isinstance(claim, list) else [claim]))
        if enough(wanted, given):
            return True
        return None if any(one is None or one[0] not in kinds for one in given) else False

    return among


def _any(operand: Collection[Any]) -> Condition:
    return _among(operand, lambda wanted, given: not wanted.isdisjoint(given))


def _all(operand: Collection[Any]) -> Condition:
    return _among(operand, frozenset.issubset)


def _exists(operand: bool) -> Condition:
    return lambda claim: (claim is not None) is operand


def _not(operand: Mapping[str, Any]) -> Condition:
    inner = condition(operand)

    def negated(claim: Any) -> bool | None:
        answer = inner(claim)
        return None if answer is None else not answer

    return negated


_OPERATORS: dict[str, Callable[[Any], Condition]] = {
    "equals": lambda operand: _in([operand]),
    "in": _in,
    "prefix": _prefix,
    "contains": lambda operand: _all([operand]),
    "any": _any,
    "all": _all,
    "exists": _exists,
    "not": _not,
}

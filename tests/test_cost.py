"""No request costs more than its budget (tests/cost.json). No test here measures seconds: see tests/cost.py."""

import json
import math
import os
import subprocess
import sys

import pytest

from tests import cost

MORE_CALLS = 1.1
"""Allowed above the budget's calls, so that you can split a function for its readers."""
NOISE = 1.5
"""Allowed above the budget's ratio, for the least of TRIES. The ratio differs between processors and builds of Python, and other
programs that fill the caches raise it by up to 20 %. It finds what a count of calls cannot: work inside one call."""
TRIES = 6
UPDATE = "if it is worth that: make cost WRITE=--write (without WRITE it lists the calls)"


@pytest.fixture(scope="module")
def budget() -> dict[str, cost.Cost]:
    budgets: dict[str, dict[str, cost.Cost]] = json.loads(cost.BUDGET.read_text())
    if cost.VERSION not in budgets:
        missing = f"no budget for Python {cost.VERSION}: make cost WRITE=--write"
        if os.environ.get("JWT_SIDECAR_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return budgets[cost.VERSION]


@pytest.fixture(scope="module")
def counted() -> dict[str, cost.Cost]:
    return cost.count()[0]


def over(name: str, figures: cost.Cost, budget: dict[str, cost.Cost], noise: float = 1.0) -> list[str]:
    """The figures of a kind of request that exceed its budget."""
    return [
        f"{name}: {figure:g} {what}, allowed are {budget[name][what] * noise:.4g}"
        for what, figure in figures.items()
        if figure > budget[name][what] * noise
    ]


def test_every_kind_of_request_has_a_budget(budget: dict[str, cost.Cost]) -> None:
    assert budget.keys() == cost.KINDS.keys()


@pytest.mark.parametrize("kind", cost.KINDS)
def test_no_request_makes_more_calls_than_its_budget(
    kind: str, counted: dict[str, cost.Cost], budget: dict[str, cost.Cost]
) -> None:
    if found := over(kind, counted[kind], budget, MORE_CALLS):
        pytest.fail("; ".join([*found, UPDATE]))


def compared() -> dict[str, cost.Cost]:
    """The ratios, measured in a separate process: the heap of the whole suite slows some requests more than others."""
    command = [sys.executable, "-m", "tests.cost", "--compare"]
    ratios: dict[str, cost.Cost] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return ratios


def test_no_request_exceeds_its_ratio_to_a_constant_answer(budget: dict[str, cost.Cost]) -> None:
    least: dict[str, float] = {}
    for _ in range(TRIES):
        for kind, ratio in compared().items():
            least[kind] = min(ratio[cost.RATIO], least.get(kind, math.inf))
        found = [line for kind, ratio in least.items() for line in over(kind, {cost.RATIO: ratio}, budget, NOISE)]
        if not found:
            return
    pytest.fail("; ".join([*found, UPDATE]))

"""A claim as a predicate over means, and its test. S seeds, Q queries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from leadkit.results import paper
from leadkit.results.comparable import MEASURE
from leadkit.results.statistics import Estimate, crossed

# A mean by the name of its experiment, a number, or a difference of two sides.
Side: TypeAlias = "str | float | Pair"
Pair: TypeAlias = "tuple[Side, Side]"  # the first is the greater
Way = tuple[Pair, ...]

PAPER_NAMES = {"RR@10": "MRR@10", "AP@1000": "MAP@1k", "R@1000": "R@1k"}


def names(side: Side) -> Iterator[str]:
    """The experiments of a side, in their order."""
    if isinstance(side, str):
        yield side
    elif isinstance(side, tuple):
        for part in side:
            yield from names(part)


def value(side: Side, means: Mapping[str, Any]) -> Any:
    """A side, of means or of arrays of one shape by experiment."""
    if isinstance(side, str):
        return means[side]
    if isinstance(side, tuple):
        first, second = side
        return value(first, means) - value(second, means)
    return side


@dataclass(frozen=True)
class Claim:
    """In at least one of the `ways`, the first side of every pair is the greater.

    "A > B" is one way of one pair, "A beats all others" one way of several pairs, "the best K is 5
    or 6" two ways of four pairs. "A is within 0.5 points of B" is one way of the pairs
    0.5 > A - B and A - B > -0.5.

    table: of LEAD's paper, or the other method: it has the paper's numbers.
    family: the claims that share Holm's correction.
    measure: what is compared, as ir_measures names it.
    sized: whether the size of the paper's effect means something; for a limit it does not.
    """

    id: str
    table: int | str
    sentence: str
    ways: tuple[Way, ...]
    family: str = ""
    measure: str = MEASURE
    sized: bool = True

    @property
    def experiments(self) -> list[str]:
        every = [name for way in self.ways for pair in way for name in names(pair)]
        return list(dict.fromkeys(every))

    def statistic(self, means: Mapping[str, Any]) -> Any:
        r"""By how much the claim is true of these means, numbers or arrays of one shape.

        Positive exactly where it is true:

        $$T = \max_{w \in \mathrm{ways}} \; \min_{(a, b) \in w} \; (\mu_a - \mu_b)$$
        """
        weakest = [np.min([value(pair, means) for pair in way], axis=0) for way in self.ways]
        return np.max(weakest, axis=0)

    def paper(self, collection: str = "MS-Pas", measure: str = "") -> float:
        """The statistic of the paper's own numbers, NaN where its table lacks them.

        measure: as the paper names it; by default the claim's.
        """
        column = (collection, measure or PAPER_NAMES[self.measure])
        means = {name: self._published(name, column) for name in self.experiments}
        return float(self.statistic(means))

    def _published(self, experiment: str, column: tuple[str, str]) -> float:
        """The paper's mean, from the claim's table or from Table 3."""
        for rows in (paper.TABLES[self.table], paper.TABLES[3]):
            if experiment in rows.index and column in rows:
                return float(rows.loc[experiment, column])
        return np.nan

    def effect(self) -> float:
        """The size of the paper's effect, NaN where it has none that ours is compared with."""
        effect = self.paper()
        return effect if self.sized and effect > 0 else np.nan

    def test(self, values: Mapping[str, np.ndarray]) -> "ClaimTest":
        """Its test from values (S, Q) of each experiment."""
        ways = tuple(tuple(crossed(value(pair, values)) for pair in way) for way in self.ways)
        means = {name: each.mean() for name, each in values.items()}
        return ClaimTest(float(self.statistic(means)), len(next(iter(values.values()))), ways)


@dataclass(frozen=True)
class ClaimTest:
    """The crossed tests of a claim's pairs, put together: p and interval are one test.

    A way of J pairs is shown when its weakest pair is (intersection-union test: Berger, 1982) and
    refuted when one pair is (Bonferroni: J times the smallest p). A claim of A ways holds when one
    way is shown (Bonferroni: A times) and fails when all are refuted.

    Without ways there was nothing to test: it is false, and its numbers are NaN.
    """

    difference: float = np.nan
    seeds: int = 0
    ways: tuple[tuple[Estimate, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ways)

    def p(self, value: float = 0.0) -> float:
        """Two-sided, against a difference of this value."""
        if not self:
            return np.nan
        shown = [max(pair.p_above(value) for pair in way) for way in self.ways]
        refuted = [len(way) * min(pair.p_below(value) for pair in way) for way in self.ways]
        return min(1.0, 2 * len(self.ways) * min(shown), 2 * max(refuted))

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The values that the test does not reject: p(value) < alpha exactly outside."""
        if not self:
            return np.nan, np.nan
        shown = alpha / 2 / len(self.ways)
        low = max(min(pair.low(shown) for pair in way) for way in self.ways)
        high = max(min(pair.high(alpha / 2 / len(way)) for pair in way) for way in self.ways)
        return low, high

    def visible(self, alpha: float = 0.05) -> float:
        """The smallest effect that is seen with 80% power at this two-sided level.

        It is that of the pair that is hardest to see, in the best way.
        """
        shown = alpha / 2 / max(1, len(self.ways))
        each = [max(pair.visible(shown) for pair in way) for way in self.ways]
        return min(each, default=np.nan)


def pair(first: str, second: str) -> Claim:
    """One experiment beats another; `paper` knows it where both are rows of Table 3."""
    return Claim(f"{first} - {second}", 3, f"{first} > {second}", (((first, second),),))


def claim_of(id: str, table: int | str, sentence: str, *ways: Way) -> Claim:
    """A claim of a table of the paper, or of another method, and of that family."""
    family = table if isinstance(table, str) else f"Table {table}"
    return Claim(id.lower(), table, sentence, ways, family)


def beats(name: Side, *others: Side) -> Way:
    """One side is greater than each of the others."""
    return tuple((name, other) for other in others)


def rising(rows: Sequence[Side]) -> Way:
    """Each row is better than the one before it."""
    return tuple(zip(rows[1:], rows[:-1], strict=True))

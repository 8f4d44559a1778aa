"""What LEAD's paper claims, and PROD's and MTA4DPR's, as predicates over MRR@10.

S seeds, Q queries.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from leadkit.experiments.rows import TEACHERS
from leadkit.results import paper
from leadkit.results.statistics import crossed_t_test

Pair = tuple[str, str]  # of experiments: the first has the higher MRR@10
Way = tuple[Pair, ...]


@dataclass(frozen=True)
class Claim:
    """In at least one of the `ways`, the first experiment of every pair has the higher MRR@10.

    "A > B" is one way of one pair, "A beats all others" one way of several pairs, "the best K is 5
    or 6" two ways of four pairs.
    """

    id: str
    table: int | str  # of LEAD's paper, or the other method
    sentence: str
    ways: tuple[Way, ...]

    @property
    def experiments(self) -> list[str]:
        names = [name for way in self.ways for pair in way for name in pair]
        return list(dict.fromkeys(names))

    def statistic(self, means: Mapping[str, float | np.ndarray]) -> np.ndarray:
        r"""By how much the claim is true of these MRR@10, numbers or arrays of one shape.

        Positive exactly where it is true:

        $$T = \max_{w \in \mathrm{ways}} \; \min_{(a, b) \in w} \; (\mu_a - \mu_b)$$
        """
        weakest = []
        for way in self.ways:
            differences = [np.subtract(means[a], means[b]) for a, b in way]
            weakest.append(np.min(differences, axis=0))
        return np.max(weakest, axis=0)

    def paper(self, collection: str = "MS-Pas", measure: str = "MRR@10") -> float:
        """The statistic of the paper's own numbers, NaN where its table lacks them."""
        column = paper.TABLES[self.table].get((collection, measure))
        return np.nan if column is None else float(self.statistic(column.reindex(self.experiments)))

    def p_value(self, values: Mapping[str, np.ndarray]) -> float:
        """Two-sided p against T = 0 from values (S, Q) of each experiment, S > 1.

        Each pair is judged by a `crossed_t_test`. A way is shown when its weakest pair is
        (intersection-union test: Berger, 1982) and refuted when one of its J pairs is (Bonferroni:
        J times the smallest p). The claim holds when one of its A ways is shown (Bonferroni: A
        times) and fails when all are refuted.
        """
        tests = [
            np.array([crossed_t_test(values[a] - values[b]) for a, b in way]) for way in self.ways
        ]  # A x (J, 2)
        holds = len(tests) * min(pairs[:, 0].max() for pairs in tests)
        fails = max(len(pairs) * pairs[:, 1].min() for pairs in tests)
        return min(1.0, 2 * min(holds, fails))


def pair(first: str, second: str) -> Claim:
    """One experiment beats another; `paper` knows it where both are rows of Table 3."""
    return Claim(f"{first} - {second}", 3, f"{first} > {second}", (((first, second),),))


def _claim(id: str, table: int | str, sentence: str, *ways: Way) -> Claim:
    return Claim(id.lower(), table, sentence, ways)


def _beats(name: str, *others: str) -> Way:
    return tuple((name, other) for other in others)


_KS = ("K=1", "K=2", "K=3", "K=4", "CB LEAD", "K=6")
_ITERATIONS = tuple(f"MTA4DPR iteration {i}" for i in (1, 2, 3))
_STEPS = ("PROD* 12DE", "PROD* 12CB", "PROD* 12CE")
CLAIMS = (
    _claim(
        "larger-pair",
        1,
        "the larger pair, 24CB -> 12DE, beats the smaller (Tables 1, 2)",
        _beats("larger LEAD", "CB LEAD"),
    ),
    *(
        _claim(
            f"{t}-lead-student", 3, f"{t} teacher: LEAD > student", _beats(f"{t} LEAD", "student")
        )
        for t in TEACHERS
    ),
    *(
        _claim(f"{t}-lead-rd", 3, f"{t} teacher: LEAD > RD", _beats(f"{t} LEAD", f"{t} RD"))
        for t in TEACHERS
    ),
    *(
        _claim(f"{t}-rd-fd", 3, f"{t} teacher: RD > FD", _beats(f"{t} RD", f"{t} FD"))
        for t in TEACHERS
    ),
    _claim(
        "best-teacher",
        3,
        "CB is the best teacher for LEAD",
        _beats("CB LEAD", "DE LEAD", "CE LEAD"),
    ),
    # a way for each teacher s that may be the strongest and each t whose student may be better
    _claim(
        "strongest-teacher",
        3,
        "the strongest teacher does not give the best student",
        *(
            _beats(f"{s} teacher", *(f"{o} teacher" for o in TEACHERS if o != s))
            + _beats(f"{t} LEAD", f"{s} LEAD")
            for s in TEACHERS
            for t in TEACHERS
            if t != s
        ),
    ),
    _claim("worst-k", 4, "K = 1 is the worst", tuple((k, "K=1") for k in _KS[1:])),
    _claim("best-k", 4, "the best K is 5 or 6", *(_beats(k, *_KS[:4]) for k in _KS[4:])),
    *(
        _claim(f"random-{name}", 5, f"Random > {name}", _beats("CB LEAD", name))
        for name in ("Weighted", "Last", "Skip")
    ),
    _claim(
        "joint",
        6,
        "LEAD > LEAD without joint training",
        _beats("CB LEAD", "without joint training"),
    ),
    _claim(
        "re-weighting",
        6,
        "LEAD > LEAD without re-weighting",
        _beats("CB LEAD", "without re-weighting"),
    ),
    # (LEAD - without re-weighting) - (LEAD - without joint training): LEAD cancels
    _claim(
        "second-drop",
        6,
        "re-weighting counts for more than joint training",
        _beats("without joint training", "without re-weighting"),
    ),
    _claim(
        "re-weighting-rd",
        6,
        "LEAD without re-weighting > RD",
        _beats("without re-weighting", "CB RD"),
    ),
    *(
        _claim(f"linear-{m}", 7, f"a linear layer lowers {m}", _beats(f"CB {m}", f"linear {m}"))
        for m in ("RD", "FD", "LEAD")
    ),
    _claim(
        "linear-best",
        7,
        "LEAD + linear is the best of the three",
        _beats("linear LEAD", "linear RD", "linear FD"),
    ),
    _claim(
        "best-start",
        8,
        "bottlenecked pre-training is the best start",
        _beats("bottlenecked start", "masked LM start", "CB LEAD"),
    ),
    _claim(
        "prod-steps",
        9,
        "PROD* improves at each step",
        tuple(zip(_STEPS, ("student", *_STEPS[:2]), strict=True)),
    ),
    _claim(
        "prod-lead",
        9,
        "PROD* + LEAD > PROD* at each step",
        tuple((step.replace("*", "* + LEAD"), step) for step in _STEPS),
    ),
    *(
        _claim(
            f"{t}-after",
            10,
            f"the {t} teacher improves after LEAD",
            _beats(f"{t} teacher after LEAD", f"{t} teacher"),
        )
        for t in TEACHERS
    ),
    _claim("prod-student", "PROD", "PROD > student", _beats("PROD", "student")),
    _claim(
        "prod-direct",
        "PROD",
        "three teachers in turn > the strongest at once, as long",
        _beats("PROD stage 3", "PROD direct"),
    ),
    _claim("prod-data", "PROD", "the data stage adds", _beats("PROD", "PROD stage 3")),
    _claim(
        "assistants",
        "MTA4DPR",
        "with assistants > without",
        _beats("MTA4DPR iteration 3", "MTA4DPR without assistants"),
    ),
    _claim(
        "iterations",
        "MTA4DPR",
        "a later iteration is better",
        tuple(zip(_ITERATIONS[1:], _ITERATIONS[:2], strict=True)),
    ),
    # the authors' future work
    _claim(
        "assistants-lead",
        "MTA4DPR",
        "layer features add",
        _beats("MTA4DPR + LEAD", "MTA4DPR iteration 3"),
    ),
)

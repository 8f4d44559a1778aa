"""The checks of lesson 07, ablations."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations

import numpy as np
import torch
from scipy.stats import norm, ttest_ind, ttest_rel

from leadkit import losses
from leadkit.lessons.exercises.answers import (
    NOT_YET,
    Wrong,
    blank,
    exercise,
    judge,
    some_names,
)
from leadkit.lessons.exercises.full_training import points


@exercise(lesson=7, number=1, grade="medium")
def released_parts(answer: object) -> None:
    """Which parts of LEAD's loss change with variant="released".

    answer: tau_d, 1 and 2 -> the names of the parts whose values change.
    """
    draw, parts = torch.Generator().manual_seed(7), ("layer", "response", "teacher", "student")
    student, teacher, student_final, teacher_final = (
        torch.randn(shape, generator=draw).double()
        for shape in ((3, 4, 6), (3, 4, 6), (4, 6), (4, 6))
    )

    def changed(tau_d: float) -> set[str]:
        positive = torch.zeros(4, dtype=torch.long)
        scores = student, teacher, student_final, teacher_final
        ours, theirs = (
            losses.lead_loss(*scores, positive, tau_d=tau_d, variant=variant)
            for variant in losses.VARIANTS
        )
        values = {part: (getattr(ours, part), getattr(theirs, part)) for part in parts}
        return {part for part, pair in values.items() if not torch.isclose(*pair)}

    if blank(answer) or isinstance(answer, Mapping) and any(map(blank, answer.values())):
        raise Wrong(NOT_YET)
    if not isinstance(answer, Mapping) or set(answer) != {1, 2}:
        raise Wrong("a dictionary from each tau_d, 1 and 2, to a set of parts is wanted")
    for tau_d, named in answer.items():
        here = f"at tau_d = {tau_d}"
        chosen = some_names(here, named, parts)
        if hard := sorted({"teacher", "student"} & chosen):
            raise Wrong(
                f"{here} you name {hard[0]!r}: no temperature and no layer weight enters a hard "
                "loss"
            )
        if more := sorted(chosen - changed(tau_d)):
            raise Wrong(
                f"{here} you name {more[0]!r}: what does it change to divide scores by this "
                "temperature?"
            )
        if changed(tau_d) - chosen:
            raise Wrong(
                f"{here} a part is missing: besides the temperature, the weights of the layers "
                "are others"
            )


@exercise(lesson=7, number=2, grade="medium")
def equal_things(answer: object) -> None:
    """How much seeds of the same student differ.

    answer: the largest difference in points, and the number of pairs of seeds with p <= 0.05.
    """
    values = points("student", "first-classroom")
    means, pairs = values.mean(1), list(combinations(values, 2))

    def counted(test: Callable) -> int:
        return sum(test(a, b).pvalue <= 0.05 for a, b in pairs)

    apart, count = np.ptp(means), counted(ttest_rel)
    mistakes: dict[str, Callable] = {
        "the difference is wanted in points, not as a fraction": lambda: (
            apart / 100,
            count,
        ),
        "you have each pair twice: the order of two seeds does not matter": lambda: (
            apart,
            2 * count,
        ),
        "you count with an unpaired test: the seeds answer the same queries": lambda: (
            apart,
            counted(ttest_ind),
        ),
        "you count the pairs that do not differ": lambda: (apart, len(pairs) - count),
        (
            "the first number is a difference of two queries: take the mean over the queries first"
        ): lambda: (
            max(np.abs(a - b).max() for a, b in pairs),
            count,
        ),
        "the largest difference is right, the number of pairs is not": lambda: (
            apart,
            np.nan,
        ),
        "the number of pairs is right, the largest difference is not": lambda: (
            np.nan,
            count,
        ),
    }
    judge(
        "answer",
        answer,
        lambda: (apart, count),
        mistakes,
        (
            "neither number: one MRR@10 per seed, and for each pair of seeds a paired t-test "
            "over the queries"
        ),
        rtol=0.01,
    )


@exercise(lesson=7, number=3, grade="hard")
def queries_needed(answer: object) -> None:
    """How many queries find an effect in 80% of all experiments.

    answer: differences (Q,) and an effect -> queries of a two-sided test at 0.05.
    """
    draw, both, found = np.random.default_rng(7), norm.ppf(0.975), norm.ppf(0.8)
    cases = [
        (draw.normal(mean, sd, 500), effect)
        for mean, sd, effect in ((0.2, 7, 0.4), (1, 5, 0.3), (-0.4, 12, 1.1))
    ]

    def right(d: np.ndarray, effect: float, errors: float = both + found) -> float:
        return (errors * d.std(ddof=1) / effect) ** 2

    mistakes: dict[str, Callable] = {
        "that is section 8's number: it misses an effect of this size half of the time": partial(
            right, errors=both
        ),
        "that is for a one-sided test": partial(right, errors=norm.ppf(0.95) + found),
        (
            "that is for two independent groups: the differences are paired already"
        ): lambda d, effect: 2 * right(d, effect),
        "the number of queries grows with the square of spread over effect": lambda d, effect: (
            np.sqrt(right(d, effect))
        ),
        "the effect to be found is given: do not take the observed mean": lambda d, effect: right(
            d, d.mean()
        ),
        (
            "the spread is that of one difference: do not divide it by the root of the number of "
            "queries"
        ): lambda d, effect: right(d, effect) / len(d),
    }
    judge(
        "answer",
        answer,
        right,
        mistakes,
        (
            "not the number: how many standard errors must the effect be away from zero, and "
            "how large is one with n queries?"
        ),
        cases,
        rtol=0.01,
    )

"""The checks of lesson 08, progressive distillation."""

from collections.abc import Callable

import numpy as np
import torch

from leadkit import losses
from leadkit.experiments.progressive import Progressive
from leadkit.lessons.exercises.answers import exercise, judge


@exercise(lesson=8, number=1, grade="medium")
def stops_at(answer: object) -> None:
    """Where section 5's total is lowest, with keep at 0 and at 10.

    answer: both places, from the copy (0) to the teacher (1).
    """
    t, before = (
        torch.tensor([[4.0, 1, 0], [3, 2, 0]]),
        torch.tensor([[1.0, 2, 0], [2, 1, 0]]),
    )  # (B, C), section 5
    way, terms = torch.linspace(0, 2, 2001).double(), Progressive()
    points = before + way[:, None, None] * (t - before)  # (W, B, C)

    def lowest(weight: float, of_hard: float = terms.hard) -> float:
        soft, keep = (
            terms.tau_d**2 * losses.kl(anchor, points, terms.tau_d).mean(-1)
            for anchor in (t, before)
        )  # (W,)
        hard = losses.nll(points, torch.tensor([0, 0])).mean(-1)  # (W,)
        return way[(of_hard * hard + terms.soft * soft + weight * keep).argmin()].item()

    free, held = lowest(0), lowest(10)
    mistakes = {
        "the two are the wrong way round: which weight holds the student back?": lambda: (
            held,
            free,
        ),
        (
            "with keep 10 it does not stay at the copy: there keep pushes nothing, and the "
            "teacher does"
        ): lambda: (
            free,
            0,
        ),
        "the hard loss is left out: it pulls a little further than the teacher": lambda: (
            lowest(0, 0),
            lowest(10, 0),
        ),
        "that is where it stops with the weight 1": lambda: (lowest(1), lowest(1)),
        "with keep 0 it is right, with keep 10 not": lambda: (free, np.nan),
        (
            "with keep 10 it is right, with keep 0 not: what still pulls, and what holds back?"
        ): lambda: (
            np.nan,
            held,
        ),
    }
    judge(
        "answer",
        answer,
        lambda: (free, held),
        mistakes,
        (
            "neither is where the total is lowest: add the three terms with their weights, "
            "point by point"
        ),
        rtol=0,
        atol=0.006,
    )


def _ranks() -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Ranks (Q,) of the first relevant passage by student and teacher; the last that counts.

    A rank of 0: the passage is not in the ranking.
    """
    draw = np.random.default_rng(8)
    return [
        (draw.integers(0, top, 200), draw.integers(0, top, 200), last)
        for top, last in ((6, 4), (25, 15), (20, 10))
    ]


@exercise(lesson=8, number=2, grade="medium")
def lagging(answer: object) -> None:
    """The queries that the teacher ranks higher than the student.

    answer: ranks (Q,) by student and teacher, the last rank that counts -> queries, from 0.
    """

    def of(mask: Callable) -> Callable:
        return lambda s, t, last: np.flatnonzero(mask(s, t, last))

    def right(s: np.ndarray, t: np.ndarray, last: int) -> np.ndarray:
        return (t > 0) & (t < s) & (s <= last)

    mistakes = {
        (
            "a rank of 0 is no rank: where the teacher has not found the passage it does not "
            "rank it higher"
        ): of(lambda s, t, last: (t < s) & (s <= last)),
        (
            "equal ranks are included, and with them queries that the student answers already, "
            "at rank 1"
        ): of(lambda s, t, last: (t > 0) & (t <= s) & (s <= last)),
        "equal ranks are included, and with them rank 1 and what neither has found": of(
            lambda s, t, last: (t <= s) & (s <= last)
        ),
        "the last rank counts too": of(lambda s, t, last: (t > 0) & (t < s) & (s < last)),
        "teacher and student are the wrong way round": of(lambda s, t, last: right(t, s, last)),
        "that is PROD's own filter: the teacher need not be first, only higher": of(
            lambda s, t, last: (t == 1) & (s >= 2) & (s <= last)
        ),
        (
            "queries come in whose passage the student has not found: its rank, 0, is not from 2 "
            "to the last"
        ): of(lambda s, t, last: right(s, t, last) | (t > 0) & (s == 0)),
        "that is true or false for each query, and the numbers of the queries are wanted": right,
    }
    judge(
        "lagging",
        answer,
        of(right),
        mistakes,
        "not these queries: take the table of section 5 and go through it line by line",
        _ranks(),
    )

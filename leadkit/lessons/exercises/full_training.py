"""The checks of lesson 06, full training."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from leadkit import losses, paths
from leadkit.lessons.exercises.answers import exercise, judge
from leadkit.results.comparable import per_query
from leadkit.results.records import read
from leadkit.results.statistics import paired_t_test
from leadkit.results.tables import main_rows


@exercise(lesson=6, number=1, grade="easy")
def ignorant_loss(answer: object) -> None:
    """The hard loss of equal scores, in nats.

    answer: queries of a batch, passages per query, teacher or None -> the loss.
    """

    def candidates(batch: int, passages: int, teacher: str | None) -> int:
        return passages if teacher == "CE" else batch * passages

    def loss(C: int) -> float:
        return losses.student_loss(torch.zeros(1, C), torch.tensor([0])).total.item()

    cases = [(32, 2, None), (32, 2, "DE"), (8, 4, "CB"), (8, 4, "CE"), (32, 16, "CE")]
    mistakes = {
        "that is the number of candidates, and the loss is asked": candidates,
        "the positive is a candidate too, not only the negatives": lambda *case: loss(
            candidates(*case) - 1
        ),
        (
            "every query of the batch brings all its passages, not its positive alone"
        ): lambda batch, passages, teacher: loss(passages if teacher == "CE" else batch),
        (
            "you give every query its own passages only: with which teachers does it meet those "
            "of the others?"
        ): lambda batch, passages, teacher: loss(passages),
        (
            "you score every query against all passages of the batch: one of the teachers reads "
            "pairs and cannot"
        ): lambda batch, passages, teacher: loss(batch * passages),
        (
            "the control has no teacher that could limit its candidates"
        ): lambda batch, passages, teacher: loss(candidates(batch, passages, teacher or "CE")),
    }
    judge(
        "ignorant_loss",
        answer,
        lambda *case: loss(candidates(*case)),
        mistakes,
        "not the hard loss of equal scores: what is the softmax of C zeros?",
        cases,
    )


def _two_systems() -> list[tuple[np.ndarray, np.ndarray]]:
    """Reciprocal ranks (S, Q) of two systems that agree on half of the queries, with every seed."""
    draw, found = np.random.default_rng(6), []
    for seeds, queries in ((5, 60), (3, 200), (5, 90)):
        easy = draw.normal(0, 1, queries)
        a, b = (
            np.clip(np.round(np.exp(easy + draw.normal(0, 0.5, (seeds, queries)) + shift)), 1, 10)
            for shift in (0, 0.08)
        )
        found.append((1 / a, 1 / np.where(draw.random(queries) < 0.5, a, b)))
    return found


@exercise(lesson=6, number=2, grade="medium")
def paired_p(answer: object) -> None:
    """P of the paired test over queries, each the mean of its S seeds.

    answer: reciprocal ranks (S, Q) of two systems -> p.
    """

    def of(p_value: Callable) -> Callable:
        return lambda a, b: p_value(a.mean(0), b.mean(0))

    mistakes = {
        (
            "that is an unpaired test: both systems answer the same queries, so test their "
            "differences"
        ): of(lambda a, b: ttest_ind(a, b).pvalue),
        (
            "every query counts once for each seed: several answers to one query are not several "
            "queries, take their mean first"
        ): lambda a, b: ttest_rel(a.ravel(), b.ravel()).pvalue,
        "that is a test over the seeds: the paper's is over the queries": lambda a, b: (
            ttest_rel(a.mean(1), b.mean(1)).pvalue
        ),
        "that is one-sided: the first system could also be worse": of(
            lambda a, b: ttest_rel(a, b).pvalue / 2
        ),
        "that is one seed: take the mean over all of them": lambda a, b: paired_t_test(a[0], b[0])[
            1
        ],
        "queries that both answer alike are dropped: a difference of zero is a difference": of(
            lambda a, b: ttest_1samp((a - b)[a != b], 0).pvalue
        ),
    }
    judge(
        "paired_p",
        answer,
        of(lambda a, b: paired_t_test(a, b)[1]),
        mistakes,
        "not the p-value of a paired t-test over the queries: section 5 has t by hand",
        _two_systems(),
    )


@cache
def points(row: str, folder: str = "classroom") -> np.ndarray:
    """MRR@10 of a row of the main table in points, (S, Q), from a folder of committed records."""
    records = main_rows(read(paths.RESULTS / folder))[row]
    return 100 * np.array([per_query(record) for record in records])


@exercise(lesson=6, number=3, grade="easy")
def spread_of_difference(answer: object) -> None:
    """The standard deviation of LEAD - RD over the seeds, in points."""
    lead, rd = points("LEAD"), points("RD")
    a, b = lead.mean(1), rd.mean(1)
    mistakes = {
        "that is the sd over queries, and the one over seeds is asked": lambda: (
            (lead - rd).mean(0).std(ddof=1)
        ),
        (
            "that is the sd over all values, queries and seeds: first one MRR@10 for each seed"
        ): lambda: (lead - rd).std(ddof=1),
        (
            "that is the sd of two independent rows: a seed's LEAD and RD start from the same "
            "two checkpoints, so subtract first"
        ): lambda: np.sqrt(a.var(ddof=1) + b.var(ddof=1)),
        "that is the sd of LEAD alone, and the one of the difference is asked": lambda: a.std(
            ddof=1
        ),
        (
            "divide by one less than the number of seeds: the mean is estimated from the same seeds"
        ): lambda: (a - b).std(),
        (
            "that is the standard error of the mean: do not divide by the root of the number of "
            "seeds"
        ): lambda: (a - b).std(ddof=1) / np.sqrt(len(a)),
        "points are wanted, not a fraction": lambda: (a - b).std(ddof=1) / 100,
    }
    judge(
        "answer",
        answer,
        lambda: (a - b).std(ddof=1),
        mistakes,
        "not the sd: one MRR@10 per seed and method, their differences, then the sd of these",
        rtol=0.02,
    )

"""The checks of lesson 02, layer features."""

from collections.abc import Callable
from math import log

from torch import Tensor

from leadkit import losses
from leadkit.lessons.exercises.answers import compare, normal, numbers, result, say


def kl_limit(limit: Callable) -> None:
    """Notebook 02, exercise 1: the limit of tau_d^2 KL(t / tau_d, s / tau_d) for large tau_d.

    limit: scores t (C,) and s (C,) -> the limit.
    """
    t, s = normal((6,), (6,))
    right = (1e8 * losses.kl(t, s, 1e4)).item()
    mistakes = {
        "this is twice the limit: the expansion of the KL begins with a half": 2 * right,
        (
            "this divides by C - 1: the mean is one under the uniform distribution, over C "
            "candidates"
        ): right * 6 / 5,
        "this is a sum over the candidates: the uniform distribution takes their mean": 6 * right,
        "a constant added to all scores changes this, but not the KL: subtract the mean": (t - s)
        .square()
        .mean()
        .item()
        / 2,
        "this is the KL at tau_d = 1, not the limit": losses.kl(t, s).item(),
        "without the factor tau_d^2 everything goes to 0": 0.0,
    }
    say(
        1,
        compare(
            "limit(t, s)",
            result(limit, t, s),
            right,
            mistakes,
            (
                "for 6 random scores tau_d^2 KL goes to another number: expand both softmaxes to "
                "first order in 1 / tau_d"
            ),
        ),
    )


def peaked_entropy(entropy: Callable, smallest: object) -> None:
    """Notebook 02, exercise 2: the entropy of 0.9 on one of C candidates, the rest spread evenly.

    entropy: C -> nats. smallest: the first C whose entropy is at least 1.
    """

    def term(p: float) -> float:
        return -p * log(p)

    def exact(C: float) -> float:
        return term(0.9) + (C - 1) * term(0.1 / (C - 1))

    mistakes = {
        "entropy(5) is in bits: nats need the natural logarithm": exact(5) / log(2),
        "entropy(5) is negative: the minus sign is missing": -exact(5),
        "entropy(5) gives the other candidates 0.1 / C each: they do not add up to 0.1": term(0.9)
        + 4 * term(0.1 / 5),
        "entropy(5) gives every other candidate 0.1: probabilities must add up to one": term(0.9)
        + 4 * term(0.1),
        "entropy(5) counts only one of the other candidates": term(0.9) + term(0.1 / 4),
        "entropy(5) leaves out the peak": 4 * term(0.1 / 4),
        "entropy(5) leaves out the other candidates": term(0.9),
    }
    wrong = compare(
        "entropy(5)",
        result(entropy, 5),
        exact(5),
        mistakes,
        "entropy(5) is wrong: it is a sum of -p ln p over one peak and four others",
    )
    found = numbers("smallest", smallest, ())
    if wrong or isinstance(found, str):
        say(2, wrong or found)
    elif found != found.round() or found < 2:
        say(2, f"smallest is {found}: it counts candidates, so it is a whole number, at least 2")
    elif exact(found) < 1:
        say(2, f"with {found:.0f} candidates the entropy is still below 1 nat")
    else:
        say(
            2,
            "one candidate fewer would still reach 1 nat"
            if found > 2 and exact(found - 1) >= 1
            else None,
        )


def swapped_map(swapped: object, row: object, student: Tensor, teacher: Tensor) -> None:
    """Notebook 02, exercise 3: the map of section 8 with the arguments of the KL swapped.

    swapped: KL(student layer, teacher layer), means over the queries, (M, N).
    row: the student layer, from 1, whose row changes most, by the mean absolute difference.
    student, teacher: layer scores (M, B, C) and (N, B, C).
    """
    there = losses.kl(teacher[None], student[:, None])  # (M, N, B)
    back = losses.kl(student[:, None], teacher[None])  # (M, N, B)
    change = (back.mean(-1) - there.mean(-1)).abs().mean(1)  # (M,)
    most = change.argmax().item() + 1
    of_swapped = {
        "swapped is the map of section 8: its arguments are not swapped": there.mean(-1),
        "swapped has the teacher's layers in its rows: the student's belong there": back.mean(-1).T,
        (
            "swapped is the map of section 8 on its side: swap the arguments of the KL, not rows "
            "and columns"
        ): there.mean(-1).T,
        "swapped adds up the queries: take their mean": back.sum(-1),
        "swapped keeps the queries apart: take their mean": back,
    }
    of_row = {
        "row is counted from 0: layers are counted from 1": most - 1,
        "row is the one that changes least": change.argmin().item() + 1,
    }
    say(
        3,
        compare(
            "swapped",
            swapped,
            back.mean(-1),
            of_swapped,
            "swapped is not KL(student, teacher) of every pair",
        )
        or compare(
            "row",
            row,
            most,
            of_row,
            "another row changes more: compare the two maps cell by cell, without the signs",
        ),
    )

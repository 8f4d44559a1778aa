"""The checks of lesson 03, random selection."""

from collections.abc import Callable
from functools import cache
from itertools import combinations, product

import numpy as np

from leadkit.lessons.exercises.answers import compare, normal, numbers, result, say


def mean_teacher(means: object) -> None:
    """Notebook 03, exercise 1: the mean teacher layer of student layers 1 to 6.

    K = M = 6, N = 12.
    """
    right = np.mean(list(combinations(range(1, 13), 6)), 0)  # (6,): all sets are equally likely
    mistakes = {
        "these are layers counted from 0: the first layer is 1": right - 1,
        (
            "these fall with depth: the i-th of the sorted teacher layers teaches student layer i"
        ): right[::-1],
        (
            "this is every second layer: the mean of random draws ends before the tower does"
        ): np.arange(2, 13, 2),
        "this is the middle of the layers that b can meet: they are not equally likely": np.arange(
            1, 7
        )
        + 3,
        (
            "this is the mean of all layers: order is kept, so deeper student layers have deeper "
            "teachers"
        ): np.full(6, 6.5),
    }
    say(
        1,
        compare(
            "means",
            means,
            right,
            mistakes,
            (
                "these are not the means over all draws: which layers can teach layer 1, and in "
                "how many of the draws does each?"
            ),
        ),
    )


def steps_to_cover(every_step: object, every_tenth: object) -> None:
    """Notebook 03, exercise 2: the median number of steps until 90% of the pairs were used.

    every_step, every_tenth: for K = 1, 3, 5; layers are drawn at every step, or at every tenth.
    M = 6, N = 12. An answer is accepted where 25% to 75% of the trainings are done.
    """
    draws = np.array([np.quantile(_draws_to_cover(k), (0.25, 0.75)) for k in (1, 3, 5)])  # (3, 2)
    say(
        2,
        _between("every_step", every_step, draws, "")
        or _between("every_tenth", every_tenth, 10 * draws - [9, 0], " (a draw serves ten steps)"),
    )


def _between(name: str, answer: object, ends: np.ndarray, hint: str) -> str | None:
    found = numbers(name, answer, (len(ends),))
    if isinstance(found, str):
        return found
    for k, steps, (low, high) in zip((1, 3, 5), found, ends, strict=True):
        if steps < low:
            return (
                f"{name}, K = {k}: after {steps:g} steps most trainings have used less than 90 % "
                f"of the possible pairs{hint}"
            )
        if steps > high:
            return (
                f"{name}, K = {k}: {steps:g} steps are too many, 90 % are of the pairs that can "
                "meet at this K"
            )
    return None


@cache
def _draws_to_cover(k: int, trainings: int = 400) -> np.ndarray:
    """Draws that each training needs until 90 % of the possible pairs were used: (trainings,)."""
    every = [
        set(zip(s, t, strict=True))
        for s, t in product(combinations(range(6), k), combinations(range(12), k))
    ]
    enough, generator = 0.9 * len(set().union(*every)), np.random.default_rng(0)
    needed = np.zeros(trainings)
    for training in range(trainings):
        seen = set()
        while len(seen) < enough:
            seen |= every[generator.integers(len(every))]
            needed[training] += 1
    return needed


def nearest_pairs(strategy: Callable) -> None:
    """Notebook 03, exercise 3: the k pairs of layers in order whose distances have the least sum.

    strategy: distances (M, N), k -> k student layers and k teacher layers.
    """
    distance, k = normal((4, 7))[0].abs(), 3
    found = numbers(f"strategy(distance, {k})", result(strategy, distance.clone(), k), (2, k))
    say(3, found if isinstance(found, str) else _nearest_pairs(found, distance.numpy()))


def _nearest_pairs(found: np.ndarray, distance: np.ndarray) -> str | None:
    for name, layers, count in zip(("student", "teacher"), found, distance.shape, strict=True):
        if 0 in layers:
            return f"{name} layer 0 does not exist: layers are counted from 1"
        for layer in layers:
            if layer not in range(1, count + 1):
                return (
                    f"{name} layer {layer:g} does not exist: that tower has layers 1 to {count} "
                    "(the student's come first)"
                )
        if len(set(layers)) < len(layers):
            return f"a {name} layer stands in two pairs: each is drawn at most once"
    student, teacher = found.astype(int) - 1
    if (np.diff(student) < 0).any():
        return "the student layers are not sorted"
    if (np.diff(teacher) < 0).any():
        return "the lines cross: where the order is kept the teacher layers are sorted too"
    chosen = product(
        *(list(map(list, combinations(range(count), len(student)))) for count in distance.shape)
    )
    totals, total = [distance[b, a].sum() for b, a in chosen], distance[student, teacher].sum()
    if np.isclose(total, min(totals)):
        return None
    return (
        "these pairs are the farthest, not the nearest"
        if np.isclose(total, max(totals))
        else (
            "other pairs in order have a smaller total: a near pair that is taken early can "
            "block the way for the others"
        )
    )

"""The checks of lesson 03, random selection."""

from itertools import combinations, product
from math import comb
from typing import Any

import numpy as np
import torch

from leadkit.lessons.exercises.answers import Wrong, exercise, judge, normal, numbers, outcome

K, M, N = 3, 4, 6  # of the draws that the check makes
DRAWS = 2000


@exercise(lesson=3, number=1, grade="medium")
def draw_layers(draw: object) -> None:
    """The selection: k layers of each tower, every set equally likely, both in order.

    draw: k, the numbers of student and teacher layers, a generator -> k student layers and k
        teacher layers, sorted, from 1.
    """
    generator = torch.Generator().manual_seed(0)
    every = np.array([_one_draw(draw, generator) for _ in range(DRAWS)])  # (DRAWS, 2, K)
    for name, layers, count in (("student", every[:, 0], M), ("teacher", every[:, 1], N)):
        _check_tower(name, layers, count)
    if len(np.unique(every, axis=0)) == 1:
        raise Wrong(f"{DRAWS} draws are all the same: draw anew from the generator at each call")
    if (every[:, 0] == every[:, 1]).all():
        raise Wrong("teacher and student always have the same layers: draw for each tower")
    for name, layers, count in (("student", every[:, 0], M), ("teacher", every[:, 1], N)):
        _check_chances(name, layers, count)
    _check_apart(every)
    first, again = (_one_draw(draw, torch.Generator().manual_seed(7)) for _ in range(2))
    if not np.array_equal(first, again):
        raise Wrong("the same seed draws other layers: draw from the generator that you are given")


def _one_draw(draw: Any, generator: torch.Generator) -> np.ndarray:
    name = f"draw({K}, {M}, {N}, generator)"
    # By hand: a copy of the generator, as `outcome` makes, would draw the same layers every time.
    found = outcome(
        name, (lambda *case: draw(*case, generator)) if callable(draw) else draw, K, M, N
    )
    return numbers(name, found, (2, K))


def _check_tower(name: str, layers: np.ndarray, count: int) -> None:
    """layers: (DRAWS, K)."""
    if (layers != layers.round()).any():
        raise Wrong(f"a {name} layer is not a whole number")
    low, high = layers.min(), layers.max()
    if low == 0 and high == count - 1:
        raise Wrong(f"{name} layers go from 0 to {count - 1}: layers are counted from 1")
    if low < 1 or high > count:
        wrong = low if low < 1 else high
        raise Wrong(f"{name} layer {wrong:g} does not exist: that tower has layers 1 to {count}")
    if any(len(set(row)) < K for row in layers.tolist()):
        raise Wrong(f"a {name} layer is drawn twice: draw without putting back")
    if (np.diff(layers) < 0).any():
        raise Wrong(
            f"the {name} layers are not sorted: the i-th of the one tower teaches the i-th of the "
            "other, and their order must be kept"
        )


def _check_chances(name: str, layers: np.ndarray, count: int) -> None:
    """Every set of layers must be drawn about equally often: (DRAWS, K)."""
    chance = K / count
    allowed = 5 * np.sqrt(chance * (1 - chance) / DRAWS)
    shares = [(layers == layer).any(1).mean() for layer in range(1, count + 1)]
    if 0 in shares:
        layer = shares.index(0) + 1
        raise Wrong(f"{name} layer {layer} is never drawn: every set must be equally likely")
    for layer, share in enumerate(shares, start=1):
        if abs(share - chance) > allowed:
            raise Wrong(
                f"{name} layer {layer} is in {share:.0%} of {DRAWS} draws: with every set equally "
                f"likely it is in {chance:.0%}"
            )
    sets = len(np.unique(layers, axis=0))
    if sets < comb(count, K):
        raise Wrong(f"only {sets} sets of {name} layers are drawn, of {comb(count, K)}")


def _check_apart(every: np.ndarray) -> None:
    """The two towers must be drawn apart: any student set with any teacher set."""
    pairs = len(np.unique(every.reshape(DRAWS, -1), axis=0))
    if pairs < comb(M, K) * comb(N, K):
        raise Wrong("the two towers are not drawn apart: a student's set fixes the teacher's")


@exercise(lesson=3, number=2, grade="medium")
def mean_teacher(means: object) -> None:
    """The mean teacher layer of student layers 1 to 6, where K = M = 6 and N = 12."""
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
    otherwise = (
        "these are not the means over all draws: which layers can teach layer 1, and in how many "
        "of the draws does each?"
    )
    judge("means", means, right, mistakes, otherwise)


@exercise(lesson=3, number=3, grade="hard")
def nearest_pairs(strategy: object) -> None:
    """The k pairs of layers in order whose distances have the least sum.

    strategy: distances (M, N), k -> k student layers and k teacher layers.
    """
    distance = normal((4, 7))[0].abs()  # (M, N)
    name = "strategy(distance, 3)"
    layers = numbers(name, outcome("strategy", strategy, distance, 3), (2, 3))
    _check_nearest(layers, distance.numpy())


def _check_nearest(chosen: np.ndarray, distance: np.ndarray) -> None:
    for name, layers, count in zip(("student", "teacher"), chosen, distance.shape, strict=True):
        if 0 in layers:
            raise Wrong(f"{name} layer 0 does not exist: layers are counted from 1")
        for layer in layers:
            if layer not in range(1, count + 1):
                raise Wrong(
                    f"{name} layer {layer:g} does not exist: that tower has layers 1 to {count} "
                    "(the student's come first)"
                )
        if len(set(layers)) < len(layers):
            raise Wrong(f"a {name} layer stands in two pairs: each is drawn at most once")
    student, teacher = chosen.astype(int) - 1
    if (np.diff(student) < 0).any():
        raise Wrong("the student layers are not sorted")
    if (np.diff(teacher) < 0).any():
        raise Wrong("the lines cross: where the order is kept the teacher layers are sorted too")
    sets = [list(map(list, combinations(range(count), len(student)))) for count in distance.shape]
    totals = [distance[b, a].sum() for b, a in product(*sets)]
    total = distance[student, teacher].sum()
    if np.isclose(total, max(totals)):
        raise Wrong("these pairs are the farthest, not the nearest")
    if not np.isclose(total, min(totals)):
        raise Wrong(
            "other pairs in order have a smaller total: a near pair that is taken early can block "
            "the way for the others"
        )

"""The checks of lesson 09, assistants."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from leadkit import companion_losses
from leadkit.lessons.exercises.answers import Wrong, exercise, judge, numbers


@exercise(lesson=9, number=1, grade="hard")
def farther_together(answer: object) -> None:
    """Two assistants whose mean is farther from the teacher than either.

    answer: the distributions of the teacher and both assistants, (3, 4). Distance is the footrule.
    """

    rows = torch.tensor(numbers("answer", answer))
    if rows.shape != (3, 4):
        raise Wrong(
            "three rows of four numbers are wanted: the teacher, the first assistant, the second"
        )
    if not (rows >= 0).all() or not torch.allclose(rows.sum(1), torch.ones(3).double(), atol=1e-6):
        raise Wrong("a row is no distribution: its numbers must not be negative and must sum to 1")
    t, a, b = rows
    fused = companion_losses.fuse(rows[1:].log()).softmax(-1)
    named = {"the teacher": t, "the first assistant": a, "the second assistant": b}
    for name, row in (named | {"the mean": fused}).items():
        if len(row.round(decimals=9).unique()) < len(row):
            raise Wrong(
                f"{name} gives two passages the same probability: section 7 shows what ties do to "
                "ranks"
            )
    together, first, second = (companion_losses.footrule(t, row) for row in (fused, a, b))
    if together <= min(first, second):
        raise Wrong("the mean is no farther than either assistant")
    if together <= max(first, second):
        raise Wrong("the mean is farther than one assistant, not than both")


def _assistants() -> list[tuple[Tensor, Tensor]]:
    """Scores (A, C) of assistants and their weights (A,), in tenths; the last are far apart."""
    draw, weights = (
        torch.Generator().manual_seed(9),
        ([0.5, 0.3, 0.2], [0.9, 0.1], [0.1, 0.2, 0.7], [0.6, 0.4]),
    )
    scores = [
        *(2 * torch.randn(len(w), 6, generator=draw) for w in weights[:3]),
        torch.tensor([[900.0, 0, -900], [0, 900, -900]]),
    ]
    return [(s.double(), torch.tensor(w).double()) for s, w in zip(scores, weights, strict=True)]


@exercise(lesson=9, number=2, grade="medium")
def weighted_fusion(answer: object) -> None:
    """The logarithm of a weighted mean of distributions.

    answer: scores (A, C) and weights (A,) -> logarithms (C,).
    """

    def right(scores: Tensor, weights: Tensor) -> Tensor:
        return companion_losses.fuse(scores.repeat_interleave((10 * weights).round().long(), 0))

    def over(scores: Tensor, weights: Tensor) -> Tensor:
        return (weights[:, None] * scores).sum(0)  # (C,)

    mistakes: dict[str, Callable] = {
        "you take the mean of scores and not of distributions": over,
        (
            "you take the mean of scores, then a softmax: whoever has large scores outvotes the "
            "others, take the mean of distributions"
        ): lambda scores, weights: over(scores, weights).log_softmax(-1),
        (
            "you take the mean of log-probabilities: that is a product of distributions, not "
            "their mean"
        ): lambda scores, weights: over(scores.log_softmax(-1), weights),
        "the weights are not used": lambda scores, weights: companion_losses.fuse(scores),
        "probabilities come out, and their logarithms are wanted": lambda scores, weights: right(
            scores, weights
        ).exp(),
        (
            "the weights multiply logarithms: weighting a probability adds the weight's logarithm"
        ): lambda scores, weights: (weights[:, None] * scores.log_softmax(-1)).logsumexp(0),
        (
            "the scores are not normalised: each assistant needs its own softmax"
        ): lambda scores, weights: (scores + weights[:, None].log()).logsumexp(0),
    }
    otherwise = "not the logarithms of the weighted mean: do their exponentials sum to 1?"
    try:
        judge("weighted_fusion", answer, right, mistakes, otherwise, _assistants())
    except Wrong as wrong:
        if "not a finite number" in str(wrong):
            raise Wrong("an exponential underflowed: stay in logarithms") from wrong
        raise


def _distances() -> list[tuple[np.ndarray]]:
    """Distances (7, steps) of three assistants and of their four fusions."""
    draw, found = np.random.default_rng(9), []
    for steps in (12, 40, 7):
        plain = draw.gamma(3, 0.3, (3, steps))
        fused = [
            plain[members].mean(0) * draw.uniform(0.3, 1, steps)
            for members in ([0, 1], [0, 2], [1, 2], [0, 1, 2])
        ]
        found.append((np.stack([*plain, *fused]),))
    return found


@exercise(lesson=9, number=3, grade="medium")
def share_lost(answer: object) -> None:
    """What always fusing all three loses of the gain of choosing.

    answer: distances (7, steps) -> the share of the gain.
    """

    def right(
        far: np.ndarray,
        usual: Callable = lambda far: far[:3].mean(),
        near: Callable = lambda far: far.min(0).mean(),
    ) -> float:
        return (far[-1].mean() - near(far)) / (usual(far) - near(far))

    mistakes: dict[str, Callable] = {
        (
            "your nearest is one assistant for all batches: take the minimum in each batch, then "
            "the mean"
        ): partial(right, near=lambda far: far.mean(1).min()),
        (
            "your nearest is the smallest distance of all: take the minimum in each batch, then "
            "the mean"
        ): partial(right, near=np.min),
        "compare with a plain assistant at random: the fused ones are in your mean too": partial(
            right, usual=np.mean
        ),
        (
            "compare with a plain assistant at random: you take the best plain one for all batches"
        ): partial(right, usual=lambda far: far[:3].mean(1).min()),
        "that is the share that is kept": lambda far: 1 - right(far),
        "that is how much farther all three are: divide by what choosing wins": lambda far: (
            far[-1].mean() - far.min(0).mean()
        ),
        "the mean is over shares of single batches: take the mean distances first": lambda far: (
            np.mean((far[-1] - far.min(0)) / (far[:3].mean(0) - far.min(0)))
        ),
    }
    judge(
        "share_lost",
        answer,
        right,
        mistakes,
        (
            "not the share: (always three - nearest) over (random plain one - nearest), each "
            "a mean over the batches"
        ),
        _distances(),
    )

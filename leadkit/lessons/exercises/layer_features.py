"""The checks of lesson 02, layer features."""

import numpy as np
import torch
from torch import Tensor

from leadkit import losses
from leadkit.lessons.exercises.answers import exercise, judge, normal


@exercise(lesson=2, number=1, grade="medium")
def feature_loss(loss: object) -> None:
    """The loss of one pair of layers, Eq. (4) to (6), a mean over the queries.

    loss: scores of the teacher's and of the student's layer (B, C), (B, C), and tau_d -> the loss.
    """
    t, s = normal((3, 5), (3, 5))
    tau_d = 2.0
    log_t, log_s = (t / tau_d).log_softmax(-1), (s / tau_d).log_softmax(-1)
    each = log_t.exp() * (log_t - log_s)  # (B, C)
    over_queries_t, over_queries_s = (t / tau_d).log_softmax(0), (s / tau_d).log_softmax(0)
    mistakes = {
        "this is KL(s, t): Eq. (6) has the teacher first": losses.kl(s, t, tau_d).mean(),
        (
            "each softmax runs over the queries: Eq. (4) and (5) normalise over the candidates of "
            "one query"
        ): (over_queries_t.exp() * (over_queries_t - over_queries_s)).sum(-1).mean(),
        (
            "this is a mean over the candidates too: a KL divergence sums over them, and the mean "
            "is over the queries"
        ): each.mean(),
        "this adds up the queries: take their mean": each.sum(),
        "this keeps the queries apart: take their mean": each.sum(-1),
        "tau_d divides the teacher's scores only: Eq. (6) divides both": losses.kl(
            t, s, tau_d, "released"
        ).mean(),
        "tau_d divides the student's scores only: Eq. (6) divides both": losses.kl(
            t, s / tau_d
        ).mean(),
        "tau_d is not used": losses.kl(t, s).mean(),
        "tau_d multiplies: it divides the scores": losses.kl(t * tau_d, s * tau_d).mean(),
        "tau_d divides the probabilities: it divides the scores, before the softmax": (
            losses.kl(t, s).mean() / tau_d
        ),
        "Hinton's factor tau_d^2 is in it: Eq. (6) has none": tau_d**2
        * losses.kl(t, s, tau_d).mean(),
        "the sign is wrong: a KL divergence is never negative": -losses.kl(t, s, tau_d).mean(),
        "this is the squared error of the scores: compare distributions": (t - s).square().mean(),
        "this is the cross entropy: the teacher's own entropy is not subtracted": (
            -(log_t.exp() * log_s).sum(-1).mean()
        ),
    }
    judge(
        "loss",
        loss,
        losses.kl(t, s, tau_d).mean(),
        mistakes,
        "for random scores this is not Eq. (6): two softmaxes, then the sum over the candidates",
        [(t, s, tau_d)],
    )


@exercise(lesson=2, number=2, grade="hard")
def kl_limit(limit: object) -> None:
    """The limit of tau_d^2 KL(t / tau_d, s / tau_d) for large tau_d.

    limit: scores t (C,) and s (C,) -> the limit.
    """
    t, s = normal((6,), (6,))
    right = 1e8 * losses.kl(t, s, 1e4)
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
        / 2,
        "this is the KL at tau_d = 1, not the limit": losses.kl(t, s),
        "without the factor tau_d^2 everything goes to 0": torch.tensor(0.0),
    }
    judge(
        "limit",
        limit,
        right,
        mistakes,
        "for 6 random scores tau_d^2 KL goes to another number: expand both softmaxes to first "
        "order in 1 / tau_d",
        [(t, s)],
    )


@exercise(lesson=2, number=3, grade="medium")
def swapped_map(swapped: object, row: object, student: Tensor, teacher: Tensor) -> None:
    """The map of section 8 with the arguments of the KL swapped.

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
    otherwise = "swapped is not KL(student, teacher) of every pair"
    judge("swapped", swapped, back.mean(-1), of_swapped, otherwise)
    of_row = {
        "row is counted from 0: layers are counted from 1": most - 1,
        "row is the one that changes least": np.asarray(change.argmin()) + 1,
    }
    otherwise = "another row changes more: compare the two maps cell by cell, without the signs"
    judge("row", row, most, of_row, otherwise)

"""The checks of lesson 04, reweighting."""

import numpy as np
import torch
from torch import Tensor

from leadkit import losses
from leadkit.lessons.exercises.answers import (
    Wrong,
    exercise,
    judge,
    judge_gradients,
    normal,
    numbers,
    outcome,
)
from leadkit.selection import layers_heard


@exercise(lesson=4, number=1, grade="medium")
def weights_of_layers(weights: object) -> None:
    """The weights of Eq. (7).

    weights: teacher's layer scores (K, B, C), positive (B,), tau_l -> weights (K, B).
    """
    t = normal((3, 4, 5))[0].requires_grad_()  # (K, B, C)
    positive = torch.tensor([0, 3, 4, 2])
    for tau_l in (1.0, 0.5, 4.0):
        case = t, positive, tau_l
        nll = losses.nll(t, positive).detach()  # (K, B)
        at_positive = t.detach()[:, torch.arange(4), positive]  # (K, B)
        here = f"at tau_l = {tau_l:g}"
        over_queries = (-nll / tau_l).softmax(1)
        mistakes = {
            (
                "the weights add up to one over the queries: Eq. (7) normalises over the layers"
            ): over_queries,
            "the weights grow with the NLL: the sign is wrong": (nll / tau_l).softmax(0),
            f"{here} these are not normalised: divide by the sum over the layers": (
                (-nll / tau_l).exp()
            ),
            "one weight per layer for the whole batch: Eq. (7) has one for each query too": (
                (-nll.mean(1) / tau_l).softmax(0)
            ),
            f"{here} these are the weights of tau_l = 1": (-nll).softmax(0),
            f"{here} these are the weights of 1 / tau_l: the temperature divides": (
                (-nll * tau_l).softmax(0)
            ),
            (
                "this is a softmax of the positive's scores: first make each layer a distribution "
                "over its candidates"
            ): (at_positive / tau_l).softmax(0),
            "the judge is the label: this takes passage 0 of each query for its positive": (
                t.detach().log_softmax(-1)[..., 0] / tau_l
            ).softmax(0),
            "a row per layer and a column per query, (K, B): these are transposed": (
                (-nll / tau_l).softmax(0).T
            ),
            "this is the NLL of each layer: the weights are a softmax of minus it": nll,
        }
        otherwise = f"{here} these are not the weights of Eq. (7)"
        judge("weights", weights, losses.layer_weights(*case), mistakes, otherwise, [case])
    if outcome("weights", weights, t, positive, 1.0).requires_grad:
        raise Wrong(
            "the weights carry a gradient, so a detach is missing: a teacher that learns could "
            "lower the loss by making a layer worse"
        )


@exercise(lesson=4, number=2, grade="hard")
def layer_loss(loss: object) -> None:
    """The layer loss of Eq. (8), whose gradient leaves the teacher alone.

    loss: student's and teacher's layer scores (K, B, C), positive (B,), tau_l -> the loss.
    """
    student, teacher = (x.requires_grad_() for x in normal((3, 4, 5), (3, 4, 5)))
    positive, tau_l = torch.tensor([0, 3, 4, 2]), 2.0
    taught = teacher.detach()
    weights = losses.layer_weights(taught, positive, tau_l)  # (K, B)
    each = losses.kl(taught, student)  # (K, B)
    swapped = losses.kl(student, taught)  # (K, B)
    right = (weights * each).sum(0).mean()
    one_softmax = losses.kl(taught.movedim(1, -1), student.movedim(1, -1))  # (K, C)
    off_by_one = losses.kl(taught.roll(1, 0), student)  # (K, B)
    mistakes = {
        "this is KL(s, t): Eq. (6) has the teacher first": (weights * swapped).sum(0).mean(),
        (
            "this is a mean over the layers too: the weights of a query add up to one already, so "
            "sum over the layers"
        ): (weights * each).mean(),
        "this adds up the queries: take their mean": (weights * each).sum(),
        "this keeps the queries apart: take their mean": (weights * each).sum(0),
        "this sums over the queries and keeps the layers apart: sum over the layers": (
            (weights * each).sum(1)
        ),
        "the layers count alike: the weights of Eq. (7) are missing": each.mean(),
        "this is a plain sum of the layers: the weights of Eq. (7) are missing": each.sum(0).mean(),
        "tau_l is not used": (losses.layer_weights(taught, positive) * each).sum(0).mean(),
        "tau_l softens the features too: it belongs to the weights only": (
            (weights * losses.kl(taught, student, tau_l)).sum(0).mean()
        ),
        "the layers are off by one: the i-th teacher layer teaches the i-th student layer": (
            (weights * off_by_one).sum(0).mean()
        ),
        "the student's layers are weighted by how well the student knows: the teacher's NLL "
        "decides": ((losses.layer_weights(student, positive, tau_l) * each).sum(0).mean()),
        "each softmax runs over the queries: it runs over the candidates": (
            (weights.mean(1, keepdim=True) * one_softmax).sum(0).mean()
        ),
    }
    otherwise = (
        "for random scores this is not Eq. (8): compare the weights, then the KL of each layer"
    )
    case = student, teacher, positive, tau_l
    judge("loss", loss, right, mistakes, otherwise, [case])
    reasons = (
        "the student's layers do not get its gradient: something is detached",
        "it moves the teacher too, so a detach is missing: its layers only teach",
    )
    assert callable(loss)
    judge_gradients(lambda s, t: loss(s, t, positive, tau_l), (student, teacher), right, reasons)


@exercise(lesson=4, number=3, grade="medium")
def same_voices(tau: object, t: Tensor, y: Tensor, factor: float) -> None:
    """The tau_l that hears as many layers as 10 does on raw scores.

    t: layer scores (K, B, C); the raw ones are t / factor. y: (B,), the positives.
    Layers are counted by the perplexity of the weights of all K, a mean over the queries. An answer
    is accepted within 0.05 of a layer.
    """

    def heard(x: Tensor, temperature: float) -> float:
        weights = losses.layer_weights(x, y, temperature)  # (K, B)
        return layers_heard(weights).mean().item()

    read = float(numbers("tau", tau, ()))
    if read <= 0:
        raise Wrong(f"tau is {read:g}: a temperature must be positive")
    here, wanted = heard(t, read), heard(t / factor, 10.0)
    if abs(here - wanted) <= 0.05:
        return
    if np.isclose(read, 10 * factor, rtol=1e-2):
        raise Wrong(
            "10 times the factor would be it if an NLL shrank as its scores do: compare the "
            "numbers of layers heard"
        )
    if np.isclose(read, 10 / factor, rtol=1e-2):
        raise Wrong(
            "10 divided by the factor goes the wrong way: smaller scores need a smaller temperature"
        )
    more = "more" if here > wanted else "fewer"
    raise Wrong(
        f"at tau_l = {read:g} the scaled scores hear {here:.2f} layers, {more} than the raw "
        "ones at 10"
    )

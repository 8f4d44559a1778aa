"""The checks of lesson 04, reweighting."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from leadkit import losses
from leadkit.lessons.exercises.answers import compare, normal, numbers, result, say


def shares(share: Callable) -> None:
    """Notebook 04, exercise 1: Eq. (7) without exp or log.

    share: probabilities of the positive (K, B), tau_l -> weights (K, B).
    """
    p = normal((3, 4))[0].sigmoid()  # (K, B)
    two = torch.stack([p, 1 - p], -1).log()  # (K, B, C=2): scores with these features
    wrong = None
    for tau in (1, 0.5, 4):
        powers = {power: p**power for power in (1 / tau, -1 / tau, tau, 1, 2)}
        of_layers = {power: x / x.sum(0) for power, x in powers.items()}
        here, right = (
            f"at tau_l = {tau}",
            losses.layer_weights(two, torch.zeros(4, dtype=torch.long), tau),
        )
        mistakes = {
            "the shares add up to one over the queries: Eq. (7) normalises over the layers": powers[
                1 / tau
            ]
            / powers[1 / tau].sum(1, keepdim=True),
            f"{here} the shares do not add up to one over the layers": powers[1 / tau],
            "the shares grow as the probability falls: the sign is wrong": of_layers[-1 / tau],
            f"{here} these are the shares of tau_l = 1": of_layers[1],
            f"{here} these are the shares of 1 / tau_l: a small temperature sharpens": of_layers[
                tau
            ],
            f"{here} these are the shares of the squares": of_layers[2],
        }
        wrong = wrong or compare(
            f"share(p_plus, {tau})",
            result(share, p.clone(), tau),
            right,
            mistakes,
            (
                f"{here} these are not the weights of Eq. (7): what is exp of a logarithm that "
                "was divided by tau_l?"
            ),
        )
    say(1, wrong)


def worst_query(worst: object, told: object, t: Tensor, y: Tensor, tau_l: float) -> None:
    """Notebook 04, exercise 2: the query whose best layer is worst, and what the student is told.

    worst: its column in t, from 0. told: the weighted mean over all K layers of its t_i(p+).
    t: layer scores (K, B, C). y: (B,), the positives.
    """
    nll = losses.nll(t, y)  # (K, B)
    p, w = (-nll).exp(), losses.layer_weights(t, y, tau_l)  # (K, B)
    column = nll.amin(0).argmax().item()
    of_worst = {
        "worst is counted from 1: it is a column of t, and those are counted from 0": column + 1,
        "worst is the query that its best layer knows best": nll.amin(0).argmin().item(),
        (
            "worst has the worst mean over the layers: look at its best layer, which may still know"
        ): nll.mean(0).argmax().item(),
        "worst has the worst single layer: look at its best one": nll.amax(0).argmax().item(),
    }
    of_told = {
        "told gives every layer 1 / K: use the weights of Eq. (7)": p.mean(0)[column],
        "told is what the best layer says: the others have weights too": p.amax(0)[column],
        "told is a mean over all queries: only the worst one is asked for": (w * p).sum(0).mean(),
        "told is a weighted mean of the NLL: a probability is asked for": (w * nll).sum(0)[column],
        (
            "told is the sum of the weights: multiply each by what its layer gives to the positive"
        ): w.sum(0)[column],
    }
    say(
        2,
        compare(
            "worst",
            worst,
            column,
            of_worst,
            "the best layer of another query gives its positive a smaller probability",
        )
        or compare(
            "told",
            told,
            (w * p).sum(0)[column],
            of_told,
            (
                "told is not the weighted mean of the probabilities that the layers give to the "
                "positive of this query"
            ),
        ),
    )


def same_voices(tau: object, t: Tensor, y: Tensor, factor: float) -> None:
    """Notebook 04, exercise 3: the tau_l that hears as many layers as 10 does on raw scores.

    t: layer scores (K, B, C); the raw ones are t / factor. y: (B,), the positives.
    Layers are counted by the perplexity of the weights of all K, a mean over the queries. An answer
    is
    accepted within 0.05 of a layer.
    """

    def heard(x: Tensor, temperature: float) -> float:
        return (
            torch.special.entr(losses.layer_weights(x, y, temperature)).sum(0).exp().mean().item()
        )

    found = numbers("tau", tau, ())
    if isinstance(found, str):
        return say(3, found)
    if found <= 0:
        return say(3, f"tau is {found:g}: a temperature must be positive")
    here, wanted = heard(t, float(found)), heard(t / factor, 10.0)
    if abs(here - wanted) <= 0.05:
        return say(3, None)
    if np.isclose(found, 10 * factor, rtol=1e-2):
        return say(
            3,
            (
                "10 times the factor would be it if an NLL shrank as its scores do: compare the "
                "numbers of layers heard"
            ),
        )
    if np.isclose(found, 10 / factor, rtol=1e-2):
        return say(
            3,
            (
                "10 divided by the factor goes the wrong way: smaller scores need a smaller "
                "temperature"
            ),
        )
    more = "more" if here > wanted else "fewer"
    say(
        3,
        (
            f"at tau_l = {found:g} the scaled scores hear {here:.2f} layers, {more} than the raw "
            "ones at 10"
        ),
    )

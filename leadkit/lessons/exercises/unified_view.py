"""The checks of lesson 01, unified view."""

import numpy as np
import torch
from torch import Tensor

from leadkit import scores
from leadkit.lessons.exercises.answers import compare, numbers, say


def not_symmetric(query_states: object, passage_states: object) -> None:
    """Notebook 01, exercise 1: a query and a passage whose MaxSim changes when they change places.

    query_states, passage_states: token states (X, H) and (Y, H).
    """
    say(
        1,
        _not_symmetric(
            numbers("query_states", query_states, (None, None)),
            numbers("passage_states", passage_states, (None, None)),
        ),
    )


def _not_symmetric(q: np.ndarray | str, p: np.ndarray | str) -> str | None:
    if isinstance(q, str) or isinstance(p, str):
        return q if isinstance(q, str) else p
    if q.shape[1] != p.shape[1]:
        return (
            f"a query token has {q.shape[1]} numbers and a passage token {p.shape[1]}: no dot "
            "product joins them"
        )
    if len(q) == len(p) == 1:
        return (
            "with one token on each side MaxSim is the dot product, and a dot product is symmetric"
        )
    there, back = (
        scores.maxsim(a[None, None], b[None, None], torch.ones(1, len(b))).item()
        for a, b in ((torch.tensor(q), torch.tensor(p)), (torch.tensor(p), torch.tensor(q)))
    )
    return (
        f"with these states MaxSim is {there:g} both ways round"
        if np.isclose(there, back)
        else None
    )


def query_padding(
    q: Tensor, p: Tensor, p_mask: Tensor, same_order: object, other_order: object
) -> None:
    """Notebook 01, exercise 2: what a padded query position does to the scores if it counts.

    same_order, other_order: its state (H,); one must keep the ranking, the other change it.
    q: query tokens (X, H). p: passages (N, Y, H) with p_mask (N, Y), none of them tied for q.
    """
    say(
        2,
        _query_padding(q, p, p_mask, "same_order", same_order, False)
        or _query_padding(q, p, p_mask, "other_order", other_order, True),
    )


def _query_padding(
    q: Tensor, p: Tensor, p_mask: Tensor, name: str, answer: object, change: bool
) -> str | None:
    state = numbers(name, answer, q.shape[1:])
    if isinstance(state, str):
        return state
    padded = torch.cat([q, torch.tensor(state, dtype=q.dtype)[None]])  # (X + 1, H)
    before, after = (
        scores.maxsim(x[None, None], p[None], p_mask)[0, 0] for x in (q, padded)
    )  # (N,), no q_mask
    if torch.allclose(before, after):
        return f"{name} changes no score: padding that adds 0 to every passage does no harm"
    if after.unique().numel() < after.numel():
        return f"{name} leaves two passages with the same score: choose one without a tie"
    changed = not torch.equal(before.argsort(), after.argsort())
    if changed != change:
        return (
            f"{name} changes the ranking too"
            if changed
            else f"{name} changes the scores, but not the ranking"
        )
    return None


def index_bytes(de: object, cb: object) -> None:
    """Notebook 01, exercise 3: bytes of the index of a DE and of a CB.

    26,089 passages of 60 tokens, H = 128, float16.
    """
    vectors = {"de": 26_089, "cb": 26_089 * 60}
    right = {
        name: 128 * count * torch.finfo(torch.float16).bits // 8 for name, count in vectors.items()
    }
    wrong = None
    for name, answer, other in (("de", de, "cb"), ("cb", cb, "de")):
        mistakes = {
            (
                f"{name} is the size of the other retriever's index: which of the two keeps a "
                "vector per token?"
            ): right[other],
            f"{name} is in bits: a byte has eight": 8 * right[name],
            f"{name} is the size in float32: a float16 takes half of that": 2 * right[name],
            f"{name} counts numbers: a float16 takes more than one byte": right[name] / 2,
            f"{name} is in megabytes: give bytes": right[name] / 1e6,
            f"{name} is in mebibytes: give bytes": right[name] / 2**20,
            f"{name} counts vectors: each has H numbers": vectors[name],
        }
        wrong = wrong or compare(
            name,
            answer,
            right[name],
            mistakes,
            (
                f"{name} is not passages times vectors of a passage times numbers of a vector "
                "times bytes of a number"
            ),
        )
    say(3, wrong)

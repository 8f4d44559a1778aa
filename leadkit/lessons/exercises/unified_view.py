"""The checks of lesson 01, unified view."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from leadkit import scores
from leadkit.lessons.exercises.answers import Wrong, exercise, judge, normal, numbers

LAYERS = (2, 4)  # that the case asks for, of four


@exercise(lesson=1, number=1, grade="medium")
def layer_scores(forward: object) -> None:
    """The forward pass of a DE: one slice of scores per selected layer, Eq. (1).

    forward: hidden states of queries and of passages, L + 1 tensors (B, X, H) and (N, Y, H) each,
        the embeddings first; the layers, from 1 -> layer scores (K, B, N).
    """
    states = normal(*[(2, 3, 4)] * 5, *[(3, 6, 4)] * 5)
    queries, passages = states[:5], states[5:]  # each L + 1 states

    def slices(layers: Iterable[int]) -> Tensor:
        return torch.stack([queries[i][:, 0] @ passages[i][:, 0].T for i in layers])  # (K, B, N)

    right = slices(LAYERS)
    means = [queries[i].mean(1) @ passages[i].mean(1).T for i in LAYERS]
    mistakes = {
        (
            "the layers are off by one: state 0 is the embeddings, so layer i is state i, not "
            "state i - 1"
        ): slices(i - 1 for i in LAYERS),
        "you count the layers from the top: layer 1 is the state after the first block": slices(
            -i for i in LAYERS
        ),
        "these are all layers: answer for the selected ones, in their order": slices(range(1, 5)),
        "these are all states, the embeddings too: answer for the selected layers": slices(
            range(5)
        ),
        "rows and columns are swapped: a row per query, a column per passage": right.mT,
        "this is the final layer alone: answer for every selected layer": slices([4]),
        "these are means over all tokens: Eq. (1) takes the state of [CLS], position 0": (
            torch.stack(means)
        ),
        (
            "this is a mean over the layers: layer scores keep the layers apart, (K, B, N)"
        ): right.mean(0),
        "these are distributions: a layer score is the plain product": right.softmax(-1),
    }
    judge(
        "forward",
        forward,
        right,
        mistakes,
        "these are not the products of the [CLS] states of the selected layers",
        [(queries, passages, LAYERS)],
    )


@exercise(lesson=1, number=2, grade="easy")
def not_symmetric(query_states: object, passage_states: object) -> None:
    """A query and a passage whose MaxSim changes when they change places.

    query_states, passage_states: token states (X, H) and (Y, H).
    """
    q = numbers("query_states", query_states, (None, None))
    p = numbers("passage_states", passage_states, (None, None))
    if q.shape[1] != p.shape[1]:
        raise Wrong(
            f"a query token has {q.shape[1]} numbers and a passage token {p.shape[1]}: no dot "
            "product joins them"
        )
    if len(q) == len(p) == 1:
        raise Wrong(
            "with one token on each side MaxSim is the dot product, and a dot product is symmetric"
        )

    def maxsim(a: np.ndarray, b: np.ndarray) -> float:
        states = torch.tensor(a)[None, None], torch.tensor(b)[None, None]
        return scores.maxsim(*states, torch.ones(1, len(b))).item()

    there = maxsim(q, p)
    if np.isclose(there, maxsim(p, q)):
        raise Wrong(f"with these states MaxSim is {there:g} both ways round")


@exercise(lesson=1, number=3, grade="medium")
def query_padding(
    q: Tensor, p: Tensor, p_mask: Tensor, same_order: object, other_order: object
) -> None:
    """What a padded query position does to the scores if it counts.

    same_order, other_order: its state (H,); one must keep the ranking, the other change it.
    q: query tokens (X, H). p: passages (N, Y, H) with p_mask (N, Y), none of them tied for q.
    """

    def rank(x: Tensor) -> Tensor:
        return scores.maxsim(x[None, None], p[None], p_mask)[0, 0]  # (N,), no q_mask

    before = rank(q)
    for name, answer in (("same_order", same_order), ("other_order", other_order)):
        state = numbers(name, answer, q.shape[1:])
        padding = torch.tensor(state, dtype=q.dtype)[None]  # (1, H)
        after = rank(torch.cat([q, padding]))
        if torch.allclose(before, after):
            raise Wrong(
                f"{name} changes no score: padding that adds 0 to every passage does no harm"
            )
        if after.unique().numel() < after.numel():
            raise Wrong(f"{name} leaves two passages with the same score: choose one without a tie")
        changed = not torch.equal(before.argsort(), after.argsort())
        if changed and name == "same_order":
            raise Wrong(f"{name} changes the ranking too")
        if not changed and name == "other_order":
            raise Wrong(f"{name} changes the scores, but not the ranking")

"""What the warmed-up models say: their layers, how many are heard, how sure the student is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from leadkit import losses, selection
from leadkit.experiments.agreement import first_steps
from leadkit.experiments.distillation import Distil
from leadkit.experiments.paper_methods import LEAD, evened
from leadkit.models.batch import Batch
from leadkit.models.retriever import Retriever

TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)
TIMES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # the student's scores
DRAWS = 8  # selections of layers per batch and K


@dataclass(frozen=True)
class Answers:
    """The scores of every layer of both models for a batch."""

    student: Tensor  # (M, B, C)
    teacher: Tensor  # (N, B, C)
    positive: Tensor  # (B,)


def answers(stage: Distil, batches: int = 8) -> list[Answers]:
    """Those of the first batches of a distillation, with both models as they are before it.

    Where the method is LEAD with `even_spread` they are scaled as in its loss.
    """
    even = isinstance(stage.method, LEAD) and stage.method.even_spread
    every = []
    for step in first_steps(stage, batches):
        student, teacher = (
            _all_layers(step.models[name].eval(), step.batches[name])
            for name in ("student", "teacher")
        )
        if even:
            student = evened(student, student[-1])  # (M, B, C)
            teacher = evened(teacher, teacher[-1])  # (N, B, C)
        every.append(Answers(student, teacher, step.batches["student"].positive))
    return every


@torch.no_grad()
def _all_layers(model: Retriever, batch: Batch) -> Tensor:
    return model(batch, tuple(range(1, model.layers + 1)))[0]  # (L, B, C)


def layer_features(every: Sequence[Answers], tau_d: float = 1.0) -> list[dict[str, Any]]:
    """A line per model and layer, means over the queries.

    entropy: of the layer feature at tau_d, in nats. limit: ln C, that of a feature that says
    nothing. nll: of the positive, in nats. right: share of queries whose positive is first.
    spread: standard deviation of a query's scores.
    """
    lines = []
    for name in ("teacher", "student"):
        said = torch.stack([_says(getattr(one, name), one.positive, tau_d) for one in every])
        limit = math.log(every[0].student.shape[-1])
        for layer, values in enumerate(said.mean(0).tolist(), start=1):
            entropy, nll, right, spread = values
            line = {"model": name, "layer": layer, "entropy": entropy, "limit": limit}
            lines.append(line | {"nll": nll, "right": right, "spread": spread})
    return lines


def _says(scores: Tensor, positive: Tensor, tau_d: float) -> Tensor:
    """Scores (L, B, C) -> (L, 4): entropy, NLL, share of right answers, spread of the scores."""
    log_p = (scores / tau_d).log_softmax(-1)  # (L, B, C)
    # -\sum_p t_p \log t_p
    entropy = -(log_p.exp() * log_p).sum(-1)  # (L, B)
    right = (scores.argmax(-1) == positive).float()  # (L, B)
    every = entropy, losses.nll(scores, positive), right, scores.std(-1)
    return torch.stack([values.mean(-1) for values in every], -1)  # (L, 4)


def sureness(every: Sequence[Answers], times: Sequence[float] = TIMES) -> list[dict[str, float]]:
    """A line per factor by which the student's final scores are multiplied.

    entropy: in nats, 0 for a student that is sure. nll: of the positive, lowest where it is as sure
    as it is right.
    """
    lines = []
    for factor in times:
        said = [_says(factor * one.student[-1:], one.positive, 1.0)[0] for one in every]  # (4,)
        entropy, nll, _, _ = torch.stack(said).mean(0).tolist()
        lines.append({"times": factor, "entropy": entropy, "nll": nll})
    return lines


def heard_by_temperature(every: Sequence[Answers]) -> list[dict[str, Any]]:
    """A line per K and tau_l: the effective number of layers heard of K drawn teacher layers.

    A mean over the queries and over `DRAWS` random selections per batch.
    """
    M, N = len(every[0].student), len(every[0].teacher)
    generator = Generator().manual_seed(0)
    lines = []
    for k in range(1, M + 1):
        drawn = [
            (one.teacher[[layer - 1 for layer in layers]], one.positive)  # (K, B, C), (B,)
            for one in every
            for layers in _teacher_layers(k, M, N, generator)
        ]
        for tau_l in TEMPERATURES:
            weights = [losses.layer_weights(*each, tau_l) for each in drawn]  # (K, B) each
            heard = torch.stack([selection.layers_heard(each).mean() for each in weights])
            lines.append({"k": k, "tau_l": tau_l, "heard": heard.mean().item()})
    return lines


def _teacher_layers(k: int, M: int, N: int, generator: Generator) -> list[tuple[int, ...]]:
    return [selection.random_layers(k, M, N, generator)[1] for _ in range(DRAWS)]


def added_to_last(scores: Tensor, positive: Tensor) -> list[dict[str, float]]:
    r"""What each layer but the last knows that the last one does not say: a line per layer.

    scores: (L, Q, C). positive: (Q,). With two weights, fitted on one half of the queries, the
    scores $a\,z_L + b\,z_i$ name the positive of the other half; $a\,z_L$ alone does so too.
    gain: how much better both together are, in nats. low, high: its 95% interval over the queries.
    share: of the queries whose positive layer i gives more probability than the last layer does.
    """
    scores = scores.double()
    said = losses.nll(scores, positive)  # (L, Q)
    alone = _held_out(scores[-1:], positive)  # (Q,)
    lines = []
    for layer, each in enumerate(scores[:-1], start=1):
        gain = alone - _held_out(torch.stack([each, scores[-1]]), positive)  # (Q,)
        half = 1.96 * gain.std() / len(gain) ** 0.5
        values = gain.mean(), gain.mean() - half, gain.mean() + half
        line = dict(zip(("gain", "low", "high"), map(float, values), strict=True))
        share = float((said[layer - 1] < said[-1]).double().mean())
        lines.append({"layer": layer} | line | {"share": share})
    return lines


def _held_out(scores: Tensor, positive: Tensor) -> Tensor:
    """NLL (Q,) of weighted sums of scores (J, Q, C), each half with the weights of the other."""
    first = torch.arange(len(positive)) % 2 == 0  # (Q,)
    values = torch.empty(len(positive), dtype=scores.dtype)
    for half in (first, ~first):
        weights = _fitted(scores[:, ~half], positive[~half])  # (J,)
        mixed = torch.einsum("j,jqc->qc", weights, scores[:, half])  # (Q/2, C)
        values[half] = losses.nll(mixed, positive[half])
    return values


def _fitted(scores: Tensor, positive: Tensor) -> Tensor:
    """The weights (J,) of least NLL, from those of the last score alone."""
    weights = torch.zeros(len(scores), dtype=scores.dtype)
    weights[-1] = 1
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = losses.nll(torch.einsum("j,jqc->qc", weights, scores), positive).mean()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()

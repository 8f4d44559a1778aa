"""What the layers of the warmed-up models say, and how many of them a temperature lets through."""

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


def heard_by_temperature(
    every: Sequence[Answers], temperatures: Sequence[float] = TEMPERATURES
) -> list[dict[str, Any]]:
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
        for tau_l in temperatures:
            weights = [losses.layer_weights(*each, tau_l) for each in drawn]  # (K, B) each
            heard = torch.stack([selection.layers_heard(each).mean() for each in weights])
            lines.append({"k": k, "tau_l": tau_l, "heard": heard.mean().item()})
    return lines


def _teacher_layers(k: int, M: int, N: int, generator: Generator) -> list[tuple[int, ...]]:
    return [selection.random_layers(k, M, N, generator)[1] for _ in range(DRAWS)]

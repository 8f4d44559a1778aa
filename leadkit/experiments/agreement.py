"""Whether the parts of LEAD's loss pull the student the same way: cosines of their gradients."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from leadkit.experiments.distillation import Distil
from leadkit.experiments.method import Step
from leadkit.models.encoders import blocks
from leadkit.training.loop import seed_step

# Parts of the loss that are compared; see `leadkit.losses.Loss`.
PAIRS = (("layer", "student"), ("response", "student"), ("layer", "response"))


def first_steps(stage: Distil, batches: int) -> Iterator[Step]:
    """The first steps of a distillation, with both models as they are before it."""
    if batches < 1:
        raise ValueError(f"batches is {batches}: at least one is needed")
    assert stage.teacher is not None
    teacher = stage.teacher.model().train(stage.method.trains_teacher)
    models = {"student": stage.student.model().train(), "teacher": teacher}
    texts = {name: stage.batches(model.tower) for name, model in models.items()}
    for number in range(batches):
        seed_step(stage.seed, number)
        yield stage.step(number, models, texts)


def block_gradients(loss: Tensor, pile: Iterable[nn.Module]) -> list[Tensor]:
    """The gradient of a scalar in the parameters of each block: one vector per block."""
    parameters = [list(block.parameters()) for block in pile]
    flat = sum(parameters, [])
    each = iter(torch.autograd.grad(loss, flat, retain_graph=True, materialize_grads=True))
    return [torch.cat([next(each).flatten() for _ in block]) for block in parameters]


def cosine(first: Tensor, second: Tensor) -> float:
    """Of two vectors; NaN where one is zero, as in blocks above the highest selected layer."""
    if not (first.any() and second.any()):
        return float("nan")
    return float(cosine_similarity(first.double(), second.double(), dim=0))


def gradient_cosines(stage: Distil, batches: int = 8) -> list[dict[str, Any]]:
    """A line per pair of loss parts and block of the student, from 1, for the first batches.

    mean and sd of the cosine over the batches in which both gradients exist, and how many they are
    (`batches`). ratio: length of the first gradient over that of the second, a mean.
    """
    cosines: dict[tuple[str, str, int], list[float]] = {}
    ratios: dict[tuple[str, str, int], list[float]] = {}
    for step in first_steps(stage, batches):
        pile = blocks(step.models["student"].encoder)
        parts = stage.method.parts(step)
        names = {name for pair in PAIRS for name in pair}
        gradients = {name: block_gradients(parts[name], pile) for name in sorted(names)}
        for first, second in PAIRS:
            pairs = zip(gradients[first], gradients[second], strict=True)
            for block, (one, other) in enumerate(pairs, start=1):
                cosines.setdefault((first, second, block), []).append(cosine(one, other))
                ratio = float(one.norm() / other.norm())
                ratios.setdefault((first, second, block), []).append(ratio)
    return [
        {"first": first, "second": second, "block": block}
        | _summary(np.array(values), np.array(ratios[first, second, block]))
        for (first, second, block), values in cosines.items()
    ]


def _summary(cosines: np.ndarray, ratios: np.ndarray) -> dict[str, float | None]:
    there = np.isfinite(cosines)
    kept = cosines[there]
    return {
        "mean": float(kept.mean()) if len(kept) else None,
        "sd": float(kept.std(ddof=1)) if len(kept) > 1 else None,
        "ratio": float(ratios[there].mean()) if len(kept) else None,
        "batches": len(kept),
    }

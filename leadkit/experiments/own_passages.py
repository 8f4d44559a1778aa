"""The control of a CE's students: they train alone, and see no in-batch negatives either."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leadkit import losses
from leadkit.experiments.method import Method, Step, logged


@dataclass(frozen=True)
class OwnPassages(Method):
    """No teacher; each query is scored against its own passages, as with a CE teacher (4.3.2)."""

    name = "student, own passages"
    needs_teacher = False
    least_passages = 2  # alone, a positive has nothing to be told from

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        own = replace(batch, own=True, positive=torch.zeros_like(batch.positive))
        _, final = step.models["student"](own)  # (B, n)
        return logged(losses.student_loss(final, own.positive))

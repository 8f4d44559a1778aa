"""The control of a CE's students: they train alone, and see no in-batch negatives either."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leadkit import losses
from leadkit.experiments.method import Step, logged
from leadkit.experiments.paper_methods import Alone


@dataclass(frozen=True)
class OwnPassages(Alone):
    """No teacher; each query is scored against its own passages, as with a CE teacher (4.3.2)."""

    name = "student, own passages"

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        own = replace(batch, own=True, positive=torch.zeros_like(batch.positive))
        _, final = step.models["student"](own)  # (B, n)
        return logged(losses.student_loss(final, own.positive))

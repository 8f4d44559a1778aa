"""RD, and layers of the student that learn what its last layer learns (Lee et al., AISTATS 2015).

Two controls of LEAD's layer loss. As many layers of the student are taught, drawn alike, but
nothing is heard of the teacher's other layers.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from leadkit import losses
from leadkit.config import Lead
from leadkit.experiments.method import Method, Step, check_selection
from leadkit.models.tower import Tower


@dataclass(frozen=True)
class DeepLabel(Method):
    """RD, and the label in k layers of the student, drawn as in LEAD."""

    name = "RD + deep label"
    k: int = 5
    tau_d: float = 1.0

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.k, lead.tau_d)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        check_selection(Lead(self.k), student, teacher)

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        layers, _ = step.layers(Lead(self.k))
        with torch.no_grad():
            _, teacher_final = step.models["teacher"](step.batches["teacher"])
        student_scores, student_final = step.models["student"](batch, layers)
        rd = losses.response_loss(student_final, teacher_final, batch.positive, tau_d=self.tau_d)
        layer = self.layer_loss(student_scores, teacher_final, batch.positive)
        total = rd.total + layer
        return {"total": total, "layer": layer, "response": rd.response, "student": rd.student}

    def layer_loss(self, student: Tensor, teacher_final: Tensor, positive: Tensor) -> Tensor:
        """Student's layer scores (K, B, C), teacher's final scores (B, C), positive (B,) -> ()."""
        # -\frac{1}{K} \sum_i \log s_{b_i, p^+}
        return losses.nll(student, positive).mean()  # (K, B) -> ()


class DeepResponse(DeepLabel):
    """RD, and the teacher's final scores in k layers of the student, drawn as in LEAD."""

    name = "RD + deep response"

    def layer_loss(self, student: Tensor, teacher_final: Tensor, positive: Tensor) -> Tensor:
        # \frac{1}{K} \sum_i D_{KL}(t_N / \tau_d, s_{b_i} / \tau_d)
        return losses.kl(teacher_final, student, self.tau_d).mean()  # (K, B) -> ()

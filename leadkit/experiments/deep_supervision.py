"""RD, and layers of the student that learn what its last layer learns (Lee et al., AISTATS 2015).

Controls of LEAD's layer loss. As many layers of the student are taught, drawn alike, but nothing
is heard of how the teacher's other layers rank; `DeepSoftResponse` hears how sure they are.
The methods below `LastLayer` give their targets to the student's last layer alone.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from leadkit import losses
from leadkit.config import Lead
from leadkit.experiments.method import Method, Step, check_selection
from leadkit.models.tower import Tower

WIDEST = 8.0  # |ln tau| of the hardest and the softest targets
HALVINGS = 25  # of that range


@dataclass(frozen=True)
class DeepLabel(Method):
    """RD, and the label in k layers of the student, drawn at random as in LEAD."""

    name = "RD + deep label"
    k: int = 5
    tau_d: float = 1.0

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.k, lead.tau_d)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        super().check(student, teacher)
        check_selection(Lead(self.k), student, teacher)

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        student_layers, teacher_layers = step.layers(Lead(self.k))
        with torch.no_grad():
            teacher, teacher_final = step.models["teacher"](step.batches["teacher"], teacher_layers)
        student, student_final = step.models["student"](batch, student_layers)
        rd = losses.response_loss(student_final, teacher_final, batch.positive, tau_d=self.tau_d)
        taught = self.taught(student, student_final)
        layer = self.layer_loss(taught, teacher, teacher_final, batch.positive)
        total = rd.total + layer
        return {"total": total, "layer": layer, "response": rd.response, "student": rd.student}

    def taught(self, layers: Tensor, final: Tensor) -> Tensor:
        """What hears the targets (K, B, C): the student's layers, or its final scores K times."""
        return layers

    def layer_loss(
        self, student: Tensor, teacher: Tensor, teacher_final: Tensor, positive: Tensor
    ) -> Tensor:
        """Of student and teacher (K, B, C), teacher_final (B, C), positive (B,) -> ().

        student: the scores that are taught, see `taught`.
        """
        # -\frac{1}{K} \sum_i \log s_{b_i, p^+}
        return losses.nll(student, positive).mean()  # (K, B) -> ()


class DeepResponse(DeepLabel):
    """RD, and the teacher's final scores in k layers of the student, drawn at random."""

    name = "RD + deep response"

    def layer_loss(
        self, student: Tensor, teacher: Tensor, teacher_final: Tensor, positive: Tensor
    ) -> Tensor:
        # \frac{1}{K} \sum_i D_{KL}(t_N / \tau_d, s_{b_i} / \tau_d)
        return losses.kl(teacher_final, student, self.tau_d).mean()  # (K, B) -> ()


class DeepSoftResponse(DeepLabel):
    """The same, but to each layer the final scores are as soft as the teacher layer drawn for it.

    So it learns how sure that layer is, and not how it ranks.
    """

    name = "RD + deep soft response"

    def layer_loss(
        self, student: Tensor, teacher: Tensor, teacher_final: Tensor, positive: Tensor
    ) -> Tensor:
        # \frac{1}{K} \sum_i D_{KL}(t_N / (\tau_i \tau_d), s_{b_i} / \tau_d)
        return losses.kl(as_soft(teacher_final, teacher), student, self.tau_d).mean()  # -> ()


class LastLayer(DeepLabel):
    """The targets are all for the student's last layer: no other layer is taught."""

    def taught(self, layers: Tensor, final: Tensor) -> Tensor:
        return final.expand_as(layers)  # (B, C) -> (K, B, C)


class Response(LastLayer, DeepResponse):
    """RD whose response loss counts twice."""

    name = "RD + response"


class SoftResponse(LastLayer, DeepSoftResponse):
    """RD, and its response loss once more with the soft targets."""

    name = "RD + soft response"


@dataclass(frozen=True)
class TemperedResponse(LastLayer):
    """RD, and its response loss once more with targets of one temperature.

    Nothing of the teacher's layers is heard, not even how sure they are.
    """

    name = "RD + tempered response"
    temperature: float = 2.0  # ours

    def __post_init__(self) -> None:
        losses.check_temperature("temperature", self.temperature)

    def layer_loss(
        self, student: Tensor, teacher: Tensor, teacher_final: Tensor, positive: Tensor
    ) -> Tensor:
        # D_{KL}(t_N / (\tau \tau_d), s_M / \tau_d)
        return losses.kl(teacher_final / self.temperature, student, self.tau_d).mean()  # -> ()


def as_soft(scores: Tensor, like: Tensor) -> Tensor:
    """Scores (B, C), divided so that they are as unsure as other ones (K, B, C): -> (K, B, C).

    Unsure is the entropy of the softmax.

    >>> soft = as_soft(torch.tensor([[8.0, 0.0]]), torch.tensor([[[0.0, 1.0]]]))
    >>> soft.round(decimals=3)
    tensor([[[1., 0.]]])
    """
    wanted = _entropy(like)  # (K, B, 1)
    low, high = torch.full_like(wanted, -WIDEST), torch.full_like(wanted, WIDEST)
    # H(\mathrm{softmax}(t_N / \tau_i)) = H(\mathrm{softmax}(t_{a_i})); the left side grows with tau
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        softer = _entropy(scores / middle.exp()) > wanted
        low, high = torch.where(softer, low, middle), torch.where(softer, middle, high)
    return scores / ((low + high) / 2).exp()  # (K, B, C)


def _entropy(scores: Tensor) -> Tensor:
    """Scores (..., C) -> entropy of their softmax in nats, (..., 1)."""
    return torch.special.entr(scores.softmax(-1)).sum(-1, keepdim=True)

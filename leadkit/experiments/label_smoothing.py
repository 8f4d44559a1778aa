"""Label smoothing (Szegedy et al., CVPR 2016, section 7): soft targets that name no other passage.

Controls of soft targets: what do they do where they say nothing about the wrong passages?
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from leadkit import losses
from leadkit.experiments.deep_supervision import LastLayer, as_soft
from leadkit.experiments.method import Method, Step


@dataclass(frozen=True)
class SmoothAlone(Method):
    """No teacher: the student goes on alone, its label smoothed."""

    name = "student + smooth label"
    needs_teacher = False
    smoothing: float = 0.2  # the share of the label that all passages share; ours

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}: it must be from 0 to below 1")

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        _, final = step.models["student"](batch)  # (B, C)
        # -\sum_p ((1 - \epsilon) y_p + \epsilon / C) \log s_p
        total = cross_entropy(final, batch.positive, label_smoothing=self.smoothing)
        return {"total": total, "student": losses.nll(final, batch.positive).mean()}


class SmoothLabel(LastLayer):
    """RD, and the label, smoothed until it is as unsure as the teacher layer drawn.

    So the targets are soft, and all wrong passages are equal in them.
    """

    name = "RD + smooth label"

    def layer_loss(
        self, student: Tensor, teacher: Tensor, teacher_final: Tensor, positive: Tensor
    ) -> Tensor:
        label = one_hot(positive, teacher_final.shape[-1]).to(teacher_final)  # (B, C)
        # \frac{1}{K} \sum_i D_{KL}(y / \tau_i, s_M)
        return losses.kl(as_soft(label, teacher), student).mean()  # (K, B) -> ()

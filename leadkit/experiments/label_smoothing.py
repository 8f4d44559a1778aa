"""Label smoothing (Szegedy et al., CVPR 2016, section 7): soft targets that name no other passage.

Controls of soft targets: what do they do where they say nothing about the wrong passages?
"""

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from leadkit import losses
from leadkit.experiments.deep_supervision import LastLayer, as_soft
from leadkit.experiments.method import Method, Step, check_selection
from leadkit.experiments.paper_methods import LEAD
from leadkit.models.tower import Tower

SMOOTHING = 0.2  # the share of the label that all passages share; ours


@dataclass(frozen=True)
class SmoothAlone(Method):
    """No teacher: the student goes on alone, its label smoothed."""

    name = "student + smooth label"
    needs_teacher = False
    smoothing: float = SMOOTHING

    def __post_init__(self) -> None:
        check_smoothing(self.smoothing)

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        _, final = step.models["student"](batch)  # (B, C)
        total = smoothed_loss(final, batch.positive, self.smoothing)
        return {"total": total, "student": losses.nll(final, batch.positive).mean()}


@dataclass(frozen=True)
class SmoothLEAD(LEAD):
    """LEAD, and its student's label is smoothed: does LEAD add anything to doubt?"""

    name = "LEAD + smooth label"
    smoothing: float = SMOOTHING

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.smoothing)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        Method.check(self, student, teacher)
        if self.variant != "paper":
            raise ValueError(
                f"method {self.name!r} is no part of the released code: use variant 'paper'"
            )
        check_selection(self, student, teacher)

    def weigh(self, loss: losses.Loss, final: Tensor, positive: Tensor) -> losses.Loss:
        smoothed = smoothed_loss(final, positive, self.smoothing)
        total = loss.total - loss.student + smoothed
        return super().weigh(replace(loss, total=total), final, positive)


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


def check_smoothing(smoothing: float) -> None:
    """ValueError unless it is a share below one."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}: it must be from 0 to below 1")


def smoothed_loss(scores: Tensor, positive: Tensor, smoothing: float) -> Tensor:
    """Scores (B, C), positive (B,) -> the loss of the smoothed label, a mean over B."""
    # -\sum_p ((1 - \epsilon) y_p + \epsilon / C) \log s_p
    return cross_entropy(scores, positive, label_smoothing=smoothing)

"""Margin-MSE (Hofstätter et al., 2020, "Improving efficient neural ranking models ...", Eq. 5)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from leadkit.experiments.method import Method, Step
from leadkit.experiments.own_passages import own_scores


def margins(final: Tensor, positive: Tensor, n: int) -> Tensor:
    """How far the positive is above each of its query's own negatives.

    final (B, C), positive (B,) its column, n passages per query -> (B, n - 1).
    """
    own = own_scores(final, positive, n)  # (B, n)
    # M(q, p^+, p^-) = f(q, p^+) - f(q, p^-)
    return own[:, :1] - own[:, 1:]  # (B, n - 1)


@dataclass(frozen=True)
class MarginMSE(Method):
    """The student's margins follow the teacher's; there is no hard loss."""

    name = "margin-MSE"
    least_passages = 2  # a margin needs a negative

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        with torch.no_grad():
            _, teacher_final = step.models["teacher"](step.batches["teacher"])
        _, student_final = step.models["student"](batch)
        teacher_margins = margins(teacher_final, batch.positive, batch.n)  # (B, n - 1)
        student_margins = margins(student_final, batch.positive, batch.n)  # (B, n - 1)
        # L = MSE(M_s(q, p^+, p^-), M_t(q, p^+, p^-))
        return {"total": mse_loss(student_margins, teacher_margins)}

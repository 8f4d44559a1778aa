"""Which passages is a student trained against: its query's own, or all of the batch?

With a CE teacher it sees its query's own passages alone (section 4.3.2). These methods take apart
what that costs.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from leadkit import losses
from leadkit.config import Lead
from leadkit.experiments.method import Method, Step, logged


def own_scores(final: Tensor, positive: Tensor, n: int) -> Tensor:
    """Of scores (B, C) those of each query's own n passages, the positive first: (B, n).

    positive: (B,), its column.
    """
    columns = positive[:, None] + torch.arange(n, device=final.device)  # (B, n)
    return final.gather(1, columns)


@dataclass(frozen=True)
class OwnPassages(Method):
    """No teacher; each query is scored against its own passages, as with a CE teacher."""

    name = "student, own passages"
    needs_teacher = False
    least_passages = 2  # alone, a positive has nothing to be told from

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"].against(own=True)
        _, final = step.models["student"](batch)  # (B, n)
        return logged(losses.student_loss(final, batch.positive))


@dataclass(frozen=True)
class LabelOnOwn(Method):
    """No teacher; the hard loss over all passages of the batch, and again over the query's own.

    What "RD on own passages" is without its teacher.
    """

    name = "student + label on own passages"
    needs_teacher = False
    least_passages = 2

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        _, final = step.models["student"](batch)  # (B, N)
        own = own_scores(final, batch.positive, batch.n)  # (B, n)
        # -\log s_{p^+} over the query's own passages, and over all of the batch
        near = losses.nll(own, torch.zeros_like(batch.positive)).mean()  # (B,) -> ()
        student = losses.nll(final, batch.positive).mean()  # (B,) -> ()
        return {"total": near + student, "near": near, "student": student}


@dataclass(frozen=True)
class ResponseOnOwn(Method):
    """RD whose hard loss has all passages of the batch, and whose response loss the query's own.

    So a CE can teach a student that keeps its in-batch negatives.
    """

    name = "RD on own passages"
    least_passages = 2
    tau_d: float = 1.0

    def __post_init__(self) -> None:
        losses.check_temperature("tau_d", self.tau_d)

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.tau_d)

    def parts(self, step: Step) -> dict[str, Tensor]:
        asked = step.batches["teacher"]
        with torch.no_grad():
            _, teacher_final = step.models["teacher"](asked)  # (B, C)
        batch = step.batches["student"].against(own=False)
        _, final = step.models["student"](batch)  # (B, N)
        teacher_own = own_scores(teacher_final, asked.positive, asked.n)  # (B, n)
        student_own = own_scores(final, batch.positive, batch.n)  # (B, n)
        # L_{rep} = D_{KL}(t_N / \tau_d, s_M / \tau_d) over the query's own passages
        response = losses.kl(teacher_own, student_own, self.tau_d).mean()  # (B,) -> ()
        student = losses.nll(final, batch.positive).mean()  # (B,) -> ()
        return {"total": response + student, "response": response, "student": student}

"""The losses of PROD and MTA4DPR, the two papers beside LEAD, and how MTA4DPR compares rankings.

Shapes: A assistants, K layers, B queries, C candidate passages. A loss is in nats and is a mean
over the B queries.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leadkit.losses import Loss, kl, response_loss


@dataclass(frozen=True)
class ProgressiveLoss(Loss):
    """PROD: hard * student + soft * response + keep * keep. No layer and no teacher part."""

    keep: Tensor | None = None  # L_keep, 0 without a copy of the earlier student


def progressive_loss(
    student_final: Tensor,
    teacher_final: Tensor,
    before_final: Tensor | None,
    positive: Tensor,
    *,
    hard: float = 0.1,
    soft: float = 0.9,
    keep: float = 1.0,
    tau_d: float = 4.0,
) -> ProgressiveLoss:
    """PROD's loss: the labels, the teacher, and what the student knew when the stage began.

    student_final, teacher_final, before_final: final scores, (B, C). positive: (B,) long.
    before_final: of a frozen copy of the student, made when the stage began. None leaves L_keep
    out. Neither the teacher nor the copy gets a gradient. Errors as in `losses.response_loss`.

    >>> even, odd = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> progressive_loss(odd, even, odd, positive=torch.tensor([0]), tau_d=1.0).response
    tensor(0.1201)
    """
    taught = response_loss(student_final, teacher_final, positive, tau_d=tau_d)
    # L_{soft} = \tau_d^2 D_{KL}(t / \tau_d, s / \tau_d)
    response = tau_d**2 * taught.response
    zero = response.new_zeros(())
    kept = zero
    if before_final is not None:
        # L_{keep} = \tau_d^2 D_{KL}(s^{before} / \tau_d, s / \tau_d)
        kept = tau_d**2 * kl(before_final.detach(), student_final, tau_d).mean()  # (B,) -> ()
    # L = \alpha L_{hard} + \beta L_{soft} + \gamma L_{keep}
    total = hard * taught.student + soft * response + keep * kept
    return ProgressiveLoss(total, zero, response, zero, taught.student, keep=kept)


@dataclass(frozen=True)
class AssistedLoss(Loss):
    """MTA4DPR. `response` is the teacher's, `layer` the teacher's plus the assistant's."""

    assistant: Tensor | None = None  # response of the assistant, 0 without one


def assisted_loss(
    teacher: Loss,
    assistant: Loss | None,
    *,
    hard: float = 1.0,
    soft: float = 1.0,
    assist: float = 1.0,
) -> AssistedLoss:
    """MTA4DPR's loss: the labels, a frozen teacher, and the selected assistant.

    teacher, assistant: the loss of the same student scores against each of them, computed by
    `losses.response_loss`, or by `losses.lead_loss` for MTA4DPR + LEAD. None: no assistant.

    >>> even, odd = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> taught = response_loss(odd, even, positive=torch.tensor([0]))
    >>> assisted_loss(taught, taught).assistant
    tensor(0.1201)
    """
    zero = teacher.student.new_zeros(())
    response = assistant.response if assistant else zero
    layer = assistant.layer if assistant else zero
    # L = \alpha L_{stu} + \beta (D_{KL}(t, s) + L_{lyr}^t) + \gamma (D_{KL}(a, s) + L_{lyr}^a)
    from_teacher = soft * (teacher.response + teacher.layer)
    from_assistant = assist * (response + layer)
    return AssistedLoss(
        total=hard * teacher.student + from_teacher + from_assistant,
        layer=teacher.layer + layer,
        response=teacher.response,
        teacher=zero,
        student=teacher.student,
        weights=teacher.weights,
        assistant=response,
    )


def fuse(scores: Tensor, tau_d: float = 1.0) -> Tensor:
    """MTA4DPR's fused assistant: scores (A, ..., C) of A assistants -> scores (..., C).

    At temperature tau_d, its distribution is the mean of the assistants' distributions.

    >>> scores = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log()
    >>> fuse(scores).exp()
    tensor([0.6000, 0.4000])
    """
    log_p = (scores / tau_d).log_softmax(-1)  # (A, ..., C)
    # f = \tau_d \log \frac{1}{A} \sum_a \mathrm{softmax}(f_a / \tau_d)
    return tau_d * (log_p.logsumexp(0) - math.log(len(scores)))  # (..., C)


def ranks(scores: Tensor) -> Tensor:
    """The rank of each candidate, 0 for the best: scores (..., C) -> (..., C).

    Ties keep their order.

    >>> scores = torch.tensor([1.0, 3.0, 2.0])
    >>> ranks(scores)
    tensor([2, 0, 1])
    """
    best_first = scores.argsort(dim=-1, descending=True, stable=True)  # (..., C)
    return best_first.argsort(-1)  # (..., C)


def footrule(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's footrule between the rankings of two scores (..., C) -> (...).

    It is divided by its maximum: 0 for the same ranking, 1 for the reversed one.

    >>> a = torch.tensor([3.0, 2.0, 1.0])
    >>> footrule(a, a), footrule(a, -a)
    (tensor(0.), tensor(1.))
    """
    C = a.shape[-1]
    largest = max(1, C * C // 2)  # 1 where there is one candidate
    # F = \frac{\sum_p |r_a(p) - r_b(p)|}{\lfloor C^2 / 2 \rfloor}
    return (ranks(a) - ranks(b)).abs().sum(-1) / largest  # (...)


def rbo(a: Tensor, b: Tensor, p: float) -> Tensor:
    """Rank-biased overlap (Webber et al., 2010) of the rankings of two scores (..., C) -> (...).

    1 for the same ranking; the less the two agree near the top, the nearer to 0. A reader goes on
    to the next rank with probability p. Both rankings hold the same C candidates and agree from
    depth C on, so the infinite sum has a closed form.

    >>> a = torch.tensor([3.0, 2.0])
    >>> rbo(a, a, p=0.5), rbo(a, -a, p=0.5)
    (tensor(1.), tensor(0.5000))
    """
    # A candidate is among the first d of both rankings if its later rank is below d.
    later = torch.maximum(*torch.broadcast_tensors(ranks(a), ranks(b)))  # (..., C)
    entering = torch.zeros_like(later).scatter_add(-1, later, torch.ones_like(later))
    # |a_{1:d} \cap b_{1:d}|, d = 1 .. C
    shared = entering.cumsum(-1)  # (..., C)
    d = torch.arange(1, later.shape[-1] + 1, device=later.device)  # (C,)
    # A_d = |a_{1:d} \cap b_{1:d}| / d
    agreement = shared / d  # (..., C)
    # RBO = (1 - p) \sum_{d=1}^{\infty} p^{d-1} A_d = (1 - p) \sum_{d=1}^{C} p^{d-1} A_d + p^C
    return (1 - p) * (p ** (d - 1) * agreement).sum(-1) + p ** len(d)  # (...)

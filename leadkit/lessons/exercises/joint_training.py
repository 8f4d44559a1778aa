"""The checks of lesson 05, joint training."""

from functools import cache

import torch
from torch import Tensor

from leadkit import losses
from leadkit.lessons.exercises.answers import exercise, judge, judge_gradients, normal


@exercise(lesson=5, number=1, grade="hard")
def lead_total(total: object) -> None:
    """The joint loss of LEAD.

    total: student, teacher (K, B, C), student_final, teacher_final (B, C), positive (B,) -> the
        loss.
    Its value and its gradients are checked on random scores, at tau_d = tau_l = 1.
    """
    inputs = [x.requires_grad_() for x in normal((3, 4, 8), (3, 4, 8), (4, 8), (4, 8))]
    student, teacher, student_final, teacher_final = inputs
    positive = torch.tensor([0, 3, 7, 2])
    scores = student, teacher, student_final, teacher_final
    loss = losses.lead_loss(*scores, positive)
    alike = losses.lead_loss(*scores, positive, reweight=False)
    assert loss.weights is not None
    there = losses.kl(teacher_final, student_final).mean()
    back = losses.kl(student_final, teacher_final).mean()
    swapped = (loss.weights * losses.kl(student, teacher)).sum(0).mean()
    mistakes = {
        "the layer loss, Eq. (8), is missing": loss.total - loss.layer,
        "the response loss, Eq. (9), is missing": loss.total - loss.response,
        "the response loss looks one way only: KL(s, t) is missing": loss.total - back,
        "the response loss looks one way only: KL(t, s) is missing": loss.total - there,
        "the teacher's hard loss, Eq. (10), is missing": loss.total - loss.teacher,
        "the student's hard loss, Eq. (11), is missing": loss.total - loss.student,
        "the layers count alike: the weights of Eq. (7) are missing": alike.total,
        "the layer loss is divided by K, though its weights add up to one already": loss.total
        - loss.layer * 2 / 3,
        "the layer loss is KL(s, t): Eq. (6) has the teacher first": loss.total
        - loss.layer
        + swapped,
        "this adds up the queries: take their mean": 4 * loss.total,
    }
    otherwise = (
        "for random scores the value is not that of Eq. (12): compare the four terms one by one"
    )
    judge("lead_total", total, loss.total, mistakes, otherwise, [(*scores, positive)])
    reasons = (
        "the student's layers do not get the gradient of the layer loss",
        "the layer loss moves the teacher too: its layers must be detached",
        "something that should move the student's final scores is detached",
        "something that should move the teacher's final scores is detached",
    )
    assert callable(total)
    judge_gradients(lambda *given: total(*given, positive), inputs, loss.total, reasons)


@exercise(lesson=5, number=2, grade="hard")
def kl_gradients(gradients: object, bounded: object) -> None:
    """The gradients of KL(t, s) and KL(s, t) by the student's scores.

    gradients: scores t (C,) and s (C,) -> both gradients, (C,) each.
    bounded: the number of the gradient that is bounded, 1 or 2.
    """
    t, s = normal((5,), (5,))
    right = _autograd(t, s, by_teacher=False)  # (2, C)
    log_t, log_s = t.log_softmax(0), s.log_softmax(0)
    by_probability = torch.stack([-(log_t - log_s).exp(), log_s - log_t + 1])
    mistakes = {
        "the two are swapped: KL(t, s) comes first": right.flip(0),
        "both have the wrong sign": -right,
        "the first one has the wrong sign": right * torch.tensor([[-1], [1]]),
        "the second one has the wrong sign": right * torch.tensor([[1], [-1]]),
        "these are the gradients with respect to the teacher's scores": _autograd(
            t, s, by_teacher=True
        ),
        (
            "these are the gradients by the student's probabilities: its scores lie behind a "
            "softmax"
        ): by_probability,
        (
            "the second one does not add up to 0 over the candidates: a constant added to all "
            "scores must change nothing"
        ): torch.stack([right[0], log_s.exp() * (log_s - log_t)]),
        (
            "the second one does not add up to 0: a constant added to all scores must change "
            "nothing"
        ): torch.stack([right[0], log_s.exp() * (log_s - log_t + 1)]),
    }
    otherwise = "autograd gives something else"
    judge("kl_gradients", gradients, right, mistakes, otherwise, [(t, s)])
    sure = torch.tensor([0.0, -1000.0])
    extreme = _autograd(sure, torch.zeros(2), by_teacher=False).abs().amax(1)  # (2,)
    of_bounded = {
        ("that gradient is not bounded: let the teacher's probability of one candidate go to 0"): 1
        + extreme.argmax().item(),
    }
    otherwise = "bounded must be 1, for KL(t, s), or 2, for KL(s, t)"
    judge("bounded", bounded, 1 + extreme.argmin().item(), of_bounded, otherwise)


def _autograd(t: Tensor, s: Tensor, by_teacher: bool) -> Tensor:
    t, s = (x.clone().requires_grad_() for x in (t, s))
    return torch.stack(
        [
            torch.autograd.grad(loss, t if by_teacher else s)[0]
            for loss in (losses.kl(t, s), losses.kl(s, t))
        ]
    )


@exercise(lesson=5, number=3, grade="easy")
def without_teacher_loss(history: object) -> None:
    """The toy of section 7 with both KLs and without a hard loss.

    history: the teacher's probability of the positive before each of 60 steps.
    """
    right = _toy()
    mistakes = {
        "this begins after the first step: note the probability before each step": right[1:],
        "this teacher learns from the first KL only: the second is to stay": _toy(second=0)[:60],
        "this teacher learns from the second KL only: the first is not detached": _toy(detach=True)[
            :60
        ],
        "this teacher still has its hard loss: take it away": _toy(hard=1)[:60],
        "this teacher is frozen: both KLs are to move it": right[:1] * 60,
    }
    otherwise = (
        "the toy of section 7 with the loss KL(t, s) + KL(s, t) and nothing detached gives another "
        "curve"
    )
    judge("history", history, right[:60], mistakes, otherwise)


@cache
def _toy(detach: bool = False, second: float = 1, hard: float = 0) -> list[float]:
    """The teacher's probability of the positive before each of 60 steps, and after the last."""
    teacher = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    student = torch.tensor([[0.0, 3.0, 0.0]], requires_grad=True)
    optimizer, history = torch.optim.SGD([teacher, student], lr=0.5), []
    for _ in range(61):
        history.append(teacher.softmax(-1)[0, 0].item())
        first = losses.kl(teacher.detach() if detach else teacher, student)
        loss = (
            first
            + second * losses.kl(student, teacher)
            + hard * losses.nll(teacher, torch.tensor([0]))
        )
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return history

"""The losses of LEAD (paper, sections 3.3 and 3.4) and of its baselines: functions of scores, whatever gave them.

Shapes: K layers, B queries, C candidates. Losses are in nats, means over the B queries. Every KL divergence is computed
from log-probabilities on both sides, so it stays finite where a probability underflows to 0.

variant="paper" follows the equations, variant="released" the authors' code (microsoft/SimXNS, LEAD/util.py): tau_d
divides the target only, the weights are one per layer, gradients flow through the targets, even into a frozen teacher.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

VARIANTS = ("paper", "released")


@dataclass(frozen=True)
class Loss:
    """total = layer + response + teacher + student, all scalars, 0 where a part is absent.

    weights: the layers', without gradient; (K, B), in variant "released" (K,), None where no layer is distilled.
    """

    total: Tensor
    layer: Tensor
    response: Tensor
    teacher: Tensor
    student: Tensor
    weights: Tensor | None = None


def kl(teacher: Tensor, student: Tensor, tau_d: float = 1.0, variant: str = "paper") -> Tensor:
    """D_KL(softmax(teacher / tau_d) || softmax(student / tau_d)) of scores (..., C) -> (...).

    "released": the student is not divided.
    """
    log_t = (teacher / tau_d).log_softmax(-1)  # (..., C)
    log_s = (student / tau_d if variant == "paper" else student).log_softmax(-1)  # (..., C)
    # D_{KL}(t, s) = \sum_p t_p (\log t_p - \log s_p)
    return (log_t.exp() * (log_t - log_s)).sum(-1)  # (...)


def nll(scores: Tensor, positive: Tensor) -> Tensor:
    """Hard loss of each query: scores (..., B, C), positive (B,) the column of the positive -> (..., B)."""
    positive = positive.expand(scores.shape[:-1])[..., None]  # (..., B, 1)
    # -\log \frac{\exp(f(q, p^+))}{\sum_p \exp(f(q, p))}
    return -scores.log_softmax(-1).gather(-1, positive)[..., 0]  # (..., B)


def layer_weights(teacher: Tensor, positive: Tensor, tau_l: float = 1.0) -> Tensor:
    """Eq. (7) for each query: teacher scores (K, B, C) -> weights (K, B) that sum to 1 over the layers; no gradient."""
    # D_{KL}(y, t) = -\log t_{p^+}, since y is one-hot
    # w_i = \frac{\exp(-D_{KL}(y, t_{a_i}) / \tau_l)}{\sum_j \exp(-D_{KL}(y, t_{a_j}) / \tau_l)}
    return (-nll(teacher.detach(), positive) / tau_l).softmax(0)  # (K, B)


def lead_loss(
    student: Tensor,
    teacher: Tensor,
    student_final: Tensor,
    teacher_final: Tensor,
    positive: Tensor,
    *,
    tau_d: float = 1.0,
    tau_l: float = 1.0,
    joint: bool = True,
    reweight: bool = True,
    variant: str = "paper",
    teacher_layer_grad: bool = False,
) -> Loss:
    """LEAD, Eq. (6) to (12): scores of the selected layers (K, B, C), final scores (B, C), positive (B,) long.

    joint=False freezes the teacher: it gets no gradient, and its hard loss and D_KL(student, teacher) are left out.
    reweight=False: every weight is 1 / K ("released": 1). teacher_layer_grad: the layer loss trains a joint teacher too
    ("released": always). ValueError for shapes that do not agree, a positive outside 0 .. C - 1, a temperature <= 0, an
    unknown variant.
    """
    rest = response_loss(
        student_final, teacher_final, positive, tau_d=tau_d, joint=joint, variant=variant
    )
    if (
        student.dim() != 3
        or student.shape != teacher.shape
        or student.shape[1:] != student_final.shape
    ):
        raise ValueError(
            f"student is {tuple(student.shape)}, teacher {tuple(teacher.shape)}: "
            f"both must be (K, B, C) with (B, C) of student_final, {tuple(student_final.shape)}"
        )
    check_temperature("tau_l", tau_l)
    K, released = len(student), variant == "released"
    if not (released or joint and teacher_layer_grad):
        teacher = teacher.detach()
    if not reweight:
        weights = student.new_full(
            (K,) if released else student.shape[:2], 1 if released else 1 / K
        )
    elif released:
        weights = (-nll(teacher.detach(), positive).mean(1) / tau_l).softmax(0)  # (K,)
    else:
        weights = layer_weights(teacher, positive, tau_l)  # (K, B)
    # L_{lyr}^i = D_{KL}(t_{a_i} / \tau_d, s_{b_i} / \tau_d)
    each = kl(teacher, student, tau_d, variant)  # (K, B)
    # L_{lyr} = \sum_{i=1}^K w_i L_{lyr}^i
    layer = (weights.view(K, -1) * each).sum(0).mean()
    return _loss(rest.student, rest.response, rest.teacher, layer, weights)


def response_loss(
    student_final: Tensor,
    teacher_final: Tensor,
    positive: Tensor,
    *,
    tau_d: float = 1.0,
    joint: bool = False,
    variant: str = "paper",
) -> Loss:
    """Response-based distillation (RD), Eq. (9) to (11): final scores (B, C), positive (B,); else as `lead_loss`."""
    check_variant(variant)
    if student_final.shape != teacher_final.shape:
        raise ValueError(
            f"teacher_final is {tuple(teacher_final.shape)}: "
            f"it must be like student_final, {tuple(student_final.shape)}"
        )
    check_temperature("tau_d", tau_d)
    student = _hard(student_final, positive)
    if variant == "paper" and not joint:
        teacher_final = teacher_final.detach()
    # L_{rep} = D_{KL}(t_N / \tau_d, s_M / \tau_d) + D_{KL}(s_M / \tau_d, t_N / \tau_d)
    response = kl(teacher_final, student_final, tau_d, variant).mean()
    if not joint:
        return _loss(student, response)
    response = response + kl(student_final, teacher_final, tau_d, variant).mean()
    return _loss(student, response, _hard(teacher_final, positive))


def feature_loss(
    student_maps: Tensor, teacher_maps: Tensor, student_final: Tensor, positive: Tensor
) -> Loss:
    """Feature-based distillation (FD, after VIRT): maps (K, B, n, X, Y) of `scores.attention_maps`, scores (B, C).

    The squared difference of the maps is summed over token pairs, averaged over K, B and n, and reported as `layer`.
    Nothing is detached: compute a frozen teacher's maps under torch.no_grad(). ValueError as in `lead_loss`.
    """
    if student_maps.dim() != 5 or student_maps.shape != teacher_maps.shape:
        raise ValueError(
            f"student_maps is {tuple(student_maps.shape)}, teacher_maps {tuple(teacher_maps.shape)}: "
            "they must have one shape (K, B, n, X, Y)"
        )
    return _loss(
        _hard(student_final, positive),
        layer=(student_maps - teacher_maps).square().sum((-2, -1)).mean(),
    )


def student_loss(student_final: Tensor, positive: Tensor) -> Loss:
    """The hard loss alone, Eq. (11): final scores (B, C), positive (B,) long. ValueError as in `lead_loss`."""
    return _loss(_hard(student_final, positive))


def ranks(scores: Tensor) -> Tensor:
    """Scores (..., C) -> the rank of each candidate, 0 for the best; ties keep their order."""
    return scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)  # (..., C)


def footrule(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's footrule of the rankings by two scores (..., C) -> (...), over its maximum: 0 the same, 1 reversed."""
    C = a.shape[-1]
    # F = \frac{\sum_p |r_a(p) - r_b(p)|}{\lfloor C^2 / 2 \rfloor}
    return (ranks(a) - ranks(b)).abs().sum(-1) / max(1, C * C // 2)  # (...)


def rbo(a: Tensor, b: Tensor, p: float) -> Tensor:
    """Rank-biased overlap (Webber et al., 2010) of the rankings by two scores (..., C) -> (...): 1 the same, towards 0 else.

    Both rank the same C candidates, so from rank C on they agree wholly, and the infinite sum has a closed end.
    """
    # p is among the first d of both where d exceeds its later rank.
    later = torch.maximum(*torch.broadcast_tensors(ranks(a), ranks(b)))  # (..., C)
    shared = (
        torch.zeros_like(later).scatter_add(-1, later, torch.ones_like(later)).cumsum(-1)
    )  # (..., C), at d = 1 .. C
    d = torch.arange(1, later.shape[-1] + 1, device=later.device)  # (C,)
    # A_d = |a_{1:d} \cap b_{1:d}| / d
    agreement = shared / d  # (..., C)
    # RBO = (1 - p) \sum_{d=1}^{\infty} p^{d-1} A_d = (1 - p) \sum_{d=1}^{C} p^{d-1} A_d + p^C
    return (1 - p) * (p ** (d - 1) * agreement).sum(-1) + p ** len(d)  # (...)


@dataclass(frozen=True)
class AssistedLoss(Loss):
    """MTA4DPR: `layer` is the teacher's and the assistant's together; assistant: the assistant's response, 0 without one.

    total = hard * student + soft * (teacher's response and layer) + assist * (assistant's response and layer).
    """

    assistant: Tensor | None = None


def fuse(scores: Tensor, tau_d: float = 1.0) -> Tensor:
    """MTA4DPR's fused assistant: scores (A, ..., C) of A assistants -> (..., C), whose softmax at tau_d is the mean of theirs."""
    # \log \frac{1}{A} \sum_a \mathrm{softmax}(f_a / \tau_d), from log-probabilities
    return tau_d * (
        (scores / tau_d).log_softmax(-1).logsumexp(0) - math.log(len(scores))
    )  # (..., C)


def assisted_loss(
    teacher: Loss,
    assistant: Loss | None,
    *,
    hard: float = 1.0,
    soft: float = 1.0,
    assist: float = 1.0,
) -> AssistedLoss:
    """MTA4DPR's three terms, from what a frozen teacher and the selected assistant each ask of the same student scores.

    Both are of `response_loss`, or, with layer features (MTA4DPR + LEAD), of `lead_loss`; None: no assistant.
    """
    zero = teacher.student.new_zeros(())
    response, layer = (assistant.response, assistant.layer) if assistant else (zero, zero)
    # L = \alpha L_{stu} + \beta D_{KL}(t, s) + \gamma D_{KL}(a, s), each D_{KL} with its L_{lyr} where there is one
    total = (
        hard * teacher.student
        + soft * (teacher.response + teacher.layer)
        + assist * (response + layer)
    )
    return AssistedLoss(
        total,
        teacher.layer + layer,
        teacher.response,
        zero,
        teacher.student,
        teacher.weights,
        response,
    )


@dataclass(frozen=True)
class ProgressiveLoss(Loss):
    """PROD: keep: how far the student is from what it was as it entered the stage, 0 where that is not asked.

    total = hard * student + soft * response + keep * keep, where response and keep carry the factor tau_d squared.
    """

    keep: Tensor | None = None


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
    """PROD's three terms: final scores (B, C), positive (B,); before_final: of the frozen copy of the student, None without one.

    Neither the teacher nor the copy gets a gradient. ValueError as in `lead_loss`.
    """
    taught = response_loss(student_final, teacher_final, positive, tau_d=tau_d)
    # L_{soft} = \tau_d^2 D_{KL}(t / \tau_d, s / \tau_d)
    response = tau_d**2 * taught.response
    zero = response.new_zeros(())
    # L_{keep} = \tau_d^2 D_{KL}(s^{before} / \tau_d, s / \tau_d)
    kept = (
        zero
        if before_final is None
        else tau_d**2 * kl(before_final.detach(), student_final, tau_d).mean()
    )
    # L = \alpha L_{hard} + \beta L_{soft} + \gamma L_{keep}
    total = hard * taught.student + soft * response + keep * kept
    return ProgressiveLoss(total, zero, response, zero, taught.student, keep=kept)


def _hard(final: Tensor, positive: Tensor) -> Tensor:
    if final.dim() != 2 or positive.shape != final.shape[:1] or positive.dtype != torch.long:
        raise ValueError(
            f"positive is {tuple(positive.shape)} {positive.dtype} for final scores {tuple(final.shape)}: "
            "they must be (B,) torch.int64 and (B, C)"
        )
    if positive.min() < 0 or positive.max() >= final.shape[1]:
        raise ValueError(
            f"positive is {positive.tolist()}: every one must be a column from 0 to {final.shape[1] - 1}"
        )
    # L_{tch}, L_{stu}: Eq. (10), (11)
    return nll(final, positive).mean()


def check_variant(variant: str) -> None:
    """ValueError for an unknown one."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is unknown: use one of {', '.join(VARIANTS)}")


def check_temperature(name: str, tau: float) -> None:
    """ValueError unless it is positive."""
    if not tau > 0:
        raise ValueError(f"{name} is {tau}: a temperature must be positive")


def _loss(
    student: Tensor,
    response: Tensor | None = None,
    teacher: Tensor | None = None,
    layer: Tensor | None = None,
    weights: Tensor | None = None,
) -> Loss:
    layer, response, teacher = (
        student.new_zeros(()) if part is None else part for part in (layer, response, teacher)
    )
    # L_{total} = L_{lyr} + L_{rep} + L_{tch} + L_{stu}, Eq. (12)
    return Loss(layer + response + teacher + student, layer, response, teacher, student, weights)

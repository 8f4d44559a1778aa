"""The loss of LEAD and the losses of its baselines (paper, sections 3.3 and 3.4).

Every function takes scores, of whatever architecture. Shapes: K selected layers, B queries,
C candidate passages. A loss is in nats and is a mean over the B queries. A KL divergence is
computed from log-probabilities on both sides, so it stays finite where a probability underflows.
Symbols of the paper: t and s are the softmax of teacher and student scores. Layer a_i of the
teacher (N layers) teaches layer b_i of the student (M layers).

variant="paper" follows the equations. variant="released" follows the authors' code (SimXNS,
LEAD/util.py): tau_d divides the target only, a layer has one weight for the whole batch, and the
targets carry gradients, even those of a frozen teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

VARIANTS = ("paper", "released")


@dataclass(frozen=True)
class Loss:
    """The parts of a loss and their total, Eq. (12). A part that a method lacks is 0."""

    total: Tensor  # scalar, as are the four parts
    layer: Tensor  # L_lyr, Eq. (8)
    response: Tensor  # L_rep, Eq. (9)
    teacher: Tensor  # L_tch, Eq. (10)
    student: Tensor  # L_stu, Eq. (11)
    weights: Tensor | None = None  # w_i, Eq. (7): (K, B), or (K,) in variant "released"


def kl(teacher: Tensor, student: Tensor, tau_d: float = 1.0, variant: str = "paper") -> Tensor:
    """How far the student's distribution is from the teacher's: scores (..., C) -> D_KL (...).

    tau_d > 0 divides both scores, in variant "released" the teacher's only. ValueError for others.

    >>> even, odd = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> kl(even, odd)
    tensor(0.1201)
    """
    check_variant(variant)
    check_temperature("tau_d", tau_d)
    student = student / tau_d if variant == "paper" else student  # (..., C)
    # t_i = \frac{\exp(f(q, p) / \tau_d)}{\sum_{p'} \exp(f(q, p') / \tau_d)}, Eq. (4) and (6)
    log_t = (teacher / tau_d).log_softmax(-1)  # (..., C)
    # s_i = \frac{\exp(g(q, p) / \tau_d)}{\sum_{p'} \exp(g(q, p') / \tau_d)}, Eq. (5) and (6)
    log_s = student.log_softmax(-1)  # (..., C)
    # D_{KL}(t, s) = \sum_p t_p (\log t_p - \log s_p)
    return (log_t.exp() * (log_t - log_s)).sum(-1)  # (...)


def nll(scores: Tensor, positive: Tensor) -> Tensor:
    """Hard loss of each query, Eq. (10) and (11): scores (..., B, C) -> (..., B).

    positive: (B,) long, the column of each query's positive passage. The paper sums over all
        positives of a query; a batch has one of them.

    >>> nll(torch.tensor([[2.0, 0.0]]), positive=torch.tensor([0]))
    tensor([0.1269])
    """
    positive = positive.expand(scores.shape[:-1])[..., None]  # (..., B, 1)
    # -\log \frac{\exp(f(q, p^+))}{\sum_p \exp(f(q, p))}
    return -scores.log_softmax(-1).gather(-1, positive)[..., 0]  # (..., B)


def layer_weights(teacher: Tensor, positive: Tensor, tau_l: float = 1.0) -> Tensor:
    """Weight of each teacher layer for each query, Eq. (7): scores (K, B, C) -> (K, B).

    The K weights of a query sum to 1. They carry no gradient. positive: (B,) long. tau_l > 0.

    >>> layers = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])  # only the first layer is right
    >>> layer_weights(layers, positive=torch.tensor([0]))[:, 0]
    tensor([0.8808, 0.1192])
    """
    check_temperature("tau_l", tau_l)
    # D_{KL}(y, t_{a_i}) = -\log t_{a_i, p^+}, because y is one-hot
    divergence = nll(teacher.detach(), positive)  # (K, B)
    # w_i = \frac{\exp(-D_{KL}(y, t_{a_i}) / \tau_l)}{\sum_j \exp(-D_{KL}(y, t_{a_j}) / \tau_l)}
    return (-divergence / tau_l).softmax(0)  # (K, B)


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
    average: Callable[[Tensor], Tensor] = lambda value: value,
) -> Loss:
    """LEAD, Eq. (6) to (12).

    student, teacher: scores of the K selected layers, (K, B, C).
    student_final, teacher_final: scores of the last layers, (B, C). positive: (B,) long.
    tau_d: distillation temperature. tau_l: layer selection temperature.
    joint: train the teacher too. False drops its gradient, its hard loss and D_KL(s_M, t_N).
    reweight: use Eq. (7). False gives every layer the weight 1 / K ("released": 1).
    teacher_layer_grad: let the layer loss train a joint teacher ("released": always).
    average: mean over the processes that share a batch, for the weights of "released".
    ValueError for wrong shapes, a positive outside 0 .. C - 1, a temperature <= 0, a wrong variant.

    >>> layers, final = torch.zeros(3, 1, 2), torch.zeros(1, 2)
    >>> lead_loss(layers, layers, final, final, positive=torch.tensor([0])).layer
    tensor(0.)
    """
    alike = student.dim() == 3 and len(student) > 0 and student.shape == teacher.shape
    if not alike or student.shape[1:] != student_final.shape:
        raise ValueError(
            f"student is {tuple(student.shape)}, teacher {tuple(teacher.shape)}: both must be "
            f"(K, B, C), K at least 1, with (B, C) of student_final, {tuple(student_final.shape)}"
        )
    rest = response_loss(
        student_final, teacher_final, positive, tau_d=tau_d, joint=joint, variant=variant
    )
    if variant == "paper":
        weights = layer_weights(teacher, positive, tau_l)  # (K, B)
        unweighted = 1 / len(weights)
    else:
        divergence = average(nll(teacher.detach(), positive).mean(1))  # (K,)
        weights = (-divergence / tau_l).softmax(0)  # (K,)
        unweighted = 1.0
    if not reweight:
        weights = torch.full_like(weights, unweighted)
    if variant == "paper" and not (joint and teacher_layer_grad):
        teacher = teacher.detach()
    # L_{lyr}^i = D_{KL}(t_{a_i} / \tau_d, s_{b_i} / \tau_d), Eq. (6)
    each = kl(teacher, student, tau_d, variant)  # (K, B)
    # L_{lyr} = \sum_{i=1}^K w_i \times L_{lyr}^i, Eq. (8)
    layer = (weights.view(len(weights), -1) * each).sum(0).mean()  # (K, B) -> (B,) -> ()
    return _add_up(rest.student, rest.response, rest.teacher, layer, weights)


def response_loss(
    student_final: Tensor,
    teacher_final: Tensor,
    positive: Tensor,
    *,
    tau_d: float = 1.0,
    joint: bool = False,
    variant: str = "paper",
) -> Loss:
    """Response-based distillation (RD), Eq. (9) to (11): final scores (B, C), positive (B,) long.

    Other arguments and errors as in `lead_loss`.

    >>> teacher, student = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> response_loss(student, teacher, positive=torch.tensor([0])).response
    tensor(0.1201)
    """
    if student_final.shape != teacher_final.shape:
        raise ValueError(
            f"teacher_final is {tuple(teacher_final.shape)}: "
            f"it must be like student_final, {tuple(student_final.shape)}"
        )
    student = _hard(student_final, positive)  # ()
    if variant == "paper" and not joint:
        teacher_final = teacher_final.detach()
    # L_{rep} = D_{KL}(t_N / \tau_d, s_M / \tau_d) + D_{KL}(s_M / \tau_d, t_N / \tau_d), Eq. (9)
    response = kl(teacher_final, student_final, tau_d, variant).mean()  # (B,) -> ()
    if not joint:
        return _add_up(student, response)
    response = response + kl(student_final, teacher_final, tau_d, variant).mean()
    return _add_up(student, response, _hard(teacher_final, positive))


def feature_loss(
    student_maps: Tensor, teacher_maps: Tensor, student_final: Tensor, positive: Tensor
) -> Loss:
    """Feature-based distillation (FD, after VIRT): the student imitates attention maps.

    Maps (K, B, n, X, Y) of `scores.attention_maps`, final scores (B, C), positive (B,) long.
    The difference of the maps is reported as `layer`. Nothing is detached: compute the maps of a
    frozen teacher under torch.no_grad(). Errors as in `lead_loss`.

    >>> maps, final = torch.ones(1, 1, 1, 2, 1), torch.zeros(1, 2)
    >>> feature_loss(maps, 0 * maps, final, positive=torch.tensor([0])).layer
    tensor(2.)
    """
    if student_maps.dim() != 5 or student_maps.shape != teacher_maps.shape:
        raise ValueError(
            f"student_maps is {tuple(student_maps.shape)}, "
            f"teacher_maps {tuple(teacher_maps.shape)}: they must have one shape (K, B, n, X, Y)"
        )
    student = _hard(student_final, positive)  # ()
    # \frac{1}{K B n} \sum_{i, q, p} \sum_{x, y} (s_{xy} - t_{xy})^2
    layer = (student_maps - teacher_maps).square().sum((-2, -1)).mean()  # (K, B, n) -> ()
    return _add_up(student, layer=layer)


def student_loss(student_final: Tensor, positive: Tensor) -> Loss:
    """The hard loss alone, Eq. (11): final scores (B, C), positive (B,); errors as in `lead_loss`.

    >>> final = torch.tensor([[2.0, 0.0]])
    >>> student_loss(final, positive=torch.tensor([0])).total
    tensor(0.1269)
    """
    return _add_up(_hard(student_final, positive))


def check_variant(variant: str) -> None:
    """Raise ValueError for an unknown variant."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is unknown: use one of {', '.join(VARIANTS)}")


def check_temperature(name: str, tau: float) -> None:
    """Raise ValueError for a temperature that is not positive."""
    if not tau > 0:
        raise ValueError(f"{name} is {tau}: a temperature must be positive")


def _add_up(
    student: Tensor,
    response: Tensor | None = None,
    teacher: Tensor | None = None,
    layer: Tensor | None = None,
    weights: Tensor | None = None,
) -> Loss:
    zero = student.new_zeros(())
    layer = zero if layer is None else layer
    response = zero if response is None else response
    teacher = zero if teacher is None else teacher
    # L_{total} = L_{lyr} + L_{rep} + L_{tch} + L_{stu}, Eq. (12)
    total = layer + response + teacher + student
    return Loss(total, layer, response, teacher, student, weights)


def _hard(final: Tensor, positive: Tensor) -> Tensor:
    if final.dim() != 2 or positive.shape != final.shape[:1] or positive.dtype != torch.long:
        raise ValueError(
            f"positive is {tuple(positive.shape)} {positive.dtype} for final scores "
            f"{tuple(final.shape)}: they must be (B,) torch.int64 and (B, C)"
        )
    last = final.shape[1] - 1
    if positive.min() < 0 or positive.max() > last:
        raise ValueError(
            f"positive is {positive.tolist()}: every one must be a column from 0 to {last}"
        )
    # L_{tch} and L_{stu}, Eq. (10) and (11)
    return nll(final, positive).mean()  # (B,) -> ()

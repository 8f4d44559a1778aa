"""Which K layers are aligned (paper, sections 3.3.2 and 4.4.2).

Layer 1 is the state after the first block. Each strategy takes K, the number of student layers M
and the number of teacher layers N. It returns two sorted tuples of K layers, the student's and
the teacher's; the i-th teacher layer teaches the i-th student layer. Every strategy raises
ValueError unless N >= M >= K >= 1.
"""

import torch
from torch import Generator, Tensor

Layers = tuple[tuple[int, ...], tuple[int, ...]]
STRATEGIES = ("random", "weighted", "last", "skip")


def layers_heard(weights: Tensor) -> Tensor:
    """The effective number of layers: weights (K, ...) that sum to 1 over K -> (...), 1 to K.

    >>> layers_heard(torch.tensor([0.5, 0.5, 0.0]))
    tensor(2.)
    """
    # \exp(-\sum_{i=1}^K w_i \log w_i)
    return torch.special.entr(weights).sum(0).exp()


def random_layers(k: int, student_layers: int, teacher_layers: int, generator: Generator) -> Layers:
    """LEAD's choice: k of the M student and k of the N teacher layers, each set equally likely.

    >>> generator = torch.Generator().manual_seed(0)
    >>> random_layers(3, 6, 12, generator)
    ((2, 3, 5), (1, 6, 12))
    """
    _check(k, student_layers, teacher_layers)
    student = _sample(k, torch.ones(student_layers), generator)
    teacher = _sample(k, torch.ones(teacher_layers), generator)
    return student, teacher


def weighted_layers(
    k: int, student_layers: int, teacher_layers: int, generator: Generator, weights: Tensor
) -> Layers:
    """The teacher's layers are drawn by weights (N,), the student's as in `random_layers`.

    weights: Eq. (7) over all N layers. Layers are drawn without replacement.
    ValueError for weights of another shape, negative or not finite.

    >>> generator = torch.Generator().manual_seed(0)
    >>> weighted_layers(2, 2, 4, generator, torch.tensor([0.0, 0.5, 0.0, 0.5]))
    ((1, 2), (2, 4))
    """
    _check(k, student_layers, teacher_layers)
    if weights.shape != (teacher_layers,):
        raise ValueError(
            f"weights has shape {tuple(weights.shape)}: "
            f"give one per teacher layer, ({teacher_layers},)"
        )
    if not (weights.isfinite() & (weights >= 0)).all():
        raise ValueError(
            f"weights is {weights.tolist()}: every weight must be finite and not negative"
        )
    student = _sample(k, torch.ones(student_layers), generator)
    teacher = _sample(k, weights, generator)
    return student, teacher


def last_layers(k: int, student_layers: int, teacher_layers: int) -> Layers:
    """The last k layers of both.

    >>> last_layers(3, 6, 12)
    ((4, 5, 6), (10, 11, 12))
    """
    _check(k, student_layers, teacher_layers)
    return _last(k, student_layers), _last(k, teacher_layers)


def skip_layers(k: int, student_layers: int, teacher_layers: int, step: int = 2) -> Layers:
    """The student's last k layers; the teacher's layers 1, 1 + step, 1 + 2 step, ...

    ValueError if the teacher has too few layers.

    >>> skip_layers(3, 6, 12)
    ((4, 5, 6), (1, 3, 5))
    """
    _check(k, student_layers, teacher_layers)
    last = 1 + (k - 1) * step
    if step < 1 or last > teacher_layers:
        raise ValueError(
            f"step is {step}: {k} layers from 1 in steps >= 1 "
            f"must end by teacher layer {teacher_layers}"
        )
    return _last(k, student_layers), tuple(range(1, last + 1, step))


def select(
    strategy: str,
    k: int,
    student_layers: int,
    teacher_layers: int,
    generator: Generator,
    weights: Tensor | None = None,
) -> Layers:
    """Select by the name of a strategy, one of STRATEGIES. ValueError for an unknown one.

    weights: of "weighted"; equal ones by default.

    >>> generator = torch.Generator().manual_seed(0)
    >>> select("last", 1, 6, 12, generator)
    ((6,), (12,))
    """
    match strategy:
        case "random":
            return random_layers(k, student_layers, teacher_layers, generator)
        case "weighted":
            weights = torch.ones(teacher_layers) if weights is None else weights
            return weighted_layers(k, student_layers, teacher_layers, generator, weights)
        case "last":
            return last_layers(k, student_layers, teacher_layers)
        case "skip":
            return skip_layers(k, student_layers, teacher_layers)
    raise ValueError(f"strategy {strategy!r} is unknown: use one of {', '.join(STRATEGIES)}")


def _sample(k: int, weights: Tensor, generator: Generator) -> tuple[int, ...]:
    # k layers must be found, so a layer whose weight underflowed to 0 stays possible.
    weights = weights.double().clamp_min(1e-30)  # (layers,)
    drawn = torch.multinomial(weights, k, generator=generator)  # (k,)
    return tuple(sorted((drawn + 1).tolist()))


def _last(k: int, layers: int) -> tuple[int, ...]:
    return tuple(range(layers - k + 1, layers + 1))


def _check(k: int, student_layers: int, teacher_layers: int) -> None:
    if teacher_layers < student_layers:
        raise ValueError(
            f"teacher_layers is {teacher_layers}: "
            f"it must be at least student_layers, {student_layers}"
        )
    if not 1 <= k <= student_layers:
        raise ValueError(
            f"k is {k}: it must be from 1 to the student's number of layers, {student_layers}"
        )

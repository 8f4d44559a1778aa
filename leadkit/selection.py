"""Which K layers are aligned (paper, sections 3.3.2 and 4.4.2). Layer 1 is the state after the first block.

Every strategy takes K, the number of student layers M and of teacher layers N, and returns two sorted tuples of K
layers, the student's and the teacher's; the i-th teaches the i-th. ValueError unless N >= M >= K >= 1.
"""

import torch
from torch import Generator, Tensor

Layers = tuple[tuple[int, ...], tuple[int, ...]]
STRATEGIES = ("random", "weighted", "last", "skip")


def random_layers(k: int, student_layers: int, teacher_layers: int, generator: Generator) -> Layers:
    """LEAD's choice: k of the M student layers and k of the N teacher layers, each set equally likely."""
    _check(k, student_layers, teacher_layers)
    return _sample(k, torch.ones(student_layers), generator), _sample(
        k, torch.ones(teacher_layers), generator
    )


def weighted_layers(
    k: int, student_layers: int, teacher_layers: int, generator: Generator, weights: Tensor
) -> Layers:
    """The teacher's layers drawn without replacement by weights (N,), those of Eq. (7) over all layers.

    The student's as in `random_layers`. ValueError for weights of another shape, negative, or not finite.
    """
    _check(k, student_layers, teacher_layers)
    if weights.shape != (teacher_layers,):
        raise ValueError(
            f"weights has shape {tuple(weights.shape)}: give one per teacher layer, ({teacher_layers},)"
        )
    if not (weights.isfinite() & (weights >= 0)).all():
        raise ValueError(
            f"weights is {weights.tolist()}: every weight must be finite and not negative"
        )
    return _sample(k, torch.ones(student_layers), generator), _sample(k, weights, generator)


def last_layers(k: int, student_layers: int, teacher_layers: int) -> Layers:
    """The last k layers of both."""
    _check(k, student_layers, teacher_layers)
    return _last(k, student_layers), _last(k, teacher_layers)


def skip_layers(k: int, student_layers: int, teacher_layers: int, step: int = 2) -> Layers:
    """The student's last k layers; the teacher's 1, 1 + step, 1 + 2 step, ... ValueError if it runs out of them."""
    _check(k, student_layers, teacher_layers)
    if step < 1 or 1 + (k - 1) * step > teacher_layers:
        raise ValueError(
            f"step is {step}: {k} layers from 1 in steps >= 1 must end by teacher layer {teacher_layers}"
        )
    return _last(k, student_layers), tuple(range(1, 2 + (k - 1) * step, step))


def select(
    strategy: str,
    k: int,
    student_layers: int,
    teacher_layers: int,
    generator: Generator,
    weights: Tensor | None = None,
) -> Layers:
    """The strategy by its name. "weighted" without weights takes equal ones. ValueError for an unknown strategy."""
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
    # A weight that underflowed to 0 still leaves its layer possible: k layers must be found.
    weights = weights.double().clamp_min(1e-30)  # (layers,)
    return tuple(sorted((torch.multinomial(weights, k, generator=generator) + 1).tolist()))


def _last(k: int, layers: int) -> tuple[int, ...]:
    return tuple(range(layers - k + 1, layers + 1))


def _check(k: int, student_layers: int, teacher_layers: int) -> None:
    if teacher_layers < student_layers:
        raise ValueError(
            f"teacher_layers is {teacher_layers}: it must be at least student_layers, {student_layers}"
        )
    if not 1 <= k <= student_layers:
        raise ValueError(
            f"k is {k}: it must be from 1 to the student's number of layers, {student_layers}"
        )

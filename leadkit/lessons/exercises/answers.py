"""The one checker of all lessons: it reads a learner's answer and names the mistake behind it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from functools import update_wrapper
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

GRADES = ("easy", "medium", "hard")
NOT_YET = "no answer yet"
RIGHT = "right"

Wanted = ArrayLike | Callable[..., Any]


class Wrong(Exception):
    """An answer is not right. The message is the sentence that the learner reads."""


class Exercise:
    """A check with its place and its grade. Called with a learner's answer, it prints a line.

    check: answers -> None, or it raises Wrong.
    """

    def __init__(self, check: Callable[..., None], lesson: int, number: int, grade: str):
        if grade not in GRADES:
            raise ValueError(f"grade is {grade!r}: use one of {', '.join(GRADES)}")
        self.check = check
        self.name = check.__name__
        self.lesson = lesson
        self.number = number
        self.grade = grade
        update_wrapper(self, check)

    def verdict(self, *answers: object) -> str:
        """RIGHT, NOT_YET or what is wrong, in a sentence."""
        try:
            self.check(*answers)
        except Wrong as wrong:
            return str(wrong)
        return RIGHT

    def __call__(self, *answers: object) -> None:
        print(f"exercise {self.number}: {self.verdict(*answers)}")


def exercise(lesson: int, number: int, grade: str) -> Callable[[Callable[..., None]], Exercise]:
    """Make a check an exercise of this lesson. ValueError for an unknown grade."""
    return lambda check: Exercise(check, lesson, number, grade)


def blank(answer: object) -> bool:
    """Whether the learner has not answered yet."""
    return answer is None or answer is ...


def outcome(name: str, function: Any, *case: object) -> Any:
    """What a learner's function returns. Wrong where it returns nothing or raises.

    It gets a copy of the case, so it cannot change what the check asks.
    """
    if blank(function):
        raise Wrong(NOT_YET)
    if not callable(function):
        raise Wrong(f"{name} must be a function, not {type(function).__name__}")
    try:
        value = function(*deepcopy(case))
    except Exception as error:  # whatever the learner wrote
        raise Wrong(f"{name} stops with {type(error).__name__}: {error}") from error
    if blank(value):
        raise Wrong(NOT_YET)
    return value


def numbers(name: str, answer: Any, shape: Sequence[int | None] | None = None) -> np.ndarray:
    """The answer as numbers. Wrong where there is none, or it is of another kind or shape.

    shape: None in it stands for any length but 0. Without a shape, NaN and infinity pass.
    """
    if blank(answer):
        raise Wrong(NOT_YET)
    try:
        values = answer.detach().cpu() if isinstance(answer, Tensor) else answer
        read = np.asarray(values).astype(float, casting="same_kind")
    except Exception:  # whatever the learner wrote
        kind = type(answer).__name__
        raise Wrong(
            f"{name} is of type {kind} and cannot be read as numbers of one shape"
        ) from None
    if shape is not None:
        _check_shape(name, read, shape)
        _check_finite(name, read)
    return read


def judge(
    name: str,
    answer: Any,
    right: Wanted,
    mistakes: Mapping[str, Wanted],
    otherwise: str,
    cases: Sequence[tuple] = (),
    rtol: float = 1e-3,
    atol: float = 1e-6,
) -> None:
    """Wrong, with the sentence that fits, unless the answer has the right numbers.

    right: these numbers, or a function that computes them from a case.
    mistakes: sentence -> the numbers that a learner with this mistake gets, or such a function. The
        first that fits is said. A NaN stands for any number.
    otherwise: the sentence where no mistake fits.
    cases: the arguments that a learner's function is called with; none where numbers are wanted.
    """
    if callable(answer) and not cases:
        raise Wrong(f"{name} must be numbers, not a {type(answer).__name__}")
    given = [numbers(f"{name}(...)", outcome(name, answer, *case)) for case in cases]
    given = given or [numbers(name, answer)]
    cases = cases or [()]

    def same(wanted: Wanted) -> bool:
        pairs = zip(given, [_value(wanted, case) for case in cases], strict=True)
        return all(_close(value, other, rtol, atol) for value, other in pairs)

    if same(right):
        return
    for sentence, mistake in mistakes.items():
        if same(mistake):
            raise Wrong(sentence)
    for value, case in zip(given, cases, strict=True):
        _check_shape(name, value, np.shape(_value(right, case)))
        _check_finite(name, value)
    raise Wrong(otherwise)


def judge_gradients(
    answer: Callable, inputs: Sequence[Tensor], right: Tensor, reasons: Sequence[str]
) -> None:
    """Wrong unless the learner's loss moves the inputs as the right loss does.

    inputs: leaves that require a gradient. right: the right loss of these.
    reasons: for each input, the sentence where its gradient differs.
    """
    try:
        mine = torch.autograd.grad(answer(*inputs), inputs, allow_unused=True)
    except Exception as error:  # whatever the learner wrote
        raise Wrong(
            "the value is right, but no gradient can be taken of it: return the tensor, and leave "
            "backward to the caller"
        ) from error
    exact = torch.autograd.grad(right, inputs, allow_unused=True)
    for x, got, wanted, reason in zip(inputs, mine, exact, reasons, strict=True):
        zero = torch.zeros_like(x)
        got = zero if got is None else got
        wanted = zero if wanted is None else wanted
        if not torch.allclose(got, wanted, atol=1e-9):
            raise Wrong(f"the value is right, but {reason}")


def some_names(name: str, answer: object, known: Collection[str]) -> set[str]:
    """The answer as a set of some of these names. Wrong where it is something else."""
    if blank(answer):
        raise Wrong(NOT_YET)
    choices = ", ".join(known)
    if isinstance(answer, str | Tensor) or not isinstance(answer, Collection):
        raise Wrong(f"{name}: a set of names is wanted, out of {choices}")
    if not all(isinstance(part, str) for part in answer):
        raise Wrong(f"{name}: a set of names is wanted, out of {choices}")
    for part in answer:
        if part not in known:
            raise Wrong(f"{name}: {part!r} is not among the names: {choices}")
    return set(answer)


def normal(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Standard normal tensors in float64, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _value(wanted: Wanted, case: tuple) -> np.ndarray:
    value = wanted(*case) if callable(wanted) else wanted
    value = value.detach() if isinstance(value, Tensor) else value
    return np.asarray(value, float)


def _close(value: np.ndarray, other: np.ndarray, rtol: float, atol: float) -> bool:
    if value.shape != other.shape:
        return False
    return bool((np.isclose(value, other, rtol, atol) | np.isnan(other)).all())


def _check_shape(name: str, value: np.ndarray, shape: Sequence[int | None]) -> None:
    def fits(length: int, wanted: int | None) -> bool:
        return length > 0 if wanted is None else length == wanted

    same_rank = value.ndim == len(shape)
    if same_rank and all(fits(n, m) for n, m in zip(value.shape, shape, strict=True)):
        return
    lengths = ", ".join("any" if m is None else str(m) for m in shape)
    wanted = f"({lengths}{',' * (len(shape) == 1)})" if shape else "one number"
    raise Wrong(f"{name} has shape {value.shape}: it must be {wanted}")


def _check_finite(name: str, value: np.ndarray) -> None:
    if not np.isfinite(value).all():
        raise Wrong(f"{name} holds a value that is not a finite number")

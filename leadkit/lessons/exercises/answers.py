"""Reading a learner's answer, and finding the mistake that leads to it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

NOT_YET = "no answer yet"


def say(number: int, wrong: str | None) -> None:
    """Print the verdict on an exercise: what is wrong, or nothing."""
    print(f"exercise {number}: " + (wrong or "right"))


def result(function: Callable, *inputs: object) -> object:
    """What a learner's function returns, or the error that it raises; None without a function."""
    try:
        return None if function is None or function is ... else function(*inputs)
    except Exception as error:  # whatever the learner wrote
        return error


def numbers(name: str, answer: object, shape: Sequence[int | None]) -> np.ndarray | str:
    """The answer as finite numbers of this shape, or a sentence that says why it is not.

    shape: None stands for any length but 0.
    """
    if answer is None or answer is ...:
        return NOT_YET
    if isinstance(answer, Exception):
        return f"{name} raises {type(answer).__name__}: {answer}"
    try:
        found = np.asarray(answer.detach().cpu() if isinstance(answer, Tensor) else answer).astype(
            float, casting="same_kind"
        )
    except Exception:  # whatever the learner wrote
        return (
            f"{name} is of type {type(answer).__name__} and cannot be read as numbers of one shape"
        )
    if found.ndim != len(shape) or any(
        n != m if m else n == 0 for n, m in zip(found.shape, shape, strict=True)
    ):
        lengths = ", ".join(str(m or "any") for m in shape)
        wanted = f"({lengths}{',' * (len(shape) == 1)})" if shape else "one number"
        return f"{name} has shape {found.shape}: it must be {wanted}"
    if not np.isfinite(found).all():
        return f"{name} holds a value that is not a finite number"
    return found


def compare(
    name: str, answer: object, right: ArrayLike, mistakes: Mapping[str, ArrayLike], otherwise: str
) -> str | None:
    """None for the right numbers, else a sentence.

    mistakes: sentence -> the numbers that the mistake leads to. The first that fits is said.
    otherwise: the sentence where none fits.
    """
    found = numbers(name, answer, np.shape(right))
    for sentence, value in ((None, right), *mistakes.items()):
        shaped = numbers(name, answer, np.shape(value))
        if not isinstance(shaped, str) and np.allclose(shaped, value, 1e-3, 1e-6):
            return sentence
    return found if isinstance(found, str) else otherwise


def normal(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Standard normal tensors in float64, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def judge(
    answer: Any,
    right: Callable,
    mistakes: Mapping[str, Callable],
    otherwise: str,
    cases: Sequence[tuple] = (),
    rtol: float = 1e-3,
    atol: float = 1e-6,
) -> str | None:
    """What is wrong with a learner's numbers or function; None where nothing is.

    right: the function that is wanted; without cases, it takes nothing and returns the numbers.
    mistakes: sentence -> what a learner with this mistake would have written. The first that gives
        the
        learner's numbers is said. A NaN stands for any number.
    otherwise: the sentence where no mistake fits.
    cases: the arguments that functions are called with.
    """
    if answer is None or answer is ...:
        return NOT_YET
    if bool(cases) != callable(answer):
        return f"{'a function is' if cases else 'numbers are'} wanted, not {type(answer).__name__}"
    cases, given = cases or [()], []
    for case in cases:
        try:
            value = answer(*deepcopy(case)) if case else answer
        except Exception as error:
            return f"your function stops with {type(error).__name__}: {error}"
        if value is None or value is ...:
            return NOT_YET
        try:
            given.append(
                np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, float)
            )
        except Exception:
            return f"numbers are wanted, not {type(value).__name__}"

    def same(function: Callable) -> bool:
        pairs = [
            (value, np.asarray(function(*case), float))
            for value, case in zip(given, cases, strict=True)
        ]
        return all(
            g.shape == w.shape and (np.isclose(g, w, rtol, atol) | np.isnan(w)).all()
            for g, w in pairs
        )

    if same(right):
        return None
    if found := next((sentence for sentence, mistake in mistakes.items() if same(mistake)), None):
        return found
    for value, case in zip(given, cases, strict=True):
        if value.shape != (shape := np.shape(right(*case))):
            return f"the shape {value.shape} is not the one wanted, {shape}"
        if not np.isfinite(value).all():
            return "a value is not finite"
    return otherwise


def no_names(answer: object, names: Collection[str]) -> str | None:
    """What keeps an answer from being a set of some of these names."""
    if (
        isinstance(answer, str | Tensor)
        or not isinstance(answer, Collection)
        or not all(isinstance(name, str) for name in answer)
    ):
        return f"a set of names is wanted, out of {', '.join(names)}"
    if unknown := [name for name in answer if name not in names]:
        return f"{unknown[0]!r} is not among the names: {', '.join(names)}"
    return None

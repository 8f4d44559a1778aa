"""Several processes at one training (torchrun, through accelerate): each takes its share of every batch and of every collection.

All run the same program, so every function here that exchanges something must be reached by all of them, in the same order. One
process alone, the usual case, exchanges nothing. Only the main process, number 0, writes files (`leadkit.files`).
"""

from contextlib import AbstractContextManager
from functools import cache

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils import gather as _gather
from accelerate.utils import reduce as _reduce
from torch import Tensor


@cache
def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available())


def count() -> int:
    """How many processes there are."""
    return _state().num_processes


def number() -> int:
    """Which one this is, from 0."""
    return _state().process_index


def device() -> torch.device:
    """What this process computes on."""
    return _state().device if torch.cuda.is_available() else torch.device("cpu")


def main() -> bool:
    """Whether this is the process that writes."""
    return number() == 0


def main_first() -> AbstractContextManager[None]:
    """A block that the main process runs before the others do: what it writes is there for them."""
    return _state().main_process_first()


def wait() -> None:
    """Wait until all are here."""
    _state().wait_for_everyone()


def share(whole: int, name: str) -> slice:
    """This process's part of `whole` rows. ValueError where they cannot be shared equally."""
    if whole % count():
        raise ValueError(
            f"{name} {whole} cannot be shared by {count()} processes: use a multiple of {count()}"
        )
    part = whole // count()
    return slice(number() * part, (number() + 1) * part)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        ctx.rows = slice(number() * len(own), (number() + 1) * len(own))
        return _gather(own.contiguous())

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _reduce(grad.contiguous(), "sum")[
            ctx.rows
        ]  # every process's loss depends on these rows


def gather(own: Tensor) -> Tensor:
    """(P, ...) of each process -> (W * P, ...) of all W, in order. The gradient of a row is the sum over the losses of all."""
    return _Gather.apply(own) if count() > 1 else own


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, of what has no gradient."""
    return _reduce(value.detach(), "mean") if count() > 1 else value.detach()


def total(values: np.ndarray) -> np.ndarray:
    """The sum over the processes: each row was filled by one of them and is zero in the others."""
    return (
        _reduce(torch.from_numpy(values).to(device()), "sum").cpu().numpy()
        if count() > 1
        else values
    )


def side_by_side(own: np.ndarray) -> np.ndarray:
    """(Q, k) of each process -> (Q, W * k)."""
    return np.concatenate(gather_object([own]), 1) if count() > 1 else own


def agree(value: object, what: str) -> None:
    """ValueError where the main process has another value, with what that is."""
    if count() > 1:
        (mains,) = broadcast_object_list([value])
        if mains != value:
            raise ValueError(
                f"process {number()} has {what} {value!r}, the main process {mains!r}: start all with one command"
            )


def mains(value: object) -> object:
    """What the main process has for this value."""
    return broadcast_object_list([value])[0] if count() > 1 else value

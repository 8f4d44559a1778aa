"""Several processes share the work (torchrun, through accelerate). W is their number.

Each takes its part of the queries of a batch and of the texts of a collection. All run the same
program, and all must call the functions that exchange something here, in the same order. A single
process, the usual case, exchanges nothing. Only the main process, number 0, writes files
(`leadkit.files`).
"""

import sys
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils import gather as gather_tensor
from accelerate.utils import reduce as reduce_tensor
from torch import Tensor

T = TypeVar("T")


@cache
def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available())


def count() -> int:
    """The number of processes, W."""
    return _state().num_processes


def number() -> int:
    """The number of this process, from 0 to W - 1."""
    return _state().process_index


def device() -> torch.device:
    """The device on which this process computes."""
    return _state().device if torch.cuda.is_available() else torch.device("cpu")


def main() -> bool:
    """Whether this is the main process, the one that writes files."""
    return number() == 0


@cache
def tell(message: str) -> None:
    """Print a line on the error stream: once in a program, and from the main process alone."""
    if main():
        print(message, file=sys.stderr, flush=True)


def main_first() -> AbstractContextManager[None]:
    """A block that the main process runs before the others, so that they find what it wrote."""
    return _state().main_process_first()


def wait() -> None:
    """Wait until all processes have come here."""
    _state().wait_for_everyone()


def share(whole: int, name: str) -> slice:
    """The rows of this process, out of `whole` rows. ValueError if W does not divide them.

    name: the field that holds `whole`, for the message.
    """
    if whole % count():
        raise ValueError(
            f"{name} {whole} cannot be shared by {count()} processes: use a multiple of {count()}"
        )
    part = whole // count()
    return slice(number() * part, (number() + 1) * part)


class _Gather(torch.autograd.Function):
    # torch.distributed.nn.functional.all_gather does the same, but torch 2.13 deprecates it.

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        ctx.rows = slice(number() * len(part), (number() + 1) * len(part))
        return gather_tensor(part.contiguous())  # (W * P, ...)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # The loss of every process depends on the rows of this one.
        summed = reduce_tensor(grad.contiguous(), "sum")  # (W * P, ...)
        return summed[ctx.rows]  # (P, ...)


def gather(part: Tensor) -> Tensor:
    """The parts (P, ...) of all processes, in their order: (W * P, ...).

    The gradient of a row is the sum of its gradients in the losses of all processes.
    """
    return _Gather.apply(part) if count() > 1 else part


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, without gradient."""
    value = value.detach()
    return reduce_tensor(value, "mean") if count() > 1 else value


def total(values: np.ndarray) -> np.ndarray:
    """The sum over the processes. Each row is filled by one process and is 0 in the others."""
    if count() == 1:
        return values
    return reduce_tensor(torch.from_numpy(values).to(device()), "sum").cpu().numpy()


def side_by_side(part: np.ndarray) -> np.ndarray:
    """The columns (Q, k) of all processes, in their order: (Q, W * k)."""
    return np.concatenate(gather_object([part]), 1) if count() > 1 else part


def agree(value: object, what: str) -> None:
    """ValueError if the main process has another value. `what` names the value."""
    if count() == 1:
        return
    (expected,) = broadcast_object_list([value])
    if expected != value:
        raise ValueError(
            f"process {number()} has {what} {value!r}, the main process {expected!r}: "
            "start all with one command"
        )


def from_main(value: T) -> T:
    """The main process's value, in every process."""
    return broadcast_object_list([value])[0] if count() > 1 else value

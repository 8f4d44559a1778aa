"""One training loop for everything: pre-training, warm-up, distillation.

A step is a pure function of its number: the caller's `loss_at(step)` builds the batch of that step,
and the loop seeds the random numbers (dropout, layer selection) from (seed, step). So a checkpoint
is weights, optimiser moments and a step, and on a CPU an interrupted run ends bit-identical to an
undisturbed one.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from leadkit import processes
from leadkit.config import Schedule
from leadkit.models.retriever import Retriever
from leadkit.training import checkpoints

LossAt = Callable[[int], dict[str, Tensor]]  # batch -> {"total": loss, other parts to be logged}

# Optional observer, called after each step with the training's label, the model, the log so far and
# the number of steps. It is not a setting: watching changes neither keys nor results.
Watch = Callable[[str, nn.Module, list[dict], int], None]
WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@dataclass(frozen=True)
class Operation:
    """How a training is run. None of it decides a result, so none of it enters a key or record."""

    # Texts that pass through an encoder at once, None for all; dropout then draws other units.
    at_once: int | None = None
    checkpoint_seconds: float = 60.0  # between two checkpoints


class NotFinite(ArithmeticError):
    """A loss or its gradient is NaN or infinite. The last checkpoint is kept."""


class OutOfMemory(OSError):
    """A step does not fit into the device's memory. The last checkpoint is kept."""


def fit(
    model: nn.Module,
    loss_at: LossAt,
    schedule: Schedule,
    seed: int,
    folder: Path,
    label: str,
    describe: Callable[[int], str] = lambda step: "",
    operation: Operation = Operation(),
) -> list[dict]:
    """Train `model` in place; return the log, one row of loss parts per step.

    model: of an nn.ModuleDict each model's gradient is clipped on its own, as if each had its own
        optimiser (so the released code).
    loss_at: number of a batch -> scalars, "total" to be minimised, all to be logged. A step takes
        `schedule.accumulate` batches, one after another: its gradient and its log are their means.
    folder: receives checkpoints; a checkpoint found there is continued.
    describe: number of a batch -> its ids, for the message of `NotFinite`.

    With several processes each has the loss of its share of the batch: gradients and log are means.
    """
    accelerator = Accelerator()
    models = list(model.values()) if isinstance(model, nn.ModuleDict) else [model]
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.to(accelerator.device).train()
    set_at_once(model, operation.at_once)
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    first, log = checkpoints.resume(folder, model, optimizer)
    saved = time.monotonic()
    for step in _progress(first, schedule.steps, label):
        seed_step(seed, step)
        batches = range(step * schedule.accumulate, (step + 1) * schedule.accumulate)
        parts = _gradients(loss_at, batches, accelerator)
        if parts is None:  # here no traceback keeps the step's tensors
            advice = _what_fits(model, loss_at, batches[0], optimizer, operation.at_once)
            raise OutOfMemory(
                f"{label}: step {step} does not fit into the memory of {accelerator.device}; "
                f"{advice}"
            )
        values = {name: float(processes.mean(value)) for name, value in parts.items()}
        _share_gradients(parameters)
        norms = [float(nn.utils.clip_grad_norm_(m.parameters(), schedule.clip)) for m in models]
        if not all(map(math.isfinite, (*norms, *values.values()))):
            raise NotFinite(
                f"{label}: the loss or its gradient is not finite at step {step} ({values}, "
                f"gradient norm {norms}); batch {' '.join(map(describe, batches))}; the last "
                f"checkpoint in {folder} is kept"
            )
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        log.append({"step": step, **values})
        watch = WATCH.get()
        if watch:
            watch(label, model, log, schedule.steps)
        if processes.main() and time.monotonic() - saved > operation.checkpoint_seconds:
            checkpoints.save(folder, model, optimizer, step + 1, log)
            saved = time.monotonic()
    model.eval()
    return log


def set_at_once(model: nn.Module, at_once: int | None) -> None:
    """How many texts pass through each retriever's encoder at once."""
    for module in model.modules():
        if isinstance(module, Retriever):
            module.at_once = at_once


def seed_step(seed: int, step: int) -> None:
    """Seed every random number of a step from (seed, step) and the process."""
    torch.manual_seed(seed * 1_000_003 + step + 1_000_000_007 * processes.number())


def _progress(first: int, steps: int, label: str) -> Iterable[int]:
    hidden = not processes.main()
    every = range(first, steps)
    return tqdm(every, initial=first, total=steps, desc=label, unit="step", disable=hidden)


def _gradients(
    loss_at: LossAt, batches: range, accelerator: Accelerator
) -> dict[str, Tensor] | None:
    """The mean loss parts of some batches after their backward passes.

    None where memory does not suffice.
    """
    means: dict[str, Tensor] = {}
    try:
        for number in batches:
            parts = {name: part / len(batches) for name, part in loss_at(number).items()}
            accelerator.backward(parts["total"])
            for name, part in parts.items():
                means[name] = means.get(name, 0) + part.detach()
    except torch.OutOfMemoryError:
        return None
    return means


def _share_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes."""
    if processes.count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = processes.mean(parameter.grad)


def _what_fits(
    model: nn.Module,
    loss_at: LossAt,
    step: int,
    optimizer: torch.optim.Optimizer,
    asked: int | None,
) -> str:
    """What to do about a step that does not fit: the largest power of two at once that does."""
    how = "fewer texts pass through an encoder at a time, without dropout with the same result"
    if processes.count() > 1:
        return f"try --at-once 16, or a smaller one: {how}"
    smaller = [2**i for i in range(9, -1, -1) if asked is None or 2**i < asked]
    try:
        for at_once in smaller:
            set_at_once(model, at_once)
            if _fits(loss_at, step, optimizer):
                return f"with --at-once {at_once} it does: {how}"
    finally:
        set_at_once(model, asked)
    return "nor does one text at a time: take smaller batches or a smaller encoder"


def _fits(loss_at: LossAt, step: int, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step's gradients fit into memory, beside the moments that AdamW will have."""
    optimizer.zero_grad()
    torch.cuda.empty_cache()
    groups = [] if optimizer.state else optimizer.param_groups
    parameters = [p for group in groups for p in group["params"]]
    try:
        _moments = [torch.empty_like(p) for p in (*parameters, *parameters)]
        loss_at(step)["total"].backward()
    except torch.OutOfMemoryError:
        return False
    return True

"""One training loop for everything: pre-training, warm-up, distillation.

A step is a pure function of its number: the caller's `loss_at(step)` builds the batch of that step, and the loop seeds the
random numbers (dropout, layer selection) from (seed, step). So a checkpoint is weights, optimiser moments and a step, and an
interrupted run ends bit-identical to an undisturbed one on a CPU.
"""

import json
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm.auto import tqdm

from leadkit import processes
from leadkit.models import retrievers
from leadkit.files import digest, read_tensors, write_json, write_tensors

# Who looks on: `fit` calls it after every step with its label, the model, the log so far and the number of steps. It leaves them
# as they are. It belongs to nobody's settings, so a stage has the same key, and ends the same, whether or not it is watched.
Watch = Callable[[str, nn.Module, list[dict], int], None]
WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@dataclass(frozen=True)
class Schedule:
    """Optimisation of one stage: AdamW, linear warm-up and linear decay, gradient clipping (section 4.2.2)."""

    steps: int
    learning_rate: float = 2e-5  # paper: 2e-5 (released scripts)
    warmup: float = 0.1  # fraction of the steps; paper: not said
    clip: float = 2.0  # paper: 2.0 (released scripts)
    weight_decay: float = 0.01  # paper: not said
    save_seconds: float = 60.0  # seconds between two checkpoints

    def rate(self, step: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        warm = max(1, round(self.warmup * self.steps))
        return self.learning_rate * min(
            (step + 1) / warm, (self.steps - step) / max(1, self.steps - warm)
        )


class NotFinite(ArithmeticError):
    """A loss or its gradient is NaN or infinite; the message names the step and the batch. The last checkpoint is kept."""


class OutOfMemory(OSError):
    """A step does not fit into the device's memory; the message says what would. The last checkpoint is kept."""


def seed_step(seed: int, step: int) -> None:
    """Seed every random number of a step from (seed, step), and from the process where there are several."""
    torch.manual_seed(seed * 1_000_003 + step + 1_000_000_007 * processes.number())


def _save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, log: list[dict]
) -> None:
    tensors = {}
    for (
        name,
        parameter,
    ) in model.named_parameters():  # shared weights count once; no encoder here has other state
        tensors[f"model.{name}"] = parameter
        for moment in ("exp_avg", "exp_avg_sq", "step") if parameter in optimizer.state else ():
            tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    path = folder / f"checkpoint-{step}.safetensors"
    write_tensors(path, tensors)
    write_json(
        folder / "checkpoint.json",
        {"step": step, "file": path.name, "sha256": digest(path), "log": log},
    )
    for old in folder.glob("checkpoint-*.safetensors"):
        if old != path:
            old.unlink()


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict]]:
    """(next step, log) after loading the checkpoint of the folder; (0, []) where there is none that is whole."""
    if not (record := folder / "checkpoint.json").exists():
        return 0, []
    try:
        state = json.loads(record.read_text())
        step, log, path = state["step"], state["log"], folder / state["file"]
        if digest(path) != state["sha256"]:
            raise ValueError("its digest differs")
        tensors = read_tensors(path)
        if any(
            tensors[f"model.{name}"].shape != parameter.shape
            for name, parameter in model.named_parameters()
        ):
            raise ValueError("it is of another model")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        print(
            f"the checkpoint of {folder} is not what was written there ({error!r}): starting this stage afresh"
        )
        return 0, []
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"model.{name}"])
        moments = {
            m: tensors[f"{m}.{name}"]
            for m in ("exp_avg", "exp_avg_sq", "step")
            if f"{m}.{name}" in tensors
        }
        if moments:
            optimizer.state[parameter] = {
                m: t.to(parameter.device) if m != "step" else t for m, t in moments.items()
            }
    return step, log


def _fits(
    loss_at: Callable[[int], dict[str, Tensor]], step: int, optimizer: torch.optim.Optimizer
) -> bool:
    """Whether a step's gradients fit into memory, beside the moments that AdamW will have."""
    optimizer.zero_grad()
    torch.cuda.empty_cache()
    try:
        parameters = [
            p for group in optimizer.param_groups for p in group["params"] if not optimizer.state
        ]
        _moments = [torch.empty_like(p) for p in (*parameters, *parameters)]
        loss_at(step)["total"].backward()
    except torch.OutOfMemoryError:
        return False
    return True


def _what_fits(
    loss_at: Callable[[int], dict[str, Tensor]], step: int, optimizer: torch.optim.Optimizer
) -> str:
    """What to do about a step that does not fit into memory: the largest at_once, a power of two, with which it does, by trying."""
    asked, how = (
        retrievers.AT_ONCE,
        "fewer texts pass through an encoder at a time, with the same result",
    )
    if processes.count() > 1:
        return f"try --at-once 16, or a smaller one: {how}"
    try:
        for at_once in (
            size for size in (2**i for i in range(9, -1, -1)) if asked is None or size < asked
        ):
            retrievers.AT_ONCE = at_once
            if _fits(loss_at, step, optimizer):
                return f"with --at-once {at_once} it does: {how}"
    finally:
        retrievers.AT_ONCE = asked
    return "nor does one text at a time: take smaller batches or a smaller encoder"


def fit(
    model: nn.Module,
    loss_at: Callable[[int], dict[str, Tensor]],
    schedule: Schedule,
    seed: int,
    folder: Path,
    label: str,
    describe: Callable[[int], str] = lambda step: "",
) -> list[dict]:
    """Train `model` in place; return the log, one row of loss parts per step.

    Of an nn.ModuleDict each model's gradient is clipped on its own, as if each had its own optimiser (so the released code).
    loss_at: step -> {"total": loss, other parts to be logged}, all scalars. describe: step -> the batch's ids, for `NotFinite`.
    Checkpoints go to `folder`; a checkpoint found there is continued. Of several processes each has the loss of its share of the
    batch: gradients and log are their means.
    """
    accelerator = Accelerator()
    models = model.values() if isinstance(model, nn.ModuleDict) else [model]
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.to(accelerator.device).train()
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    first, log = _resume(folder, model, optimizer)
    saved = time.monotonic()
    for step in tqdm(
        range(first, schedule.steps),
        initial=first,
        total=schedule.steps,
        desc=label,
        unit="step",
        disable=not processes.main(),
    ):
        seed_step(seed, step)
        try:
            parts = loss_at(step)
            accelerator.backward(parts["total"])
        except torch.OutOfMemoryError:
            parts = None
        if parts is None:  # out here, where no traceback keeps the step's tensors
            raise OutOfMemory(
                f"{label}: step {step} does not fit into the memory of {accelerator.device}; "
                + _what_fits(loss_at, step, optimizer)
            )
        values = {name: float(processes.mean(value)) for name, value in parts.items()}
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        for parameter in parameters if processes.count() > 1 else ():
            if parameter.grad is not None:
                parameter.grad = processes.mean(parameter.grad)
        norms = [
            float(torch.nn.utils.clip_grad_norm_(m.parameters(), schedule.clip)) for m in models
        ]
        if not all(map(math.isfinite, (*norms, *values.values()))):
            raise NotFinite(
                f"{label}: the loss or its gradient is not finite at step {step} ({values}, gradient norm {norms}); "
                f"batch {describe(step)}; the last checkpoint in {folder} is kept"
            )
        optimizer.step()
        optimizer.zero_grad()
        log.append({"step": step, **values})
        if watch := WATCH.get():
            watch(label, model, log, schedule.steps)
        if processes.main() and time.monotonic() - saved > schedule.save_seconds:
            _save(folder, model, optimizer, step + 1, log)
            saved = time.monotonic()
    model.eval()
    return log

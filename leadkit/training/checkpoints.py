"""Checkpoints of a training: weights, optimiser moments, the next step and the log."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from leadkit.files import digest, read_tensors, write_json, write_tensors

MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps for each parameter


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, log: list[dict]
) -> None:
    """Write the checkpoint before `step`; the one before it goes when this one stands."""
    tensors = {}
    # Shared weights count once; no encoder here has other state.
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.data
        for moment, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = tensor
    path = folder / f"checkpoint-{step}.safetensors"
    write_tensors(path, tensors)
    state = {"step": step, "file": path.name, "sha256": digest(path), "log": log}
    write_json(folder / "checkpoint.json", state)
    for old in folder.glob("checkpoint-*.safetensors"):
        if old != path:
            old.unlink()


def resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict]]:
    """Load the folder's checkpoint; return (next step, log), or (0, []) where none is whole."""
    record = folder / "checkpoint.json"
    if not record.exists():
        return 0, []
    try:
        state = json.loads(record.read_text())
        step, log = state["step"], state["log"]
        tensors = _read(folder / state["file"], state["sha256"], model)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        print(
            f"the checkpoint of {folder} is not what was written there ({error!r}): starting this "
            "stage afresh"
        )
        return 0, []
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"model.{name}"])
        _restore(optimizer, name, parameter, tensors)
    return step, log


def _read(path: Path, sha256: str, model: nn.Module) -> dict[str, Tensor]:
    if digest(path) != sha256:
        raise ValueError("its digest differs")
    tensors = read_tensors(path)
    for name, parameter in model.named_parameters():
        if tensors[f"model.{name}"].shape != parameter.shape:
            raise ValueError("it is of another model")
    return tensors


def _restore(
    optimizer: torch.optim.Optimizer,
    name: str,
    parameter: nn.Parameter,
    tensors: dict[str, Tensor],
) -> None:
    """Give the optimiser the moments that the checkpoint has for a parameter."""
    saved = {moment: f"{moment}.{name}" for moment in MOMENTS}
    if saved["step"] not in tensors:
        return
    # A fused AdamW keeps its step beside the parameter, too.
    optimizer.state[parameter] = {
        moment: tensors[key].to(parameter.device) for moment, key in saved.items()
    }

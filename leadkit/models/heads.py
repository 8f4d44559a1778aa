"""Heads of checkpoints: what stands between the states of a layer and its score.

A head is applied to every layer, as the paper's one projection w is (Eq. 3); the paper itself has
no other heads. `Tower.head` names its parts in their order, with blanks between:

- "dense:OUT:ACTIVATION", with ":bias" behind it where there is one: a linear layer;
- "normalize": states of length 1;
- "linear": the checkpoint's linear layer is layer L + 1 (`Tower.linear`); not a part of the head.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
}


class Normalize(nn.Module):
    """States (..., H) divided by their length."""

    def forward(self, states: Tensor) -> Tensor:
        return functional.normalize(states, dim=-1)


def dense(linear: nn.Linear, activation: nn.Module) -> str:
    """The part that such a layer is. ValueError for an activation that is not known here."""
    for name, kind in ACTIVATIONS.items():
        if type(activation) is kind and getattr(activation, "approximate", "none") == "none":
            bias = ":bias" if linear.bias is not None else ""
            return f"dense:{linear.out_features}:{name}{bias}"
    known = ", ".join(ACTIVATIONS)
    raise ValueError(f"its activation {activation} is none of {known}")


def build_head(head: str, width: int) -> nn.Sequential:
    """The modules of a head for states of this width, untrained. ValueError for another part."""
    modules: list[nn.Module] = []
    for part in head.split():
        if part == "normalize":
            modules.append(Normalize())
        elif match := re.fullmatch(r"dense:(\d+):([a-z]+)(:bias)?", part):
            out = int(match[1])
            linear = nn.Linear(width, out, bias=match[3] is not None)
            modules.append(nn.Sequential(linear, ACTIVATIONS[match[2]]()))
            width = out
        elif part != "linear":
            raise ValueError(f"head {head!r}: part {part!r} is not known")
    return nn.Sequential(*modules)


def linears(module: nn.Module) -> list[nn.Linear]:
    """The linear layers of a module, in their order."""
    return [each for each in module.modules() if isinstance(each, nn.Linear)]


def head_width(head: nn.Sequential, width: int) -> int:
    """Width of what a head makes of states of this width."""
    every = linears(head)
    return every[-1].out_features if every else width


@torch.no_grad()
def copy_linear(source: nn.Linear, target: nn.Linear) -> None:
    """Copy weight and bias; a bias that the source lacks is zero."""
    target.weight.copy_(source.weight)
    if target.bias is not None:
        target.bias.copy_(0 if source.bias is None else source.bias)

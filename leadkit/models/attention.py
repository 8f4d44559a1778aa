"""The attention of encoders that compute in bfloat16 on a CPU; elsewhere the library chooses.

There the backward pass of torch's fused attention is slow. The plain attention of transformers is
fast, but keeps more than its gradient needs. The attention here has the same numbers and keeps
less.
"""

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.models.bert.modeling_bert import eager_attention_forward as plain_attention


def set_attention(model: PreTrainedModel, bf16: bool) -> None:
    """Choose the attention of a model. bf16: whether the model computes in bfloat16."""
    if not bf16 or torch.cuda.is_available():
        return
    # Most models repeat BERT's plain attention word for word.
    module = sys.modules[type(model).__module__]
    repeated = getattr(module, plain_attention.__name__, None)
    same = repeated and inspect.getsource(repeated) == inspect.getsource(plain_attention)
    model.set_attn_implementation("lean" if same else "eager")


def lean_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, Tensor | None]:
    """The numbers of the plain attention, with less kept for the gradient.

    query, key, value: (P, heads, T, d). mask: (P, 1, T, T), added to the scores, or None.
    Returns the states (P, T, heads, d) and, in the place of the attention weights, None.
    With dropout it is the plain attention.
    """
    if dropout:
        return plain_attention(module, query, key, value, mask, scaling, dropout)
    states = _Attention.apply(query, key, value, mask, scaling)  # (P, heads, T, d)
    return states.transpose(1, 2).contiguous(), None  # (P, T, heads, d)


AttentionInterface.register("lean", lean_attention)
AttentionMaskInterface.register("lean", eager_mask)


class _Attention(torch.autograd.Function):
    """softmax(scaling q k^T + mask) v.

    Of the maps (P, heads, T, T) only the scores are kept, in bfloat16. The plain attention keeps
    the probabilities, in float32 and in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float
    ) -> Tensor:
        # S = \mathrm{scaling} \cdot Q K^T
        scores = q.flatten(0, 1) @ k.flatten(0, 1).mT  # (P * heads, T, T)
        scores = scores.mul_(scaling).unflatten(0, q.shape[:2])  # (P, heads, T, T)
        ctx.save_for_backward(q, k, v, mask, scores)
        ctx.scaling = scaling
        # O = A V
        return _probabilities(scores, mask).to(v.dtype) @ v  # (P, heads, T, d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, scores = ctx.saved_tensors
        A = _probabilities(scores, mask).flatten(0, 1)  # (P * heads, T, T)
        # `flatten` copies here. A product transposes a copy for free, but not a view.
        Q, K, V, dO = (x.flatten(0, 1) for x in (q, k, v, grad))  # (P * heads, T, d)
        # dA = dO V^T, dS = A (dA - \sum_y A_y dA_y); dA is not named, to be freed at once
        dS = torch.ops.aten._softmax_backward_data((dO @ V.mT).to(A.dtype), A, -1, A.dtype)
        dS = dS.to(Q.dtype).mul_(ctx.scaling)  # (P * heads, T, T)
        # dQ = dS K, dK = dS^T Q, dV = A^T dO
        gradients = dS @ K, dS.mT @ Q, A.to(V.dtype).mT @ dO
        dQ, dK, dV = (x.unflatten(0, grad.shape[:2]) for x in gradients)  # (P, heads, T, d)
        return dQ, dK, dV, None, None


def _probabilities(scores: Tensor, mask: Tensor | None) -> Tensor:
    # A = \mathrm{softmax}(S + \mathrm{mask}), in the mask's float32
    masked = scores if mask is None else scores + mask
    return masked.softmax(-1)  # (P, heads, T, T)

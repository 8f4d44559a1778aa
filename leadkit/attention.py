"""How encoders attend: by torch's fused attention; in bfloat16 on a CPU, where its backward pass is slow, by a plain one."""

import sys

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

_PLAIN = "eager_attention_forward"  # attention written out, in the file of each model that can be told how to attend


def set_attention(model: PreTrainedModel, bf16: bool) -> None:
    """Choose the attention of a model that computes in bfloat16, or not."""
    if bf16 and not torch.cuda.is_available():
        model.set_attn_implementation("lean" if hasattr(sys.modules[type(model).__module__], _PLAIN) else "eager")


def lean(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0,
         scaling: float | None = None, **others: object) -> tuple[Tensor, Tensor | None]:
    """The model's plain attention with the same numbers and less kept for its gradient: query, key, value (P, heads, T, d), mask
    (P, 1, T, T) to be added or None -> (P, T, heads, d). What it does not know, dropout among it, the plain one does."""
    if dropout or scaling is None or key.shape != query.shape or any(value is not None for value in others.values()):
        return getattr(sys.modules[type(module).__module__], _PLAIN)(
            module, query, key, value, mask, dropout=dropout, scaling=scaling, **others)
    return _Attention.apply(query, key, value, mask, scaling).transpose(1, 2).contiguous(), None


AttentionInterface.register("lean", lean)
AttentionMaskInterface.register("lean", eager_mask)


class _Attention(torch.autograd.Function):
    """softmax(scaling q k^T + mask) v. Of the maps (P, heads, T, T) the scores alone are kept, in bfloat16; the plain attention
    keeps the probabilities, in float32 and in bfloat16."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        scores = (q @ k.mT).mul_(scaling)  # (P, heads, T, T)
        ctx.save_for_backward(q, k, v, mask, scores)
        ctx.scaling = scaling
        return _probabilities(scores, mask).to(v.dtype) @ v  # (P, heads, T, d)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, scores = ctx.saved_tensors
        A = _probabilities(scores, mask)  # (P, heads, T, T)
        # dA = dO V^T, dS = A (dA - \sum_y dA_y A_y)
        dA = (grad @ v.mT).to(A.dtype)
        dS = torch.ops.aten._softmax_backward_data(dA, A, -1, A.dtype).to(q.dtype).mul_(ctx.scaling)
        return dS @ k, (q.mT @ dS).mT, A.to(v.dtype).mT @ grad, None, None


def _probabilities(scores: Tensor, mask: Tensor | None) -> Tensor:
    return (scores if mask is None else scores + mask).softmax(-1)  # in the mask's float32

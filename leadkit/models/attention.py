"""How encoders attend: by torch's fused attention; in bfloat16 on a CPU, where its backward pass is slow, by a plain one."""

import inspect
import sys

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.models.bert.modeling_bert import eager_attention_forward as plain


def set_attention(model: PreTrainedModel, bf16: bool) -> None:
    """Choose the attention of a model that computes in bfloat16, or not."""
    if bf16 and not torch.cuda.is_available():
        own = getattr(
            sys.modules[type(model).__module__], plain.__name__, None
        )  # most models repeat that of BERT word for word
        same = own and inspect.getsource(own) == inspect.getsource(plain)
        model.set_attn_implementation("lean" if same else "eager")


def lean(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, Tensor | None]:
    """The plain attention with the same numbers and less kept for its gradient, but where there is dropout: query, key, value
    (P, heads, T, d), mask (P, 1, T, T) to be added or None -> (P, T, heads, d)."""
    if dropout:
        return plain(module, query, key, value, mask, scaling, dropout)
    return _Attention.apply(query, key, value, mask, scaling).transpose(1, 2).contiguous(), None


AttentionInterface.register("lean", lean)
AttentionMaskInterface.register("lean", eager_mask)


class _Attention(torch.autograd.Function):
    """softmax(scaling q k^T + mask) v. Of the maps (P, heads, T, T) the scores alone are kept, in bfloat16; the plain attention
    keeps the probabilities, in float32 and in bfloat16."""

    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float
    ) -> Tensor:
        scores = (
            (q.flatten(0, 1) @ k.flatten(0, 1).mT).mul_(scaling).unflatten(0, q.shape[:2])
        )  # (P, heads, T, T)
        ctx.save_for_backward(q, k, v, mask, scores)
        ctx.scaling = scaling
        return _probabilities(scores, mask).to(v.dtype) @ v  # (P, heads, T, d)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, mask, scores = ctx.saved_tensors
        q, k, v, dO = (
            x.flatten(0, 1) for x in (*inputs, grad)
        )  # (P * heads, T, d); a copy's transpose is free, a view's is not
        A = _probabilities(scores, mask).flatten(0, 1)  # (P * heads, T, T)
        # dA = dO V^T, dS = A (dA - \sum_y dA_y A_y)
        dS = (
            torch.ops.aten._softmax_backward_data((dO @ v.mT).to(A.dtype), A, -1, A.dtype)
            .to(q.dtype)
            .mul_(ctx.scaling)
        )
        return (
            *(x.unflatten(0, grad.shape[:2]) for x in (dS @ k, dS.mT @ q, A.to(v.dtype).mT @ dO)),
            None,
            None,
        )


def _probabilities(scores: Tensor, mask: Tensor | None) -> Tensor:
    return (scores if mask is None else scores + mask).softmax(-1)  # in the mask's float32

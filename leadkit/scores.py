"""Similarity functions of the three architectures, for K layers at once (paper, section 3.2).

Shapes: K layers, B queries of X tokens, N passages of Y tokens, hidden size H.
Masks are 1 or True at tokens, 0 or False at padding.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Bytes of one chunk of MaxSim scores. On a CPU a chunk fits into the cache of a core.
CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**28}


def dot(q: Tensor, p: Tensor) -> Tensor:
    """Every query against every passage, Eq. (1): q (K, B, H), p (K, N, H) -> (K, B, N).

    >>> dot(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [5.0, 6.0]]]))
    tensor([[[11., 17.]]])
    """
    # f_{DE}(q, p) = E_Q(q)^T \cdot E_P(p)
    return q @ p.mT  # (K, B, N)


def project(cls: Tensor, w: Tensor) -> Tensor:
    """Project [CLS] states of query-passage pairs, Eq. (3): cls (K, ..., H) -> (K, ...).

    w: (H,), the one projection that all layers share.

    >>> project(torch.tensor([[1.0, 2.0]]), torch.tensor([10.0, 1.0]))
    tensor([12.])
    """
    # f_{CE}(q, p) = w^T \cdot E_{CE}([q; p])
    return cls @ w  # (K, ...)


def maxsim(q: Tensor, p: Tensor, p_mask: Tensor, q_mask: Tensor | None = None) -> Tensor:
    """Late interaction, Eq. (2): q (K, B, X, H), p (K, N, Y, H) -> (K, B, N).

    p_mask: (N, Y). q_mask: (B, X). Each query token takes its most similar passage token.
    Padding of a passage is never taken, padding of a query adds nothing. Without a q_mask every
    query position counts, as in the released code.

    Passages are scored in chunks: no (B, N, X, Y) tensor exists, forward or backward.
    ValueError for a mask of the wrong shape or a passage without a token.

    >>> q, p = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[3.0], [4.0]]]])
    >>> maxsim(q, p, p_mask=torch.tensor([[1, 0]]))  # 1 * 3 + 2 * 3: the 4 is padding
    tensor([[[9.]]])
    """
    _check_masks(q, p, p_mask, q_mask)
    best = _MaxOverPassageTokens.apply(q, p, p_mask.bool())  # (K, B, X, N)
    if q_mask is not None:
        best = best.masked_fill(~q_mask.bool()[..., None], 0)
    # f_{CB}(q, p) = \sum_{1 \le x \le X} \max_{1 \le y \le Y} E_Q(q)_x \cdot E_P(p)_y
    return best.sum(2)  # (K, B, N)


def attention_maps(q: Tensor, p: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
    """How each query token spreads over the tokens of each passage: -> (K, B, N, X, Y).

    These probabilities are the interaction maps that feature distillation compares (VIRT; FD in
    Table 3). Shapes and errors as in `maxsim`. Passage padding has probability 0, rows of query
    padding are 0. The whole tensor exists, so B and N must be small.

    >>> q, p = torch.zeros(1, 1, 1, 8), torch.ones(1, 1, 4, 8)
    >>> attention_maps(q, p, torch.tensor([[1]]), torch.tensor([[1, 1, 0, 0]]))
    tensor([[[[[0.5000, 0.5000, 0.0000, 0.0000]]]]])
    """
    _check_masks(q, p, p_mask, q_mask)
    scores = torch.einsum("kbxh,knyh->kbnxy", q, p)  # (K, B, N, X, Y)
    scores = scores.masked_fill(~p_mask.bool()[:, None], -torch.inf)
    maps = scores.softmax(-1)
    return maps.masked_fill(~q_mask.bool()[:, None, :, None], 0)


class _MaxOverPassageTokens(torch.autograd.Function):
    """m_{x n} = max_y q_x . p_{n y} as (K, B, X, N).

    The backward pass needs only which y won: one row for each (x, passage) instead of Y rows.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, p: Tensor, p_mask: Tensor) -> Tensor:
        K, B, X, _ = q.shape
        N, Y = p_mask.shape
        # Allocated before the chunks, so that each chunk can reuse the memory of the one before.
        best = q.new_empty(K, B, X, N)
        winner = torch.empty(K, B, X, N, dtype=torch.long, device=q.device)
        for chunk in _chunks(N, K * B * X * Y * q.element_size(), q.device):
            scores = q.flatten(1, 2) @ p[:, chunk].flatten(1, 2).mT  # (K, B * X, chunk * Y)
            scores = scores.view(K, B, X, -1, Y)  # (K, B, X, chunk, Y)
            scores.masked_fill_(~p_mask[chunk], -torch.inf)
            best[..., chunk], winner[..., chunk] = scores.max(-1)  # (K, B, X, chunk)
        ctx.save_for_backward(q, p, winner)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        q, p, winner = ctx.saved_tensors
        K, B, X, H = q.shape
        _, N, Y, _ = p.shape
        q = q.flatten(1, 2)  # (K, B * X, H)
        winner = winner.flatten(1, 2)  # (K, B * X, N)
        grad = grad.flatten(1, 2).to(q.dtype)  # (K, B * X, N)
        grad_q = torch.zeros_like(q)
        grad_p = torch.zeros(p.shape, dtype=p.dtype, device=p.device)
        for chunk in _chunks(N, B * X * H * q.element_size(), q.device):
            starts = Y * torch.arange(chunk.stop - chunk.start, device=q.device)  # (chunk,)
            rows = winner[..., chunk] + starts  # (K, B * X, chunk)
            for k in range(K):
                g = grad[k, :, chunk].contiguous()  # (B * X, chunk)
                tokens = p[k, chunk].flatten(0, 1)  # (chunk * Y, H)
                # dL/dq_x = \sum_n g_{x n} p_{n y^*}, y^* the winner of x in n
                won = F.embedding_bag(rows[k], tokens, per_sample_weights=g, mode="sum")
                grad_q[k] += won  # (B * X, H)
                # dL/dp_{n y^*} = \sum_x g_{x n} q_x
                moved = (g[..., None] * q[k, :, None]).flatten(0, 1)  # (B * X * chunk, H)
                grad_p[k, chunk].view(-1, H).index_add_(0, rows[k].flatten(), moved)
        return grad_q.view(K, B, X, H), grad_p, None


def _chunks(N: int, bytes_per_passage: int, device: torch.device) -> Iterator[slice]:
    size = max(1, CHUNK_BYTES[device.type] // bytes_per_passage)
    for start in range(0, N, size):
        yield slice(start, min(start + size, N))


def _check_masks(q: Tensor, p: Tensor, p_mask: Tensor, q_mask: Tensor | None) -> None:
    for name, mask, states in (("p_mask", p_mask, p), ("q_mask", q_mask, q)):
        if mask is not None and mask.shape != states.shape[1:3]:
            raise ValueError(
                f"{name} has shape {tuple(mask.shape)}: "
                f"the token states need {tuple(states.shape[1:3])}"
            )
    filled = p_mask.bool().any(1)  # (N,)
    if not filled.all():
        passage = filled.int().argmin().item()
        raise ValueError(f"p_mask is all 0 for passage {passage}: a passage needs a token")

"""Similarity functions of the three architectures, for K layers at once (paper, section 3.2).

Shapes: K layers, B queries of X tokens, N passages of Y tokens, hidden size H.
Masks are 1 or True at tokens, 0 or False at padding.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# What one chunk of a MaxSim may take: on a CPU, what stays in a core's cache.
CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**28}


def dot(q: Tensor, p: Tensor) -> Tensor:
    """Every query against every passage, Eq. (1): q (K, B, H), p (K, N, H) -> (K, B, N).

    >>> dot(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [5.0, 6.0]]]))
    tensor([[[11., 17.]]])
    """
    # f_{DE}(q, p) = E_Q(q)^T \cdot E_P(p)
    return q @ p.mT  # (K, B, N)


def project(cls: Tensor, w: Tensor) -> Tensor:
    """[CLS] states of query-passage pairs onto the one shared w (H,), Eq. (3): cls (K, ..., H) -> (K, ...)."""
    # f_{CE}(q, p) = w^T \cdot E_{CE}([q; p])
    return cls @ w  # (K, ...)


def maxsim(q: Tensor, p: Tensor, p_mask: Tensor, q_mask: Tensor | None = None) -> Tensor:
    """Late interaction, Eq. (2): q (K, B, X, H), p (K, N, Y, H), p_mask (N, Y), q_mask (B, X) -> (K, B, N).

    Each query token takes its most similar passage token. Padding of passages is never taken; padding of queries
    adds nothing, but without a q_mask every query position counts, as in the released code. Chunked over passages:
    neither forward nor backward holds a (B, N, X, Y) tensor. ValueError for a mask of the wrong shape or a passage
    without a token.
    """
    _check_masks(q, p, p_mask, q_mask)
    best = _MaxOverPassageTokens.apply(q, p, p_mask.bool())  # (K, B, X, N)
    if q_mask is not None:
        best = best.masked_fill(~q_mask.bool()[..., None], 0)
    # f_{CB}(q, p) = \sum_{1 \le x \le X} \max_{1 \le y \le Y} E_Q(q)_x \cdot E_P(p)_y
    return best.sum(2)  # (K, B, N)


def attention_maps(q: Tensor, p: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
    """How each query token spreads over a passage's tokens: shapes as in `maxsim` -> probabilities (K, B, N, X, Y).

    The interaction maps that feature distillation compares (VIRT; Table 3's FD). Passage padding has probability 0,
    rows of query padding are 0. The whole tensor exists, so B and N must be small. ValueError as in `maxsim`.
    """
    _check_masks(q, p, p_mask, q_mask)
    scores = torch.einsum("kbxh,knyh->kbnxy", q, p)  # (K, B, N, X, Y)
    maps = scores.masked_fill(~p_mask.bool()[:, None], -torch.inf).softmax(-1)
    return maps.masked_fill(~q_mask.bool()[:, None, :, None], 0)


class _MaxOverPassageTokens(torch.autograd.Function):
    """max_y q_x . p_y as (K, B, X, N). Backward needs only which y won: one row per (x, passage) instead of Y."""

    @staticmethod
    def forward(ctx, q: Tensor, p: Tensor, p_mask: Tensor) -> Tensor:
        (K, B, X, _), (N, Y) = q.shape, p_mask.shape
        # Made before the chunks: what a chunk leaves behind would keep the next from the memory that it has freed.
        best, winner = (
            q.new_empty(K, B, X, N),
            torch.empty(K, B, X, N, dtype=torch.long, device=q.device),
        )
        for c in _chunks(N, K * B * X * Y * q.element_size(), q.device):
            scores = q.flatten(1, 2) @ p[:, c].flatten(1, 2).mT  # (K, B * X, chunk * Y)
            scores = scores.view(K, B, X, -1, Y).masked_fill_(
                ~p_mask[c], -torch.inf
            )  # (K, B, X, chunk, Y)
            best[..., c], winner[..., c] = scores.max(-1)  # (K, B, X, chunk)
        ctx.save_for_backward(q, p, winner)
        return best  # (K, B, X, N)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        q, p, winner = ctx.saved_tensors
        (K, B, X, H), (N, Y) = q.shape, p.shape[1:3]
        q, winner, grad = (
            q.flatten(1, 2),
            winner.flatten(1, 2),
            grad.flatten(1, 2).to(q.dtype),
        )  # (K, B * X, H or N)
        grad_q, grad_p = torch.zeros_like(q), torch.zeros(p.shape, dtype=p.dtype, device=p.device)
        for c in _chunks(N, B * X * H * q.element_size(), q.device):
            rows = winner[..., c] + Y * torch.arange(
                c.stop - c.start, device=q.device
            )  # (K, B * X, chunk)
            for k in range(K):
                g, tokens = (
                    grad[k, :, c].contiguous(),
                    p[k, c].flatten(0, 1),
                )  # (B * X, chunk), (chunk * Y, H)
                grad_q[k] += F.embedding_bag(
                    rows[k], tokens, per_sample_weights=g, mode="sum"
                )  # (B * X, H)
                moved = (g[..., None] * q[k, :, None]).flatten(0, 1)  # (B * X * chunk, H)
                grad_p[k, c].view(-1, H).index_add_(0, rows[k].flatten(), moved)
        return grad_q.view(K, B, X, H), grad_p, None


def _chunks(N: int, bytes_per_passage: int, device: torch.device) -> Iterator[slice]:
    size = max(1, CHUNK_BYTES[device.type] // bytes_per_passage)
    return (slice(i, min(i + size, N)) for i in range(0, N, size))


def _check_masks(q: Tensor, p: Tensor, p_mask: Tensor, q_mask: Tensor | None) -> None:
    for name, mask, states in (("p_mask", p_mask, p), ("q_mask", q_mask, q)):
        if mask is not None and mask.shape != states.shape[1:3]:
            raise ValueError(
                f"{name} has shape {tuple(mask.shape)}: the token states need {tuple(states.shape[1:3])}"
            )
    filled = p_mask.bool().any(1)
    if not filled.all():
        raise ValueError(
            f"p_mask is all 0 for passage {filled.int().argmin().item()}: a passage needs a token"
        )

"""What a retriever is given: padded tokens, and batches that say which passages are candidates."""

from dataclasses import dataclass, replace
from itertools import repeat

import torch
from torch import Tensor

from leadkit import processes


@dataclass(frozen=True)
class Tokens:
    """Padded token ids (P, T) with mask (P, T), True where there is a token.

    kinds: the token types (P, T) of pairs, None for single texts.
    """

    ids: Tensor
    mask: Tensor
    kinds: Tensor | None = None

    def to(self, device: torch.device) -> "Tokens":
        kinds = None if self.kinds is None else self.kinds.to(device, non_blocking=True)
        ids = self.ids.to(device, non_blocking=True)
        return Tokens(ids, self.mask.to(device, non_blocking=True), kinds)

    def split(self, size: int) -> "list[Tokens]":
        """Parts of `size` texts; the last may have fewer."""
        kinds = repeat(None) if self.kinds is None else self.kinds.split(size)
        parts = zip(self.ids.split(size), self.mask.split(size), kinds, strict=False)
        return [Tokens(*part) for part in parts]


@dataclass(frozen=True)
class Batch:
    """B queries, their B * n passages, and which of the passages each query is scored against.

    passages: those of query b are rows b*n .. b*n + n - 1, the positive first.
    positive: (B,), the column of the positive.
    own: False scores each query against all N = B * n passages (in-batch negatives), True against
        its own n, as wherever a CE takes part.
    pairs: the B * n concatenations of query and passage, for a CE.

    With W processes each holds B / W queries and their passages, and N counts the passages of all
    processes (cross-batch negatives).
    """

    queries: Tokens
    passages: Tokens
    positive: Tensor
    own: bool = False
    pairs: Tokens | None = None

    @property
    def n(self) -> int:
        """How many passages each query has."""
        return len(self.passages.ids) // len(self.positive)

    def candidates(self, scores: Tensor) -> Tensor:
        """(K, B, N, ...) -> (K, B, C, ...): all columns, or each query's own n."""
        if not self.own:
            return scores
        B = scores.shape[1]
        columns = torch.arange(scores.shape[2], device=scores.device).view(B, -1)  # (B, n)
        rows = torch.arange(B, device=scores.device)[:, None]  # (B, 1)
        return scores[:, rows, columns]  # (K, B, n, ...)

    def against(self, own: bool) -> "Batch":
        """The same texts, each query against its own passages, or against all of the batch."""
        B, P = len(self.positive), len(self.passages.ids)
        first = torch.arange(B, device=self.positive.device) * self.n  # (B,)
        everywhere = processes.number() * P + first  # the processes' passages stand side by side
        return replace(self, own=own, positive=torch.zeros_like(first) if own else everywhere)

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            queries=self.queries.to(device),
            passages=self.passages.to(device),
            positive=self.positive.to(device),
            pairs=self.pairs and self.pairs.to(device),
        )

"""Views of the texts of a collection: what looks like a query, and what looks like a passage.

Each text has two short views (its training query where it has one, and a span of a few words) and
two long ones (the whole passage, and a longer span). The spans are drawn once, so that a teacher's
vectors of all views can be computed once.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from leadkit.data.collections import Collection
from leadkit.data.tokens import Tokenised, pair
from leadkit.models.batch import Tokens

WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Seen:
    """What a step of pre-training sees: views of B texts, and P * n pairs of them.

    pairs: P short views, each joined to n long views; the first of them is of the same text.
    taught: the teacher's vectors (B, D) of the short and of the long views.
    """

    short: Tokens
    long: Tokens
    pairs: Tokens
    n: int = 1
    taught: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Draws:
    """Draws what a step sees. The tokens, and vectors, of all first views stand before the second.

    vectors: the teacher's, (2 * texts, D), of the short and of the long views.
    batch: B. paired: P. others: n - 1. Without vectors there are as many pairs, each of one text.
    """

    short: Tokenised
    long: Tokenised
    vectors: tuple[Tensor, Tensor] | None
    batch: int
    paired: int
    others: int

    def __call__(self) -> Seen:
        texts = len(self.short) // 2
        rows = torch.randperm(texts)[: self.batch]  # (B,)
        short, long = (rows + texts * torch.randint(2, rows.shape) for _ in range(2))  # (B,)
        columns = torch.arange(self.paired * (self.others + 1))[:, None]  # (P, 1)
        taught = None
        if self.vectors:
            taught = self.vectors[0][short], self.vectors[1][long]  # (B, D)
            columns = hardest(taught[0] @ taught[1].T, self.paired, self.others + 1)  # (P, n)
        P, n = columns.shape
        first = short[:P].repeat_interleave(n)  # (P * n,)
        second = long[columns].flatten()  # (P * n,)
        pairs = pair(self.short, self.long, first.numpy(), second.numpy())
        return Seen(self.short.rows(short.numpy()), self.long.rows(long.numpy()), pairs, n, taught)


def hardest(cosines: Tensor, P: int, n: int) -> Tensor:
    """(P, n): for the first P texts, the text itself and the n - 1 most similar others.

    cosines: (B, B), of short and long views.
    """
    same = torch.arange(P, device=cosines.device)[:, None]  # (P, 1)
    others = cosines[:P].scatter(1, same, -torch.inf)  # (P, B)
    return torch.cat([same, others.topk(n - 1).indices], 1)  # (P, n)


def short_views(collection: Collection, seed: int) -> list[list[str]]:
    """Two of each text: the training queries, and spans of 4 to 14 words.

    A text without a training query has another span in its place. No dev or test query.
    """
    spans = _spans(collection, 4, 14, seed)
    others = _spans(collection, 4, 14, seed + 1)
    views = dict(zip(collection.passages, others, strict=True))
    for qid, relevant in collection.qrels["train"].items():
        for pid in relevant:
            views[pid] = collection.queries[qid]
    return [list(views.values()), spans]


def long_views(collection: Collection, seed: int) -> list[list[str]]:
    """Two of each text: the passages, and spans of 12 to 60 words."""
    return [list(collection.passages.values()), _spans(collection, 12, 60, seed)]


def _spans(collection: Collection, shortest: int, longest: int, seed: int) -> list[str]:
    random = torch.Generator().manual_seed(seed)
    return [_span(text, shortest, longest, random) for text in collection.passages.values()]


def _span(text: str, shortest: int, longest: int, random: torch.Generator) -> str:
    """`shortest` to `longest` words of a text in a row; the whole text where it has fewer."""
    words = [word.span() for word in WORD.finditer(text)]
    size = int(torch.randint(shortest, longest + 1, (), generator=random))
    size = min(size, len(words))
    first = int(torch.randint(len(words) - size + 1, (), generator=random))
    last = first + size - 1
    return text[words[first][0] : words[last][1]]

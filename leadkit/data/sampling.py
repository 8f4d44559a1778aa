"""From texts to batches: tokenised once per tokeniser, memory-mapped, grouped into queries with their passages.

Which queries, positives and negatives a step sees is a pure function of (seed, step). No passage of a batch is relevant to a
query of the batch except as its positive, so in-batch negatives are never false.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from leadkit import processes
from leadkit.data.collections import Collection
from leadkit.files import alone, digest, write
from leadkit.data.passages import Passages
from leadkit.data.python_docs import CACHE

LAYOUT = 1  # raise it when a change below changes what a token file holds
PORTION = 4096  # texts that are tokenised at once
LONG = 100_000  # texts from which on tokenising shows its progress
NOTHING = np.empty(0, np.int32)  # between the texts of a BERT's pair


@dataclass(frozen=True)
class Tokens:
    """Padded token ids (P, T) with mask (P, T), True where there is a token; kinds (P, T) are the token types of pairs."""

    ids: Tensor
    mask: Tensor
    kinds: Tensor | None = None

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(
            *(
                None if t is None else t.to(device, non_blocking=True)
                for t in (self.ids, self.mask, self.kinds)
            )
        )

    def split(self, size: int) -> "list[Tokens]":
        """Parts of `size` texts; the last may have fewer."""
        parts = [
            t.split(size) if t is not None else repeat(None)
            for t in (self.ids, self.mask, self.kinds)
        ]
        return [Tokens(*part) for part in zip(*parts, strict=False)]


@dataclass(frozen=True)
class Batch:
    """B queries, their B * n passages (query b's are rows b*n .. b*n + n - 1, the positive first), and who is scored against whom.

    own: False: every query against all N = B * n passages (in-batch negatives); True: against its own n (CE).
    pairs: the B * n concatenations of query and passage, for a CE. positive: (B,), the column of the positive.
    Of W processes each has its own B / W queries and their passages; N counts the passages of all (cross-batch negatives).
    """

    queries: Tokens
    passages: Tokens
    positive: Tensor
    own: bool = False
    pairs: Tokens | None = None

    def candidates(self, scores: Tensor) -> Tensor:
        """(K, B, N, ...) -> (K, B, C, ...): all columns, or each query's own n."""
        if not self.own:
            return scores
        B = scores.shape[1]
        columns = torch.arange(scores.shape[2], device=scores.device).view(B, -1)  # (B, n)
        return scores[:, torch.arange(B, device=scores.device)[:, None], columns]

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            queries=self.queries.to(device),
            passages=self.passages.to(device),
            positive=self.positive.to(device),
            pairs=self.pairs and self.pairs.to(device),
        )


class Tokenised:
    """Texts as token ids, special tokens included: one flat memory-mapped array and the offset of each text.

    between, kind: how the tokeniser makes pairs, see `separators`.
    """

    def __init__(
        self,
        flat: np.ndarray,
        offsets: np.ndarray,
        pad: int,
        between: np.ndarray = NOTHING,
        kind: int = 1,
    ):
        self.flat, self.offsets, self.pad, self.between, self.kind = (
            flat,
            offsets,
            pad,
            between,
            kind,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def row(self, i: int) -> np.ndarray:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: list[int]) -> "Tokenised":
        """The texts of these rows alone, in memory."""
        flat = np.concatenate([self.flat[:0], *map(self.row, rows)])
        return Tokenised(
            flat, np.cumsum([0, *self.lengths[rows]]), self.pad, self.between, self.kind
        )

    def rows(self, rows: np.ndarray) -> Tokens:
        """The texts of these rows, padded to the longest of them."""
        return pad([self.row(i) for i in rows], self.pad)

    def part(self, rows: np.ndarray, own: slice) -> Tokens:
        """The texts of rows[own], padded to the longest of all `rows`."""
        tokens = self.rows(rows[own])
        missing = int((self.offsets[rows + 1] - self.offsets[rows]).max()) - tokens.ids.shape[1]
        return Tokens(
            functional.pad(tokens.ids, (0, missing), value=self.pad),
            functional.pad(tokens.mask, (0, missing)),
        )


def pad(rows: list[np.ndarray], value: int, kinds: list[np.ndarray] | None = None) -> Tokens:
    """Token rows to `Tokens`, padded to the longest."""
    width = max(map(len, rows))
    ids, mask = np.full((len(rows), width), value, np.int64), np.zeros((len(rows), width), bool)
    types = None if kinds is None else np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
        if kinds is not None:
            types[i, : len(row)] = kinds[i]
    return Tokens(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        None if types is None else torch.from_numpy(types),
    )


def identity(tokenizer: PreTrainedTokenizerBase) -> dict:
    """What a tokeniser is. How it cut and padded last is remembered by it, but no part of that."""
    return json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}


def separators(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, int]:
    """What a pair has between "[CLS] query [SEP]" and "passage [SEP]", and the token type of the latter.

    Nothing and 1 for BERT, a second separator and 0 for RoBERTa. ValueError for a tokeniser that makes other pairs.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding(), backend.no_truncation()
    text, pair = backend.encode("a").ids, backend.encode("a", "a")
    between = pair.ids[len(text) : len(pair) - len(text) + 1]
    if pair.ids != [*text, *between, *text[1:]]:
        raise ValueError(
            f"tokeniser {tokenizer.name_or_path!r} makes {tokenizer.decode(pair.ids)!r} of the pair 'a', 'a': both "
            "must stand there as each stands alone, but for the second one's [CLS]"
        )
    return np.array(between, np.int32), pair.type_ids[-1]


def tokenise(
    texts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, longest: int, cache: Path = CACHE
) -> Tokenised:
    """Tokenise once, a few thousand texts at a time; later calls map the cached file.

    A cached file that is not what was written is rebuilt. Needs 8 bytes of memory a text, and the file's pages that are looked at.
    longest: tokens per text, special tokens included; longer texts are cut.
    """
    key = hashlib.sha256(json.dumps([LAYOUT, identity(tokenizer), longest]).encode())
    for text in [texts.digest] if isinstance(texts, Passages) else texts.values():
        key.update(text.encode() + b"\0")
    path = cache / "tokens" / f"{key.hexdigest()[:16]}.tokens"
    seal = path.with_suffix(".sha256")
    dtype = np.uint16 if max(*tokenizer.get_vocab().values(), longest) < 2**16 else np.int32

    def save(temporary: Path) -> None:
        """The tokens of all texts, then 0 and the length of each text."""
        lengths = [np.zeros(1, dtype)]
        with (
            open(temporary, "wb") as file,
            tqdm(
                total=len(texts),
                desc="tokenising",
                unit="text",
                leave=False,
                disable=len(texts) < LONG,
            ) as bar,
        ):
            for some in _portions(texts.values()):
                rows = tokenizer(
                    some, truncation=True, max_length=longest, return_attention_mask=False
                )["input_ids"]
                file.write(
                    np.fromiter(chain.from_iterable(rows), dtype)
                )  # not tofile: it does not notice every full disk
                lengths.append(np.fromiter(map(len, rows), dtype))
                bar.update(len(rows))
            file.write(np.concatenate(lengths))

    with alone(cache / f".{path.stem}.lock", path):
        if not (path.exists() and seal.exists() and seal.read_bytes() == digest(path).encode()):
            for unfinished in path.parent.glob(
                f".{path.stem}.*"
            ):  # what a killed process was writing
                unfinished.unlink()
            write(path, save)
            write(seal, lambda temporary: temporary.write_text(digest(path)))
    mapped = np.memmap(path, dtype, mode="r")
    count = len(texts) + 1
    return Tokenised(
        mapped[:-count],
        np.cumsum(mapped[-count:], dtype=np.int64),
        tokenizer.pad_token_id,
        *separators(tokenizer),
    )


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists of `PORTION`, fewer where they are long: a tokeniser holds about 100 bytes for each token."""
    some, size = [], 0
    for text in texts:
        some.append(text)
        size += len(text)
        if len(some) == PORTION or size >= 1000 * PORTION:
            yield some
            some, size = [], 0
    if some:
        yield some


@dataclass(frozen=True)
class Group:
    """One query with its passages, as rows of the collection: relevant ones, and the pool its negatives are drawn from."""

    query: int
    relevant: tuple[int, ...]
    negatives: tuple[int, ...] = ()  # empty: any passage of the collection


def groups(
    collection: Collection, split: str, negatives: Mapping[str, list[str]] | None = None
) -> list[Group]:
    """The queries of a split with their relevant passages (grade >= 1) and mined negatives; relevant ones are never negatives."""
    row, found = collection.passage_row, []
    for i, qid in enumerate(collection.split(split)):
        relevant = {row[pid] for pid, grade in collection.qrels[split][qid].items() if grade > 0}
        pool = (row[pid] for pid in (negatives or {}).get(qid, ()))
        if relevant:
            found.append(
                Group(i, tuple(sorted(relevant)), tuple(p for p in pool if p not in relevant))
            )
    return found


class Sampler:
    """Step -> the queries and passages of its batch. Queries are shuffled anew each epoch."""

    def __init__(self, groups: list[Group], passages: int, batch: int, per_query: int, seed: int):
        if batch > len(groups):
            raise ValueError(
                f"batch {batch} is larger than the {len(groups)} training queries; use at most {len(groups)}"
            )
        if passages <= batch * per_query:
            raise ValueError(
                f"batch {batch} of {per_query} passages needs more than {batch * per_query} passages, not {passages}"
            )
        self.groups, self.passages, self.batch, self.per_query, self.seed = (
            groups,
            passages,
            batch,
            per_query,
            seed,
        )
        self.steps = len(groups) // batch  # per epoch
        self._epoch, self._plan = -1, []

    def _order(self, epoch: int) -> list[list[Group]]:
        """The batches of an epoch; a query that shares a relevant passage with a batch waits for the next one."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.groups))
        plan, waiting = [], [self.groups[i] for i in reversed(order)]
        while len(plan) < self.steps:
            taken, batch, later = set(), [], []
            while len(batch) < self.batch and waiting:
                group = waiting.pop()
                if taken.isdisjoint(group.relevant):
                    batch.append(group)
                    taken.update(group.relevant)
                else:
                    later.append(group)
            waiting += reversed(later)
            plan.append(batch)
        return plan

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the B queries (B,) and of their passages (B, n), the positive in column 0."""
        epoch, at = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._order(epoch)
        batch, random = self._plan[at], np.random.default_rng((self.seed, step, 1))
        relevant = {p for group in batch for p in group.relevant}
        if self.passages - len(relevant) < self.per_query - 1:
            raise ValueError(
                f"batch {self.batch}: {len(relevant)} of the {self.passages} passages are relevant to a query of step "
                f"{step}, which leaves too few for {self.per_query - 1} negatives; use a smaller batch"
            )
        passages = np.empty((len(batch), self.per_query), np.int64)  # (B, n)
        for b, group in enumerate(batch):
            pool = [p for p in group.negatives if p not in relevant]
            drawn = (
                list(random.choice(pool, min(self.per_query - 1, len(pool)), replace=False))
                if pool
                else []
            )
            while len(drawn) < self.per_query - 1:
                p = int(random.integers(self.passages))
                if p not in relevant and p not in drawn:
                    drawn.append(p)
            passages[b] = [random.choice(group.relevant), *drawn]
        return np.array([group.query for group in batch]), passages


class Batches:
    """Step -> `Batch`, for one tokeniser: of several processes, this one's share of it."""

    def __init__(
        self,
        sampler: Sampler,
        queries: Tokenised,
        passages: Tokenised,
        own: bool = False,
        pairs: bool = False,
    ):
        self.sampler, self.queries, self.passages, self.own, self.pairs = (
            sampler,
            queries,
            passages,
            own,
            pairs,
        )
        self.share = processes.share(sampler.batch, "batch")

    def __call__(self, step: int) -> Batch:
        queries, passages = self.sampler(step)
        (B, n), b = passages.shape, self.share
        positive = (torch.zeros(B, dtype=torch.long) if self.own else torch.arange(B) * n)[b]
        p = slice(b.start * n, b.stop * n)
        together = (
            pair(self.queries, self.passages, np.repeat(queries[b], n), passages[b].ravel())
            if self.pairs
            else None
        )
        return Batch(
            self.queries.part(queries, b),
            self.passages.part(passages.ravel(), p),
            positive,
            self.own,
            together,
        )


def pair(
    queries: Tokenised, passages: Tokenised, query_rows: np.ndarray, passage_rows: np.ndarray
) -> Tokens:
    """[CLS] query [SEP] passage [SEP] of each pair, as the tokeniser makes them, with its token types."""
    rows, kinds = [], []
    for q, p in zip(query_rows, passage_rows, strict=True):
        query, passage = np.concatenate([queries.row(q), passages.between]), passages.row(p)[1:]
        rows.append(np.concatenate([query, passage]))
        kinds.append(np.repeat([0, passages.kind], [len(query), len(passage)]))
    return pad(rows, passages.pad, kinds)

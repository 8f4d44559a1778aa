"""Which queries, positives and negatives a step sees: a pure function of (seed, step).

No passage of a batch is relevant to a query of the batch except as its positive, so in-batch
negatives are never false.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from leadkit import processes
from leadkit.data.collections import Collection
from leadkit.data.tokens import Tokenised, pair
from leadkit.models.batch import Batch


@dataclass(frozen=True)
class Group:
    """One query, its relevant passages and the pool of its negatives, as rows of the collection."""

    query: int
    relevant: tuple[int, ...]
    negatives: tuple[int, ...] = ()  # empty: any passage of the collection


def groups(
    collection: Collection, split: str, negatives: Mapping[str, list[str]] | None = None
) -> list[Group]:
    """The queries of a split that have a relevant passage (grade >= 1).

    negatives: query id -> ids of mined passages; relevant ones among them are left out.
    """
    row = collection.passage_row
    groups = []
    for i, qid in enumerate(collection.split(split)):
        grades = collection.qrels[split][qid]
        relevant = {row[pid] for pid, grade in grades.items() if grade > 0}
        mined = [row[pid] for pid in (negatives or {}).get(qid, ())]
        pool = tuple(passage for passage in mined if passage not in relevant)
        if relevant:
            groups.append(Group(i, tuple(sorted(relevant)), pool))
    return groups


class Sampler:
    """Step -> the queries and passages of its batch. Queries are shuffled anew each epoch."""

    def __init__(self, groups: list[Group], passages: int, batch: int, per_query: int, seed: int):
        if batch > len(groups):
            raise ValueError(
                f"batch {batch} is larger than the {len(groups)} training queries; use at most "
                f"{len(groups)}"
            )
        if passages <= batch * per_query:
            raise ValueError(
                f"batch {batch} of {per_query} passages needs more than {batch * per_query} "
                f"passages, not {passages}"
            )
        self.groups = groups
        self.passages = passages
        self.batch = batch
        self.per_query = per_query
        self.seed = seed
        self.steps = len(groups) // batch  # per epoch
        self._epoch = -1
        self._plan: list[list[Group]] = []

    def _order(self, epoch: int) -> list[list[Group]]:
        """The batches of an epoch.

        A query that shares a relevant passage with a batch waits for the next one.
        """
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.groups))
        waiting = [self.groups[i] for i in reversed(order)]
        plan: list[list[Group]] = []
        while len(plan) < self.steps:
            batch: list[Group] = []
            taken: set[int] = set()
            later: list[Group] = []
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
        epoch, index = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._order(epoch)
        batch = self._plan[index]
        relevant = {passage for group in batch for passage in group.relevant}
        if self.passages - len(relevant) < self.per_query - 1:
            raise ValueError(
                f"batch {self.batch}: {len(relevant)} of the {self.passages} passages are relevant "
                f"to a query of step {step}, which leaves too few for {self.per_query - 1} "
                "negatives; use a smaller batch"
            )
        random = np.random.default_rng((self.seed, step, 1))
        passages = np.empty((len(batch), self.per_query), np.int64)  # (B, n)
        for b, group in enumerate(batch):
            negatives = self._negatives(group, relevant, random)
            passages[b] = [random.choice(group.relevant), *negatives]
        return np.array([group.query for group in batch]), passages

    def _negatives(
        self, group: Group, relevant: set[int], random: np.random.Generator
    ) -> list[int]:
        """n - 1 passages that are relevant to no query of the batch, mined ones first."""
        wanted = self.per_query - 1
        pool = [passage for passage in group.negatives if passage not in relevant]
        drawn: list[int] = []
        if pool:
            drawn = list(random.choice(pool, min(wanted, len(pool)), replace=False))
        while len(drawn) < wanted:
            passage = int(random.integers(self.passages))
            if passage not in relevant and passage not in drawn:
                drawn.append(passage)
        return drawn


class Batches:
    """Step -> `Batch` in the tokens of one tokeniser; with several processes, this one's share."""

    def __init__(
        self,
        sampler: Sampler,
        queries: Tokenised,
        passages: Tokenised,
        own: bool = False,
        pairs: bool = False,
    ):
        self.sampler = sampler
        self.queries = queries
        self.passages = passages
        self.own = own
        self.pairs = pairs
        self.share = processes.share(sampler.batch, "batch")

    def __call__(self, step: int) -> Batch:
        queries, passages = self.sampler(step)
        B, n = passages.shape
        share = self.share
        columns = torch.zeros(B, dtype=torch.long) if self.own else torch.arange(B) * n  # (B,)
        pairs = None
        if self.pairs:
            rows = np.repeat(queries[share], n), passages[share].ravel()
            pairs = pair(self.queries, self.passages, *rows)
        return Batch(
            queries=self.queries.part(queries, share),
            passages=self.passages.part(passages.ravel(), slice(share.start * n, share.stop * n)),
            positive=columns[share],
            own=self.own,
            pairs=pairs,
        )

"""Which queries, positives and negatives a step sees: a pure function of (seed, step).

No passage of a batch is relevant to a query of the batch except as its positive, so in-batch
negatives are never false.
"""

from collections import Counter
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
    own: int = -1  # the passage that is the query itself; it is never a candidate


def groups(
    collection: Collection, split: str, negatives: Mapping[str, list[str]] | None = None
) -> list[Group]:
    """The queries of a split that have a relevant passage (grade >= 1).

    negatives: query id -> ids of mined passages; relevant ones among them are left out.
    """
    row = collection.passage_row
    own = collection.own_rows(split).tolist()
    groups = []
    for i, qid in enumerate(collection.split(split)):
        grades = collection.qrels[split][qid]
        relevant = {row[pid] for pid, grade in grades.items() if grade > 0 and pid in row}
        mined = [row[pid] for pid in (negatives or {}).get(qid, ())]
        pool = tuple(passage for passage in mined if passage not in {*relevant, own[i]})
        if relevant:
            groups.append(Group(i, tuple(sorted(relevant)), pool, own[i]))
    return groups


class Sampler:
    """Step -> the queries and passages of its batch. Queries are shuffled anew each epoch.

    batch: queries of a batch. Where fewer queries can stand in one batch, the attribute `batch` is
    that number, and this is said.
    """

    def __init__(self, groups: list[Group], passages: int, batch: int, per_query: int, seed: int):
        batch = _true_batch(groups, batch)
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
        self.tops_up = processes.count() > 1 or self._is_crowded()
        self._epoch = -1
        self._plan: list[list[Group]] = []

    def _is_crowded(self) -> bool:
        """Whether so many queries share a passage that an epoch's batches cannot all be full."""
        asked = Counter(passage for group in self.groups for passage in group.relevant)
        shared = Counter(max(group.relevant, key=asked.__getitem__) for group in self.groups)
        places = sum(min(count, self.steps) for count in shared.values())
        return places < self.steps * self.batch

    def _order(self, epoch: int) -> list[list[Group]]:
        """The batches of an epoch.

        A query that shares a relevant passage with a batch waits for the next one. A batch that
        cannot be filled so takes other queries a second time, if `tops_up`.
        """
        waiting = self._shuffled(epoch)
        plan: list[list[Group]] = []
        while len(plan) < self.steps:
            batch: list[Group] = []
            _fill(batch, waiting, self.batch)
            if self.tops_up and len(batch) < self.batch:
                _fill(batch, self._shuffled(epoch, len(plan), 2), self.batch)
            plan.append(batch)
        return plan

    def _shuffled(self, *numbers: int) -> list[Group]:
        order = np.random.default_rng((self.seed, *numbers)).permutation(len(self.groups))
        return [self.groups[i] for i in reversed(order)]

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the B queries (B,) and of their passages (B, n), the positive in column 0."""
        epoch, index = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._order(epoch)
        batch = self._plan[index]
        relevant = {passage for group in batch for passage in (*group.relevant, group.own)} - {-1}
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


def _fill(batch: list[Group], waiting: list[Group], size: int) -> None:
    """Move groups from the end of `waiting` to a batch, up to `size`; the others wait on.

    No passage of a batch may be relevant to two of its queries, or be one and relevant to another.
    """
    taken = {passage for group in batch for passage in group.relevant}
    own = {group.own for group in batch}
    later: list[Group] = []
    while len(batch) < size and waiting:
        group = waiting.pop()
        apart = taken.isdisjoint(group.relevant) and own.isdisjoint(group.relevant)
        if apart and group.own not in taken:
            batch.append(group)
            taken.update(group.relevant)
            own.add(group.own)
        else:
            later.append(group)
    waiting += reversed(later)


def _true_batch(groups: list[Group], batch: int) -> int:
    """The queries that can stand in one batch, at most `batch`; says where they are fewer.

    Several processes share a batch, so then it is a multiple of their number.
    """
    together: list[Group] = []
    _fill(together, groups[::-1], batch)
    if len(together) == batch:
        return batch
    true = len(together) - len(together) % processes.count()
    why = f"of the {len(groups)} training queries no more can stand in one batch"
    if len(together) < len(groups):
        why += ", because others share their relevant passages"
    if not true:
        raise ValueError(f"batch is {batch}, with {processes.count()} processes: {why}")
    processes.tell(f"batch {batch} is lowered to {true}: {why}")
    return true


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
        processes.share(sampler.batch, "batch")  # says that they do not divide it

    def __call__(self, step: int) -> Batch:
        queries, passages = self.sampler(step)
        B, n = passages.shape
        share = processes.share(B, "batch")
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

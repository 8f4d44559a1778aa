"""Encode, search exactly, re-rank, BM25, mine hard negatives. A `Run` is the ranking of every query.

Of several processes each encodes, searches and scores its share; all have the whole result.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bm25s
import numpy as np
import Stemmer
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from leadkit import processes, scores
from leadkit.data.sampling import Group, Tokenised, Tokens, pair, separators
from leadkit.data.collections import Collection
from leadkit.files import write
from leadkit.models.retrievers import ColBERT, CrossEncoder, DualEncoder, Retriever

# Of encoding, padding included: what fits a core's cache; on a GPU what keeps it at work (not measured).
TOKENS_PER_BATCH = 2**16 if torch.cuda.is_available() else 2**12
FEW = 500  # texts or pairs up to which no progress is shown


@dataclass(frozen=True)
class Run:
    """rows (Q, depth): passage rows, best first, -1 where a query has fewer; scores (Q, depth), falling."""

    rows: np.ndarray
    scores: np.ndarray

    def write_trec(
        self, path: Path, query_ids: list[str], passage_ids: list[str], tag: str
    ) -> None:
        """The run in TREC format: query-id Q0 passage-id rank score tag."""

        def lines() -> Iterator[str]:
            for qid, rows, values in zip(query_ids, self.rows, self.scores, strict=True):
                for rank, (row, score) in enumerate(zip(rows, values, strict=True), start=1):
                    if row >= 0:
                        yield f"{qid} Q0 {passage_ids[row]} {rank} {score:.6f} {tag}\n"

        def save(temporary: Path) -> None:
            with open(temporary, "w", encoding="utf-8") as out:
                out.writelines(lines())

        write(path, save)


def by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Rows in batches of similar length, so that little of a batch is padding; the longest come first."""
    order, batches, first = np.argsort(-lengths, kind="stable"), [], 0
    while first < len(order):
        size = max(1, TOKENS_PER_BATCH // int(lengths[order[first]]))
        batches.append(order[first : first + size])
        first += size
    return batches


def _own(batches: list[np.ndarray]) -> list[np.ndarray]:
    """Of several processes, this one's batches; together they have all."""
    return batches[processes.number() :: processes.count()]


def _bar(total: int, label: str, unit: str) -> tqdm:
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        leave=False,
        disable=total <= FEW or not processes.main(),
    )


@torch.inference_mode()
def _encode(
    retriever: Retriever,
    texts: Tokenised,
    batches: list[np.ndarray],
    label: str,
    keep: Callable[[Tokens, np.ndarray], None],
) -> None:
    device = retriever.encoder.device
    with _bar(sum(map(len, batches)), label, "text") as bar:
        for rows in batches:
            keep(texts.rows(rows).to(device), rows)
            bar.update(len(rows))


def encode_share(
    retriever: DualEncoder, texts: Tokenised, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (P,), rising, and vectors (P, H) float32 of the texts that are this process's share: of one process, all."""
    batches = _own(by_length(texts.lengths))
    rows = np.sort(np.concatenate([np.empty(0, np.int64), *batches]))
    vectors = np.empty((len(rows), retriever.width), np.float32)

    def keep(tokens: Tokens, at: np.ndarray) -> None:
        vectors[np.searchsorted(rows, at)] = retriever.encode(tokens).float().cpu().numpy()

    _encode(retriever, texts, batches, label, keep)
    return rows, vectors


def encode(retriever: DualEncoder, texts: Tokenised, label: str = "encoding") -> np.ndarray:
    """(P, H) float32: the vector of every text."""
    rows, own = encode_share(retriever, texts, label)
    vectors = np.zeros((len(texts), retriever.width), np.float32)
    vectors[rows] = own
    return processes.total(vectors)


def retrieve(retriever: DualEncoder, queries: Tokenised, passages: Tokenised, depth: int) -> Run:
    """Encode and search: the top `depth` passages of each query."""
    vectors = encode(retriever, queries, "encoding queries")
    rows, own = encode_share(retriever, passages, "encoding passages")
    found = search(vectors, own, depth)
    if processes.count() == 1:
        return found
    run = Run(
        processes.side_by_side(rows[found.rows]), processes.side_by_side(found.scores)
    )  # (Q, W * depth)
    best = np.lexsort((run.rows, -run.scores))[:, :depth]  # of equals, the lower row first
    return Run(np.take_along_axis(run.rows, best, 1), np.take_along_axis(run.scores, best, 1))


def search(queries: np.ndarray, passages: np.ndarray, depth: int) -> Run:
    """Exact inner-product search: queries (Q, H), passages (P, H) -> the top `depth` of each query.

    faiss IndexFlatIP, on all GPUs where there are any; on a GPU without faiss-gpu, a matrix product in torch.
    """
    import faiss  # after torch: see pyproject.toml

    depth = min(depth, len(passages))
    if not depth:  # more processes than batches of passages
        return Run(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
    if torch.cuda.is_available() and not getattr(faiss, "get_num_gpus", lambda: 0)():
        return torch_search(queries, passages, depth, torch.device("cuda"))
    index = faiss.IndexFlatIP(passages.shape[1])
    if getattr(faiss, "get_num_gpus", lambda: 0)():
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(passages)
    values, rows = index.search(queries, depth)
    return Run(rows, values)


def torch_search(
    queries: np.ndarray, passages: np.ndarray, depth: int, device: torch.device
) -> Run:
    """The same search as a matrix product and a top-k, 1,024 queries at a time."""
    table, found = torch.from_numpy(passages).to(device), []
    for chunk in torch.from_numpy(queries).to(device).split(1024):
        found.append((chunk @ table.T).topk(depth))
    return Run(
        torch.cat([f.indices for f in found]).cpu().numpy(),
        torch.cat([f.values for f in found]).cpu().numpy(),
    )


def sort(rows: np.ndarray, values: np.ndarray) -> Run:
    """Candidates (Q, k) in falling order of their scores; ties keep the order they came in."""
    order = np.argsort(-values, axis=1, kind="stable")
    return Run(np.take_along_axis(rows, order, 1), np.take_along_axis(values, order, 1))


def rerank(
    retriever: Retriever,
    queries: Tokenised,
    passages: Tokenised,
    first: Run,
    depth: int,
    label: str = "re-ranking",
) -> Run:
    """Re-rank the top `depth` of a run by the retriever's final scores; what stood below stays below, in its order."""
    rows = first.rows[:, :depth]
    if isinstance(retriever, CrossEncoder):
        values = _score_pairs(retriever, queries, passages, rows, label)
    elif isinstance(retriever, ColBERT):
        values = _score_tokens(retriever, queries, passages, rows, label)
    else:
        needed, at = np.unique(rows, return_inverse=True)
        q, p = encode(retriever, queries, label), encode(retriever, passages.take(needed), label)
        values = np.einsum("qh,qkh->qk", q, p[at.reshape(rows.shape)])
    top = sort(rows, values)
    below = np.broadcast_to(top.scores[:, -1:] - 1, first.rows[:, depth:].shape)
    return Run(
        np.concatenate([top.rows, first.rows[:, depth:]], 1), np.concatenate([top.scores, below], 1)
    )


@torch.inference_mode()
def _score_pairs(
    retriever: CrossEncoder, queries: Tokenised, passages: Tokenised, rows: np.ndarray, label: str
) -> np.ndarray:
    """(Q, k): the score of each query with each of its candidates."""
    Q, k = rows.shape
    q, p = np.repeat(np.arange(Q), k), rows.ravel()
    batches = _own(by_length(queries.lengths[q] + passages.lengths[p]))
    values, device = np.zeros(Q * k, np.float32), retriever.encoder.device
    with _bar(sum(map(len, batches)), label, "pair") as bar:
        for at in batches:
            tokens = pair(queries, passages, q[at], p[at]).to(device)
            values[at] = retriever.score(tokens, (retriever.layers,))[0].float().cpu().numpy()
            bar.update(len(at))
    return processes.total(values).reshape(Q, k)


@torch.inference_mode()
def _score_tokens(
    retriever: ColBERT, queries: Tokenised, passages: Tokenised, rows: np.ndarray, label: str
) -> np.ndarray:
    """(Q, k): MaxSim of each query with each of its candidates; passages are encoded once and kept in float16."""
    last, device = (retriever.layers,), retriever.encoder.device
    batches = _own(np.array_split(np.arange(len(rows)), max(1, len(rows) // 32)))
    own = np.concatenate([np.empty(0, np.int64), *batches])
    needed = np.unique(rows[own])
    position = np.searchsorted(needed, rows)  # of the process's own queries
    table: list[Tensor] = [torch.empty(0)] * len(needed)
    chosen = passages.take(needed)

    def keep(tokens: Tokens, at: np.ndarray) -> None:
        states = retriever.token_states(tokens, last)[0].half()  # (P, Y, H)
        for i, state, length in zip(at, states, tokens.mask.sum(1).tolist(), strict=True):
            table[i] = state[:length].clone()

    _encode(retriever, chosen, by_length(chosen.lengths), f"{label}: encoding", keep)
    values = np.zeros(rows.shape, np.float32)
    for at in tqdm(
        batches,
        desc=label,
        unit="batch",
        leave=False,
        disable=rows.size <= FEW or not processes.main(),
    ):
        tokens = queries.rows(at).to(device)
        states = retriever.token_states(tokens, last)[0]  # (B, X, H)
        for i, state, mask in zip(at, states, tokens.mask, strict=True):
            candidates = torch.nn.utils.rnn.pad_sequence(
                [table[j] for j in position[i]], batch_first=True
            ).float()  # (k, Y, H)
            lengths = torch.tensor([len(table[j]) for j in position[i]], device=device)
            p_mask = torch.arange(candidates.shape[1], device=device) < lengths[:, None]  # (k, Y)
            q_mask = None if retriever.tower.released else mask[None]
            values[i] = (
                scores.maxsim(state[None, None], candidates[None], p_mask, q_mask)[0, 0]
                .float()
                .cpu()
                .numpy()
            )
    return processes.total(values)


def typed(text: str, tokenizer: PreTrainedTokenizerBase, longest: int) -> Tokenised:
    """One text that stands in no collection, as `tokenise` would have it; kept nowhere."""
    ids = np.array(tokenizer(text, truncation=True, max_length=longest)["input_ids"], np.int32)
    return Tokenised(ids, np.array([0, len(ids)]), tokenizer.pad_token_id, *separators(tokenizer))


@torch.inference_mode()
def token_products(retriever: ColBERT, query: Tokens, passage: Tokens) -> np.ndarray:
    """(X, Y): the final states of one query's tokens times those of one passage; MaxSim adds up the rows' maxima.

    Times `scale`, as the final score is.
    """
    device, last = retriever.encoder.device, (retriever.layers,)
    q, p = (
        retriever.token_states(tokens.to(device), last)[0][0] for tokens in (query, passage)
    )  # (X, H), (Y, H)
    return (q @ p.T * retriever.tower.scale).cpu().numpy()


class BM25:
    """BM25 (Lucene's variant, k1 = 0.9, b = 0.4) over stemmed words without English stop words."""

    def __init__(self, passages: Iterable[str]):
        self.words = {
            "stopwords": "en",
            "stemmer": Stemmer.Stemmer("english"),
            "show_progress": False,
        }
        self.index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        self.index.index(bm25s.tokenize(passages, **self.words), show_progress=False)

    def search(self, queries: list[str], depth: int) -> Run:
        """The top `depth` passages of each query; those without a word of it have score 0."""
        depth = min(depth, self.index.scores["num_docs"])
        rows, values = self.index.retrieve(
            bm25s.tokenize(queries, **self.words), k=depth, show_progress=False
        )
        return Run(rows.astype(np.int64), values)


def bm25(collection: Collection, split: str, depth: int) -> Run:
    """What `BM25` finds for the queries of a split."""
    return BM25(collection.passages.values()).search(list(collection.split(split).values()), depth)


def reciprocal_rank_fusion(runs: list[Run], depth: int, k: float) -> Run:
    """Merge runs of the same queries (Cormack et al., 2009); of equals, the one met first, run by run, comes first."""
    rows, scores = (
        np.full((len(runs[0].rows), depth), -1, np.int64),
        np.zeros((len(runs[0].rows), depth), np.float32),
    )
    for q in range(len(rows)):
        gained: dict[int, float] = defaultdict(float)
        for run in runs:
            for rank, row in enumerate(run.rows[q].tolist(), start=1):
                if row >= 0:
                    # RRF(p) = \sum_r \frac{1}{k + rank_r(p)}
                    gained[row] += 1 / (k + rank)
        best = sorted(gained, key=gained.__getitem__, reverse=True)[:depth]
        rows[q, : len(best)], scores[q, : len(best)] = best, [gained[row] for row in best]
    return Run(rows, scores)


def hard_negatives(run: Run, groups: list[Group], depth: int) -> list[Group]:
    """The groups with, as negatives, the `depth` best passages of their query that are not relevant."""
    mined = []
    for group in groups:
        rows = [int(row) for row in run.rows[group.query] if row >= 0 and row not in group.relevant]
        mined.append(Group(group.query, group.relevant, tuple(rows[:depth])))
    return mined

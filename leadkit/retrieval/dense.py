"""Dense retrieval: encode every text, then search exactly.

With several processes each encodes, searches and scores its share; all have the whole result.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from leadkit import processes
from leadkit.data.tokens import Tokenised
from leadkit.models.batch import Tokens
from leadkit.models.retriever import Retriever
from leadkit.retrieval.runs import Run, without

# Tokens of one encoding batch, padding included: what fits a core's cache; on a GPU what keeps it
# at work (not measured).
TOKENS_PER_BATCH = 2**16 if torch.cuda.is_available() else 2**12
FEW = 500  # texts or pairs up to which no progress is shown


def by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Rows in batches of similar length, so that little of a batch is padding; longest first."""
    order = np.argsort(-lengths, kind="stable")
    batches = []
    first = 0
    while first < len(order):
        size = max(1, TOKENS_PER_BATCH // int(lengths[order[first]]))
        batches.append(order[first : first + size])
        first += size
    return batches


def share_of(batches: list[np.ndarray]) -> list[np.ndarray]:
    """This process's batches; all processes together have all."""
    return batches[processes.number() :: processes.count()]


def progress(total: int, label: str, unit: str) -> tqdm:
    hidden = total <= FEW or not processes.main()
    return tqdm(total=total, desc=label, unit=unit, leave=False, disable=hidden)


@torch.inference_mode()
def for_each_batch(
    retriever: Retriever,
    texts: Tokenised,
    batches: list[np.ndarray],
    label: str,
    keep: Callable[[Tokens, np.ndarray], None],
) -> None:
    """Call keep(tokens of the rows, rows) for each batch of rows, without gradients."""
    with progress(sum(map(len, batches)), label, "text") as bar:
        for rows in batches:
            keep(texts.rows(rows).to(retriever.encoder.device), rows)
            bar.update(len(rows))


def encode_share(
    retriever: Retriever, texts: Tokenised, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (P,), rising, and vectors (P, H) float32 of this process's share of the texts."""
    batches = share_of(by_length(texts.lengths))
    rows = np.sort(np.concatenate([np.empty(0, np.int64), *batches]))
    vectors = np.empty((len(rows), retriever.width), np.float32)

    def keep(tokens: Tokens, batch: np.ndarray) -> None:
        vectors[np.searchsorted(rows, batch)] = retriever.encode(tokens).float().cpu().numpy()

    for_each_batch(retriever, texts, batches, label, keep)
    return rows, vectors


def encode(retriever: Retriever, texts: Tokenised, label: str = "encoding") -> np.ndarray:
    """(P, H) float32: the vector of every text."""
    rows, share = encode_share(retriever, texts, label)
    vectors = np.zeros((len(texts), retriever.width), np.float32)
    vectors[rows] = share
    return processes.total(vectors)


def retrieve(
    retriever: Retriever,
    queries: Tokenised,
    passages: Tokenised,
    depth: int,
    own: np.ndarray | None = None,
) -> Run:
    """Encode and search: the top `depth` passages of each query.

    own: (Q,), the passage that is the query itself and no candidate, -1 where there is none.
    """
    if own is not None and (own >= 0).any():
        return without(retrieve(retriever, queries, passages, depth + 1), own)
    vectors = encode(retriever, queries, "encoding queries")
    rows, share = encode_share(retriever, passages, "encoding passages")
    part = search(vectors, share, depth)
    if processes.count() == 1:
        return part
    every_row = processes.side_by_side(rows[part.rows])  # (Q, W * depth)
    every_score = processes.side_by_side(part.scores)
    best = np.lexsort((every_row, -every_score))[:, :depth]  # of equals, the lower row first
    return Run(np.take_along_axis(every_row, best, 1), np.take_along_axis(every_score, best, 1))


def search(queries: np.ndarray, passages: np.ndarray, depth: int) -> Run:
    """Exact inner-product search: queries (Q, H), passages (P, H) -> the top `depth` of each query.

    faiss IndexFlatIP, on all GPUs where there are any; on a GPU without faiss-gpu, and where there
    is no faiss (macOS: it would bring a second OpenMP), a matrix product in torch.
    """
    depth = min(depth, len(passages))
    if not depth:  # more processes than batches of passages
        return Run(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
    try:
        import faiss  # after torch: see pyproject.toml
    except ImportError:
        return torch_search(queries, passages, depth, processes.device())
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    if torch.cuda.is_available() and not gpus:
        return torch_search(queries, passages, depth, torch.device("cuda"))
    index: Any = faiss.IndexFlatIP(passages.shape[1])
    if gpus:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(passages)
    scores, rows = index.search(queries, depth)
    return Run(rows, scores)


def torch_search(
    queries: np.ndarray, passages: np.ndarray, depth: int, device: torch.device
) -> Run:
    """The same search as a matrix product and a top-k, 1,024 queries at a time."""
    table = torch.from_numpy(passages).to(device)  # (P, H)
    chunks = torch.from_numpy(queries).to(device).split(1024)
    best = [(chunk @ table.T).topk(depth) for chunk in chunks]  # (1024, depth) each
    rows = torch.cat([top.indices for top in best]).cpu().numpy()  # (Q, depth)
    return Run(rows, torch.cat([top.values for top in best]).cpu().numpy())

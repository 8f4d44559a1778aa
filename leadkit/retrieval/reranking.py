"""Re-ranking: the top of a run, ordered anew by a retriever's final scores."""

from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from leadkit import processes
from leadkit.data.tokens import Tokenised, pair
from leadkit.models.batch import Tokens
from leadkit.models.retriever import Retriever, TwoTowers
from leadkit.retrieval.dense import FEW, by_length, for_each_batch, progress, share_of
from leadkit.retrieval.runs import Run, ranked


def rerank(
    retriever: Retriever,
    queries: Tokenised,
    passages: Tokenised,
    first: Run,
    depth: int,
    label: str = "re-ranking",
) -> Run:
    """Re-rank the top `depth` of a run; what stood below stays below, in its order.

    ValueError for a retriever that searches: its own search measures it.
    """
    if retriever.searches:
        raise ValueError(
            f"a {retriever.architecture} searches the collection, so it must not re-rank"
        )
    rows = first.rows[:, :depth]
    if retriever.pairs_only:
        scores = _score_pairs(retriever, queries, passages, rows, label)
    else:
        scores = _score_apart(cast(TwoTowers, retriever), queries, passages, rows, label)
    top = ranked(rows, scores)
    rest = first.rows[:, depth:]
    below = np.broadcast_to(top.scores[:, -1:] - 1, rest.shape)
    return Run(np.concatenate([top.rows, rest], 1), np.concatenate([top.scores, below], 1))


@torch.inference_mode()
def _score_pairs(
    retriever: Retriever, queries: Tokenised, passages: Tokenised, rows: np.ndarray, label: str
) -> np.ndarray:
    """(Q, k): the score of each query with each of its candidates, as one text."""
    Q, k = rows.shape
    q = np.repeat(np.arange(Q), k)  # (Q * k,)
    p = rows.ravel()  # (Q * k,)
    batches = share_of(by_length(queries.lengths[q] + passages.lengths[p]))
    scores = np.zeros(Q * k, np.float32)
    with progress(sum(map(len, batches)), label, "pair") as bar:
        for batch in batches:
            tokens = pair(queries, passages, q[batch], p[batch]).to(retriever.encoder.device)
            final = retriever.score(tokens, (retriever.layers,))[0]  # (pairs of the batch,)
            scores[batch] = final.float().cpu().numpy()
            bar.update(len(batch))
    return processes.total(scores).reshape(Q, k)


@torch.inference_mode()
def _score_apart(
    retriever: TwoTowers, queries: Tokenised, passages: Tokenised, rows: np.ndarray, label: str
) -> np.ndarray:
    """(Q, k): the score of each query with each of its candidates; a passage is encoded once."""
    device = retriever.encoder.device
    batches = share_of(np.array_split(np.arange(len(rows)), max(1, len(rows) // 32)))
    own_queries = np.concatenate([np.empty(0, np.int64), *batches])
    needed = np.unique(rows[own_queries])
    position = np.searchsorted(needed, rows)  # of the process's own queries
    chosen = passages.take(needed)
    table: list[Tensor] = [torch.empty(0)] * len(needed)

    def keep(tokens: Tokens, batch: np.ndarray) -> None:
        for i, states in zip(batch, retriever.represent(tokens), strict=True):
            table[i] = states

    for_each_batch(retriever, chosen, by_length(chosen.lengths), f"{label}: encoding", keep)
    scores = np.zeros(rows.shape, np.float32)
    hidden = rows.size <= FEW or not processes.main()
    for batch in tqdm(batches, desc=label, unit="batch", leave=False, disable=hidden):
        tokens = queries.rows(batch).to(device)
        last = retriever.token_states(tokens, (retriever.layers,))[0]  # (B, X, H)
        compared = retriever.compared(retriever.final_states(last), tokens.mask)
        for i, query, q_mask in zip(batch, compared, tokens.mask, strict=True):
            states = [table[j] for j in position[i]]
            lengths = torch.tensor([len(state) for state in states], device=device)
            candidates = pad_sequence(states, batch_first=True).float()  # (k, Y, H)
            p_mask = torch.arange(candidates.shape[1], device=device) < lengths[:, None]  # (k, Y)
            final = retriever.compare(query[None], candidates, q_mask[None], p_mask)[0]  # (k,)
            scores[i] = final.float().cpu().numpy()
    return processes.total(scores)

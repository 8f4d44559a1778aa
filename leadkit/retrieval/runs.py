"""Runs: the ranking of every query."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leadkit.files import write


@dataclass(frozen=True)
class Run:
    """rows (Q, depth): passage rows, best first, -1 where a query has fewer; scores (Q, depth)."""

    rows: np.ndarray
    scores: np.ndarray

    def write_trec(
        self, path: Path, query_ids: list[str], passage_ids: list[str], tag: str
    ) -> None:
        """The run in TREC format: query-id Q0 passage-id rank score tag.

        A blank in an id is written as %20, since blanks divide the columns. Equal scores are
        written a little apart, in the run's order: evaluation tools break ties in different ways.
        """

        def written(key: str) -> str:
            return key.replace(" ", "%20")

        def lines() -> Iterator[str]:
            for qid, rows, scores in zip(query_ids, self.rows, self.scores, strict=True):
                ranking = enumerate(zip(rows, scores, strict=True), start=1)
                above = np.float32(np.inf)
                for rank, (row, score) in ranking:
                    if row >= 0:
                        above = min(np.float32(score), np.nextafter(above, -np.float32(np.inf)))
                        text = np.format_float_positional(above, min_digits=6)
                        ids = f"{written(qid)} Q0 {written(passage_ids[row])}"
                        yield f"{ids} {rank} {text} {tag}\n"

        def save(temporary: Path) -> None:
            with open(temporary, "w", encoding="utf-8") as out:
                out.writelines(lines())

        write(path, save)


def without(run: Run, own: np.ndarray) -> Run:
    """The run less its last column, without the passage own[q] of query q; own (Q,): -1 for none.

    A query whose own passage is not in the run loses its last passage instead.
    """
    is_own = run.rows == own[:, None]  # (Q, depth)
    is_own[:, -1] |= ~is_own.any(1)
    shape = (len(run.rows), run.rows.shape[1] - 1)
    return Run(run.rows[~is_own].reshape(shape), run.scores[~is_own].reshape(shape))


def ranked(rows: np.ndarray, scores: np.ndarray) -> Run:
    """Candidates (Q, k) in falling order of their scores; ties keep the order they came in."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return Run(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def reciprocal_rank_fusion(runs: list[Run], depth: int, k: float) -> Run:
    """Merge runs of the same queries (Cormack et al., 2009).

    Of passages with equal scores, the one met first, run by run, comes first.
    """
    queries = len(runs[0].rows)
    rows = np.full((queries, depth), -1, np.int64)
    scores = np.zeros((queries, depth), np.float32)
    for q in range(queries):
        gained: dict[int, float] = defaultdict(float)
        for run in runs:
            for rank, row in enumerate(run.rows[q].tolist(), start=1):
                if row >= 0:
                    # RRF(p) = \sum_r \frac{1}{k + rank_r(p)}
                    gained[row] += 1 / (k + rank)
        best = sorted(gained, key=gained.__getitem__, reverse=True)[:depth]
        rows[q, : len(best)] = best
        scores[q, : len(best)] = [gained[row] for row in best]
    return Run(rows, scores)

"""Measures of a run, by ir_measures (section 4.2.1)."""

from collections import defaultdict

import ir_measures
import numpy as np

from leadkit.data.collections import Collection
from leadkit.retrieval.runs import Run

# The names are ir_measures' own: RR is the paper's MRR, AP its MAP, R its recall.
MEASURES = ("RR@10", "AP@1000", "nDCG@10", "R@100", "R@1000")
# What the papers report beside them: LEAD for documents (section 4.2.1), PROD for Natural Questions
# (its Table 2).
MORE = {
    "irds:msmarco-document": ("AP@100",),
    "irds:dpr-w100/natural-questions": ("R@5", "R@20"),
    "irds:beir/nq": ("R@5", "R@20"),
}


def measure(name: str, relevant: int) -> ir_measures.Measure:
    """A measure by its name.

    relevant: a binary measure counts passages from this grade on; nDCG uses the grades themselves.
    """
    parsed = ir_measures.parse_measure(name)
    return parsed(rel=relevant) if "rel" in parsed.SUPPORTED_PARAMS else parsed


def per_query(
    run: Run, collection: Collection, split: str, measures: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """Measure -> its value for each query of the split, in the split's order.

    measures: those of every collection and what the papers report for this one, unless given.

    A query without results counts 0. Ties are broken here (the run's order is the ranking), because
    evaluation tools differ in how they break them.
    """
    measures = measures or MEASURES + MORE.get(collection.name, ())
    queries = list(collection.split(split))
    relevant = collection.relevant.get(split, 1)
    parsed = {measure(name, relevant): name for name in measures}
    by_cutoff = defaultdict(list)
    for metric in parsed:
        by_cutoff[metric.params.get("cutoff")].append(metric)
    values = {name: dict.fromkeys(queries, 0.0) for name in measures}
    for cutoff, metrics in by_cutoff.items():  # no measure is given what it would not look at
        ranking = _ranking(run, queries, collection.passage_ids, cutoff)
        for found in ir_measures.iter_calc(metrics, collection.qrels[split], ranking):
            values[parsed[found.measure]][found.query_id] = found.value
    return {name: np.array(list(by_query.values())) for name, by_query in values.items()}


def _ranking(run: Run, queries: list[str], ids, cutoff: int | None) -> dict[str, dict[str, float]]:
    """Query id -> passage id -> minus its rank, down to the cutoff."""
    ranking = {}
    for qid, rows in zip(queries, run.rows, strict=True):
        best = enumerate(rows[:cutoff])
        ranking[qid] = {ids[row]: float(-rank) for rank, row in best if row >= 0}
    return ranking

"""Measures by ir_measures, significance by a paired t-test over queries (section 4.2.1)."""

from collections import defaultdict

import ir_measures
import numpy as np
from scipy.stats import ttest_rel

from leadkit.data.collections import Collection
from leadkit.retrieval.dense import Run

# The names are ir_measures' own: RR is the paper's MRR, AP its MAP, R its recall.
MEASURES = ("RR@10", "AP@1000", "nDCG@10", "R@100", "R@1000")
# What the papers report beside them: LEAD for documents (section 4.2.1), PROD for Natural Questions (table 2).
MORE = {
    "irds:msmarco-document": ("AP@100",),
    "irds:dpr-w100/natural-questions": ("R@5", "R@20"),
    "irds:beir/nq": ("R@5", "R@20"),
}


def measure(name: str, relevant: int) -> ir_measures.Measure:
    """A measure by its name; a binary one counts passages from grade `relevant` on, nDCG the grades themselves."""
    parsed = ir_measures.parse_measure(name)
    return parsed(rel=relevant) if "rel" in parsed.SUPPORTED_PARAMS else parsed


def per_query(
    run: Run, collection: Collection, split: str, measures: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """Measure -> its value for each query of the split, in the split's order; a query without results counts 0.

    measures: those of every collection and what the papers report for this one, unless given.
    Ties are broken here (the run's order is the ranking), because evaluation tools differ in how they break them.
    """
    measures = measures or MEASURES + MORE.get(collection.name, ())
    ids, queries, relevant = (
        collection.passage_ids,
        list(collection.split(split)),
        collection.relevant.get(split, 1),
    )
    parsed, by_cutoff = {measure(name, relevant): name for name in measures}, defaultdict(list)
    for metric in parsed:
        by_cutoff[metric.params.get("cutoff")].append(metric)
    values = {name: dict.fromkeys(queries, 0.0) for name in measures}
    for cutoff, some in by_cutoff.items():  # no measure is given what it would not look at
        ranking = {
            qid: {ids[row]: float(-rank) for rank, row in enumerate(rows[:cutoff]) if row >= 0}
            for qid, rows in zip(queries, run.rows, strict=True)
        }
        for metric in ir_measures.iter_calc(some, collection.qrels[split], ranking):
            values[parsed[metric.measure]][metric.query_id] = metric.value
    return {name: np.array(list(by_query.values())) for name, by_query in values.items()}


def paired_t_test(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(mean difference a - b, two-sided p) over the same queries; p is 1 where the two never differ."""
    if np.array_equal(a, b):
        return 0.0, 1.0
    return float(np.mean(a - b)), float(ttest_rel(a, b).pvalue)

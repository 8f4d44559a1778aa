"""The paper's numbers beside ours: those of the collection and split that were measured."""

import numpy as np
import pytest

from leadkit.results.statistics import paired_t_test
from leadkit.results.tables import OURS, summarise

QUERIES = np.linspace(0, 1, 6)


def record(collection, split, value):
    measures = dict.fromkeys(OURS.values(), value)
    per_query = {name: list(value * QUERIES) for name in ("RR@10", "nDCG@10")}
    return {
        "collection": collection,
        "fingerprint": "f",
        "split": split,
        "measures": measures,
        "per_query": per_query,
    }


@pytest.mark.parametrize(
    "collection, split, ours, published",
    [
        ("python-docs", "test", ["MRR@10", "MAP@1k", "R@100", "R@1k"], {"MRR@10": 37.80}),
        (
            "irds:msmarco-passage",
            "dev",
            ["MRR@10", "MAP@1k", "R@100", "R@1k"],
            {"MRR@10": 37.80, "MAP@1k": 38.32, "R@1k": 97.42},
        ),
        (
            "irds:msmarco-passage",
            "dl19",
            ["nDCG@10", "MAP@1k"],
            {"nDCG@10": 70.44, "MAP@1k": 43.01},
        ),
        (
            "irds:msmarco-passage",
            "dl20",
            ["nDCG@10", "MAP@1k"],
            {"nDCG@10": 68.92, "MAP@1k": 44.09},
        ),
        (
            "irds:msmarco-document",
            "dev",
            ["MRR@10", "MAP@100", "R@100"],
            {"MRR@10": 40.00, "MAP@100": 40.93, "R@100": 88.63},
        ),
        (
            "irds:msmarco-document",
            "dl19",
            ["nDCG@10", "R@100"],
            {"nDCG@10": 63.79, "R@100": 28.90},
        ),
        (
            "irds:msmarco-document",
            "dl20",
            ["nDCG@10", "R@100"],
            {"nDCG@10": 60.05, "R@100": 46.20},
        ),
    ],
)
def test_the_papers_column_is_that_of_the_collection_and_measure(
    collection, split, ours, published
):
    records = {
        "RD": [record(collection, split, 0.3)],
        "LEAD": [record(collection, split, 0.4)],
    }
    table = summarise(records, "CB")
    first, *others = ours
    known = [f"paper {measure}" for measure in published]
    assert list(table.columns) == [first, "sd", *others, "p vs RD", *known]
    assert table.loc["LEAD", first] == pytest.approx(40)
    for measure, value in published.items():
        assert table.loc["LEAD", f"paper {measure}"] == value, measure
    assert 0 < table.loc["LEAD", "p vs RD"] < 1 and np.isnan(table.loc["RD", "p vs RD"])


def test_rows_of_all_teachers_have_their_papers_numbers_and_their_own_rd():
    values = {"DE RD": 0.2, "DE LEAD": 0.3, "CB RD": 0.31, "CB LEAD": 0.4, "student": 0.1}
    table = summarise({name: [record("toy", "test", value)] for name, value in values.items()})
    published = {"DE RD": 35.36, "DE LEAD": 36.26, "CB RD": 36.02, "CB LEAD": 37.80}
    assert table.loc[list(published), "paper MRR@10"].to_dict() == published
    p = table["p vs RD"]
    assert p[["DE RD", "CB RD", "student"]].isna().all() and (p[["DE LEAD", "CB LEAD"]] < 1).all()
    assert p["DE LEAD"] == pytest.approx(paired_t_test(0.3 * QUERIES, 0.2 * QUERIES)[1])


def test_a_table_without_the_values_of_its_queries_has_no_p():
    """Committed records keep MRR@10 of each query and no other measure."""
    rows = {name: [record("irds:msmarco-passage", "dl19", 0.3)] for name in ("RD", "LEAD")}
    for found in rows.values():
        del found[0]["per_query"]["nDCG@10"]
    assert summarise(rows)["p vs RD"].isna().all()

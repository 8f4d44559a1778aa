"""Tables of records: means over seeds, the paper's numbers beside ours, Markdown."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from leadkit.experiments.rows import ROWS, experiment
from leadkit.results import paper
from leadkit.results.comparable import per_query
from leadkit.results.records import Records
from leadkit.results.statistics import paired_t_test

if TYPE_CHECKING:
    from leadkit.experiments.pipeline import Pipeline


def main_rows(records: Records, teacher: str = "CB") -> Records:
    """Row of the main table -> its records, of those that there are."""
    names = {row: experiment(row, teacher) for row in ROWS}
    return {row: records[name] for row, name in names.items() if name in records}


def main_table(records: Records, teacher: str = "CB") -> pd.DataFrame:
    """The main table of a folder's records; its columns are those of `summarise`."""
    return summarise(main_rows(records, teacher), teacher)


def run_main_table(
    pipelines: Sequence["Pipeline"], split: str = "test", rows: Sequence[str] = ROWS
) -> pd.DataFrame:
    """Run what is missing of the main table, or of some rows; one pipeline per seed."""
    every = [pipeline.rows(split) for pipeline in pipelines]
    records = {row: [evaluations[row].record() for evaluations in every] for row in rows}
    return summarise(records, pipelines[0].teacher.tower.architecture)


def summarise(records: Mapping[str, Sequence[dict]], teacher: str = "CB") -> pd.DataFrame:
    """Row -> its records, one per seed; returns a line per row, in percent.

    Means over the seeds; the sd of MRR@10 over the seeds; p of a paired t-test of MRR@10 against
    the row RD, over queries, each the mean of its seeds; the paper's MRR@10 with this teacher.
    ValueError where the records are of more than one collection or split: they are not averaged.
    """
    rows = [row for found in records.values() for row in found]
    kinds = {(row["collection"], row["fingerprint"], row["split"]) for row in rows}
    if len(kinds) > 1:
        raise ValueError(
            f"records of different collections cannot be averaged together: {sorted(kinds)}"
        )
    queries = {  # row -> (Q,)
        name: np.mean([per_query(row) for row in found], axis=0) for name, found in records.items()
    }
    published = paper_mrr()
    table = {}
    for name, found in records.items():
        means = pd.DataFrame([row["measures"] for row in found]) * 100  # (S, measures)
        p = np.nan
        if "RD" in queries and name != "RD":
            _, p = paired_t_test(queries[name], queries["RD"])
        table[name] = {
            "MRR@10": means["RR@10"].mean(),
            "sd": means["RR@10"].std(),
            "MAP@1k": means["AP@1000"].mean(),
            "R@100": means["R@100"].mean(),
            "R@1k": means["R@1000"].mean(),
            "p vs RD": p,
            "paper MRR@10": published.get(experiment(name, teacher), np.nan),
        }
    return pd.DataFrame(table).T


def paper_mrr() -> pd.Series:
    """Row -> the paper's MRR@10 on MS MARCO passages, of Table 3 where several tables have it."""
    columns = [paper.TABLES[number]["MS-Pas", "MRR@10"] for number in (1, 10, 3)]
    return pd.concat(columns).groupby(level=0).last()


def p_text(p: float) -> str:
    """A p-value for print."""
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def markdown(table: pd.DataFrame, digits: Mapping[str, int] | None = None) -> str:
    """A data frame as a Markdown table: its index first, numbers right-aligned, NaN left empty.

    digits: column -> decimals of its numbers, two where none are given.
    """
    columns = [[str(name) for name in table.index]]
    sides = ["---"]
    for name, column in table.items():
        decimals = (digits or {}).get(str(name), 2)
        columns.append([_cell(value, decimals) for value in column])
        sides.append("---:" if pd.api.types.is_numeric_dtype(column) else "---")
    header = [table.index.name or "", *map(str, table.columns)]
    lines = [header, sides, *zip(*columns, strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object, decimals: int) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.{decimals}f}"
    return str(value)


def main_markdown(table: pd.DataFrame) -> str:
    """A table of `summarise` as Markdown."""
    return markdown(table, {"p vs RD": 4})


def ledger_markdown(ledger: pd.DataFrame) -> str:
    """A `claims.ledger` as Markdown."""
    lines = {}
    for name, line in ledger.iterrows():
        between = "" if np.isnan(line["low"]) else f"{line['low']:.2f} to {line['high']:.2f}"
        lines[name] = {
            "Table": str(line["table"]),
            "claim": line["claim"].replace("*", r"\*"),
            "verdict": line["verdict"],
            "difference": line["difference"],
            "95% interval": between,
            "p": "" if np.isnan(line["p"]) else p_text(line["p"]),
            "paper": line["paper"],
        }
    return markdown(pd.DataFrame.from_dict(lines, orient="index").rename_axis("id"))

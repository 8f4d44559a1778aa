"""Tables of records: means over seeds, the paper's numbers beside ours, Markdown."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from leadkit.experiments.rows import ROWS, experiment
from leadkit.results import paper
from leadkit.results.records import Records
from leadkit.results.statistics import paired_t_test

# The paper's measures -> ours, which have the names of ir_measures.
OURS = {
    "MRR@10": "RR@10",
    "MAP@100": "AP@100",
    "MAP@1k": "AP@1000",
    "R@100": "R@100",
    "R@1k": "R@1000",
    "nDCG@10": "nDCG@10",
}
MS_MARCO = {"irds:msmarco-passage": "Pas", "irds:msmarco-document": "Doc"}
TREC = {"dl19": "19", "dl20": "20"}  # splits of the TREC Deep Learning tracks
# Benchmark of the paper (section 4.2.1) -> what a table shows.
SHOWN = {
    "MS-Pas": ("MRR@10", "MAP@1k", "R@100", "R@1k"),
    "MS-Doc": ("MRR@10", "MAP@100", "R@100"),
    **{f"TREC-Pas-{year}": ("nDCG@10", "MAP@1k") for year in TREC.values()},
    **{f"TREC-Doc-{year}": ("nDCG@10", "R@100") for year in TREC.values()},
}

if TYPE_CHECKING:
    from leadkit.experiments.pipeline import Pipeline


def main_rows(records: Records, teacher: str = "CB") -> Records:
    """Row of the main table -> its records, of those that there are."""
    names = {row: experiment(row, teacher) for row in ROWS}
    return {row: records[name] for row, name in names.items() if name in records}


def main_table(records: Records) -> pd.DataFrame:
    """The main table of a folder's records; its columns are those of `summarise`."""
    return summarise(main_rows(records))


def run_main_table(pipelines: Sequence["Pipeline"]) -> pd.DataFrame:
    """Run what is missing of the main table; one pipeline per seed."""
    every = [pipeline.rows("test") for pipeline in pipelines]
    records = {row: [evaluations[row].record() for evaluations in every] for row in ROWS}
    return summarise(records, pipelines[0].teacher.tower.architecture)


def benchmark(collection: str, split: str) -> str:
    """The paper's name of a split. Other collections stand beside its MS MARCO passages."""
    kind = MS_MARCO.get(collection, "Pas")
    if collection in MS_MARCO and split in TREC:
        return f"TREC-{kind}-{TREC[split]}"
    return f"MS-{kind}"


def summarise(records: Mapping[str, Sequence[dict]], teacher: str = "CB") -> pd.DataFrame:
    """Row -> its records, one per seed; returns a line per row, in percent.

    The columns are the measures that the paper has for the collection and split (`SHOWN`), the
    first with its sd over the seeds and the p of a paired t-test against the row RD, over queries,
    each the mean of its seeds. Then the paper's numbers with this teacher: all of them on its own
    collections, elsewhere its MRR@10 on MS MARCO passages.
    ValueError where the records are of more than one collection or split: they are not averaged.
    """
    rows = [row for found in records.values() for row in found]
    if not rows:
        raise ValueError("there are no records of these rows: nothing to average")
    kinds = {(row["collection"], row["fingerprint"], row["split"]) for row in rows}
    if len(kinds) > 1:
        raise ValueError(
            f"records of different collections cannot be averaged together: {sorted(kinds)}"
        )
    collection, _, split = kinds.pop()
    name = benchmark(collection, split)
    first, *others = SHOWN[name]
    queries = {  # row -> (Q,), where the values of the queries are kept
        row: np.mean([each["per_query"][OURS[first]] for each in found], axis=0)
        for row, found in records.items()
        if all(OURS[first] in each["per_query"] for each in found)
    }
    known = SHOWN[name] if collection in MS_MARCO else [first]
    columns = {measure: paper_column(name, measure) for measure in known}
    published = {measure: column for measure, column in columns.items() if len(column)}
    table = {}
    for row, found in records.items():
        measures = pd.DataFrame([each["measures"] for each in found]) * 100  # (S, measures)
        p = np.nan
        rd = "RD" if "RD" in queries else f"{row[:2]} RD"
        if {row, rd} <= queries.keys() and row != rd:
            _, p = paired_t_test(queries[row], queries[rd])
        line = {first: measures[OURS[first]].mean(), "sd": measures[OURS[first]].std()}
        line |= {measure: measures[OURS[measure]].mean() for measure in others}
        line["p vs RD"] = p
        for measure, column in published.items():
            known_as = row if row in column else experiment(row, teacher)
            line[f"paper {measure}"] = column.get(known_as, np.nan)
        table[row] = line
    return pd.DataFrame(table).T


def paper_column(name: str = "MS-Pas", measure: str = "MRR@10") -> pd.Series:
    """Row -> the paper's number, of Table 3 where several tables have it; empty if none has."""
    tables = [paper.TABLES[number] for number in (1, 2, 10, 3)]
    columns = [table[name, measure] for table in tables if (name, measure) in table]
    if not columns:
        return pd.Series(dtype=float)
    return pd.concat(columns).groupby(level=0).last()


def paper_mrr() -> pd.Series:
    """Row -> the paper's MRR@10 on MS MARCO passages."""
    return paper_column()


def p_text(p: float) -> str:
    """A p-value for print, "" where there is none."""
    if np.isnan(p):
        return ""
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


def interval_text(low: float, high: float, seeds: int, form: str = ".2f") -> str:
    """An interval for print, "" where there is none; that of one seed says what it is over."""
    if np.isnan(low):
        return ""
    return f"{low:{form}} to {high:{form}}" + (" over queries" if seeds == 1 else "")


def difference_text(difference: float, low: float, high: float, seeds: int) -> str:
    """A difference with its interval as "0.81 (0.41 to 1.21)", "" where there is none."""
    if np.isnan(difference):
        return ""
    return f"{difference:.2f} ({interval_text(low, high, seeds)})"


def ledger_markdown(ledger: pd.DataFrame) -> str:
    """A `claims.ledger` as Markdown."""
    texts = _ledger_texts(ledger).rename_axis("id")
    return markdown(texts.assign(claim=texts["claim"].str.replace("*", r"\*")))


def ledger_text(ledger: pd.DataFrame) -> str:
    """A `claims.ledger` for a terminal, family by family."""
    parts = []
    for family, lines in ledger.groupby("family", sort=False):
        run = (lines["seeds"] > 0).sum()
        shown = plain(_ledger_texts(lines).drop(columns="family"))
        parts.append(f"{family}: {run} of {len(lines)} claims were run\n{shown}")
    return "\n\n".join(parts)


def _ledger_texts(ledger: pd.DataFrame) -> pd.DataFrame:
    """The columns that are printed; a verdict says which gate was failed."""
    lines = {}
    for name, line in ledger.iterrows():
        gate, _, _ = line["gate"].partition(" (")
        lines[name] = {
            "family": line["family"],
            "claim": line["claim"],
            "verdict": f"{line['verdict']}: {gate}" if gate else line["verdict"],
            "difference": line["difference"],
            "95% interval": interval_text(line["low"], line["high"], line["seeds"]),
            "p": p_text(line["p"]),
            "p of size": p_text(line["p of size"]),
            "visible": line["visible"],
            "paper": line["paper"],
            "visible / paper": line["ratio"],
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def plain(table: pd.DataFrame) -> str:
    """A data frame for a terminal."""
    return table.to_string(float_format="%.2f", na_rep="")


def gates_markdown(gates: pd.DataFrame) -> str:
    """Gates as `gates.measure` has them, as Markdown."""
    return markdown(gate_texts(gates).rename_axis("gate"))


def gate_texts(gates: pd.DataFrame) -> pd.DataFrame:
    """The columns of gates that are printed."""
    lines = {}
    for name, line in gates.iterrows():
        lines[name] = {
            "decides on": f"the {line['teacher']} teacher" if line["teacher"] else "no claim",
            "state": line["state"],
            "difference": line["difference"],
            "95% interval": interval_text(line["low"], line["high"], line["seeds"]),
            "at least": line["least"],
        }
    return pd.DataFrame.from_dict(lines, orient="index")

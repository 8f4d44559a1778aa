"""What was measured once and is no result record: data/results/tried.jsonl, a line per value.

question: what the value belongs to, a word or two, e.g. "layers".
setting: what was tried.
measure: what was measured, with its unit.
values: one per seed, or one per run where there are no seeds; one per layer where the measure is
    "by layer".
split, seeds: of a model that was measured; empty for times and memory.
device, date, note: the machine, the day where it is known, and whatever else one must know.
"""

import json

import numpy as np
import pandas as pd

from leadkit import paths
from leadkit.results import tables

FIELDS = ("question", "setting", "measure", "values", "split", "seeds", "device", "date", "note")


def read(question: str) -> pd.DataFrame:
    """The lines of a question, in their order. ValueError where there is none."""
    lines = (paths.RESULTS / "tried.jsonl").read_text().splitlines()
    table = pd.DataFrame([json.loads(line) for line in lines], columns=list(FIELDS))
    found = table[table["question"] == question]
    if found.empty:
        known = ", ".join(table["question"].unique())
        raise ValueError(f"question {question!r} is unknown: there are {known}")
    return found


def values(question: str, setting: str, measure: str) -> list[float]:
    """The values of a line. ValueError where the question has no such setting or measure."""
    table = read(question)
    for column, wanted in {"setting": setting, "measure": measure}.items():
        rows = table[table[column] == wanted]
        if rows.empty:
            known = "; ".join(table[column].unique())
            raise ValueError(f"{column} {wanted!r} of {question!r} is unknown: use one of {known}")
        table = rows
    return table["values"].iloc[0]


def markdown(question: str) -> str:
    """A question as a Markdown table: a row per setting, a column per measure."""
    lines = read(question)
    columns, digits = {}, {}
    for measure, found in lines.groupby("measure", sort=False):
        numbers = found.set_index("setting")["values"]
        name = str(measure)
        if "by layer" in name:
            columns[name] = numbers.map(lambda values: " ".join(f"{x:.2f}" for x in values))
        else:
            columns[name] = numbers.map(np.mean)
            digits[name] = max(map(decimals, numbers))
    table = pd.DataFrame(columns).reindex(lines["setting"].unique()).rename_axis("")
    return tables.markdown(table, digits)


def decimals(numbers: list[float]) -> int:
    """As many as the numbers were written with."""
    return max(len(str(number).partition(".")[2]) for number in numbers)

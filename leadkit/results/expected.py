"""Expected and got: a run beside the committed records of its scale."""

import math
import time
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import pandas as pd
from scipy import stats

from leadkit import paths
from leadkit.experiments.rows import experiment
from leadkit.results import records
from leadkit.results.comparable import MEASURE, settings

INSIDE = "inside"
DIGITS = 2  # of a value in percent


def expected_and_got(rows: Mapping[str, dict], scale: str) -> pd.DataFrame:
    """Row -> committed mean and spread of MRR@10 in percent, this run's value, and a verdict.

    rows: row of the main table -> its record. spread: the sd over the committed seeds. Empty where
    nothing of this scale is committed.
    """
    folder = paths.RESULTS / scale
    if not (folder / records.LINES).exists():
        return pd.DataFrame()
    committed = records.read(folder)
    table = {}
    for row, record in rows.items():
        known = committed.get(experiment(row, "CB"), [])
        values = np.array([100 * each["measures"][MEASURE] for each in known])  # (S,)
        got = 100 * record["measures"][MEASURE]
        table[row] = {
            "committed": values.mean() if len(values) else math.nan,
            "spread": values.std(ddof=1) if len(values) > 1 else math.nan,
            "seeds": len(values),
            "this run": got,
            "": _verdict(record, known[0], values, got) if known else "not committed",
        }
    return pd.DataFrame.from_dict(table, orient="index")


def _verdict(record: dict, known: dict, values: np.ndarray, got: float) -> str:
    for field in ("collection", "fingerprint", "split"):
        if record[field] != known[field]:
            return f"another collection ({field} {record[field]})"
    ours, theirs = settings(record["stage"]), settings(known["stage"])
    differing = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    if differing and all(name.endswith(".bf16") for name in differing):
        return f"another precision ({precision(record)})"
    if differing:
        return f"other settings ({min(differing)})"
    low, high = interval(values)
    if low <= round(got, DIGITS) <= high:
        return INSIDE
    return f"outside {low:.2f} to {high:.2f}"


def interval(values: np.ndarray) -> tuple[float, float]:
    r"""Where one more seed is expected with 95%, $m \pm t_{S-1} \, s \sqrt{1 + 1/S}$, rounded.

    values: (S,). One value, or equal ones, which no seed changes: that value alone.
    """
    seeds = len(values)
    mean = float(values.mean())
    half = 0.0
    if seeds > 1:
        # t_{S-1} s sqrt(1 + 1/S)
        half = stats.t.ppf(0.975, seeds - 1) * values.std(ddof=1) * math.sqrt(1 + 1 / seeds)
    return round(mean - half, DIGITS), round(mean + half, DIGITS)


def precision(record: dict) -> str:
    """ "bfloat16" where a part of what was run computes in it, else "float32"."""
    described = settings(record["stage"])
    uses_it = any(value for name, value in described.items() if name.endswith(".bf16"))
    return "bfloat16" if uses_it else "float32"


def log_line(table: pd.DataFrame, record: dict, scale: str, seed: int) -> str:
    """A line for a reproduction log: when, what, on which machine, and how many rows are inside.

    table: of `expected_and_got`. record: of one of its rows.
    """
    torch = record["versions"]["torch"]
    inside = int((table[""] == INSIDE).sum())
    values = "; ".join(f"{row} {value:.2f}" for row, value in table["this run"].items())
    return (
        f"- {time.strftime('%Y-%m-%d')}, leadkit {version('leadkit')}, {scale}, seed {seed}, "
        f"{record['collection']} {record['fingerprint']}, {record['device']}, torch {torch}, "
        f"{precision(record)}: {inside} of {len(table)} rows inside; {values}"
    )

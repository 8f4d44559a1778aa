"""The map of conditions: what teacher, RD, layer loss and smoothed label give at each point."""

import pandas as pd

from leadkit.experiments.conditions import ROWS, TABLES
from leadkit.results.evidence import Evidence
from leadkit.results.tables import difference_text

# What is compared -> the experiments whose difference it is.
EFFECTS = {
    "teacher - student, as long": ("teacher", "student, as long"),
    "RD - student, as long": ("RD", "student, as long"),
    "frozen LEAD - RD": ("frozen LEAD", "RD"),
    "student + smooth label - student, as long": ("student + smooth label", "student, as long"),
}


def conditions() -> list[str]:
    """Every condition of the tables, in their order."""
    first = f"{ROWS[0]}, "
    names = (name for table in TABLES.values() for name in table)
    return [name.removeprefix(first) for name in names if name.startswith(first)]


def effects(evidence: Evidence) -> pd.DataFrame:
    """A line per condition that was run and effect, as `Evidence.differences` gives them."""
    compared = {
        (condition, effect): (f"{first}, {condition}", f"{second}, {condition}")
        for condition in conditions()
        for effect, (first, second) in EFFECTS.items()
    }
    return evidence.differences(compared, ("condition", "effect"))


def texts(measured: pd.DataFrame) -> pd.DataFrame:
    """`effects` as "0.81 (0.41 to 1.21)": a row per condition, a column per effect.

    ValueError where no condition was run.
    """
    if measured.empty:
        raise ValueError("no condition of the map was run: there is nothing to show")
    said = {key: difference_text(*line) for key, line in measured.iterrows()}
    return (
        pd.Series(said)
        .unstack()
        .reindex(index=measured.index.unique("condition"), columns=list(EFFECTS))
    )

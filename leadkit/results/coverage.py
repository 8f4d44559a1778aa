"""How much of each table was run, and what was not."""

import pandas as pd

from leadkit.experiments.sweep import SOURCES
from leadkit.results.evidence import Evidence


def coverage(evidence: Evidence) -> pd.DataFrame:
    """A row per table of `sweep`: "14 of 16" rows that were run, with how many seeds, the others.

    seeds: "5", or "3 to 5" where some rows have fewer.
    """
    seeds = {name: len(rows) for name, rows in evidence.records.items()}
    lines = {}
    for source in SOURCES:
        for table, names in source.TABLES.items():
            run = [seeds[name] for name in names if name in seeds]
            lines[table] = {
                "rows run": f"{len(run)} of {len(names)}",
                "seeds": " to ".join(map(str, sorted({min(run), max(run)}))) if run else "",
                "not run": "; ".join(name for name in names if name not in seeds),
            }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("`--table`")

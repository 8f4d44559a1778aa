"""How much of each table was run, and what was not."""

from collections.abc import Mapping, Sequence

import pandas as pd

from leadkit.results.records import Records


def coverage(records: Records, tables: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """A row per table: "14 of 16" rows that were run, with how many seeds, and the other rows.

    tables: table -> names of its rows. seeds: "5", or "3 to 5" where some rows have fewer.
    """
    seeds = {name: len(rows) for name, rows in records.items()}
    lines = {}
    for table, names in tables.items():
        run = [seeds[name] for name in names if name in seeds]
        lines[table] = {
            "rows run": f"{len(run)} of {len(names)}",
            "seeds": " to ".join(map(str, sorted({min(run), max(run)}))) if run else "",
            "not run": "; ".join(name for name in names if name not in seeds),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("`--table`")

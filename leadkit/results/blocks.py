"""Tables and figures that the markers of `report` may ask for: a function of this module each.

They are given what stands behind their name in the marker, and the page that they are written into.
"""

from collections.abc import Callable
from dataclasses import asdict
from os.path import relpath
from pathlib import Path

import numpy as np
import pandas as pd

from leadkit import config
from leadkit.experiments.sweep import tables_at
from leadkit.results import condition_map, strata, tables, tried, worlds
from leadkit.results.coverage import coverage
from leadkit.results.generators import bounds
from leadkit.results.sources import Source
from leadkit.results.tables import main_markdown, markdown


def main_table(source: Source, text: str, page: Path) -> str:
    """SCALE."""
    return main_markdown(tables.main_table(source.folder(text).records))


def ledger(source: Source, text: str, page: Path) -> str:
    """SCALE, or SCALE: FAMILY; FAMILY ...: the claims that were run."""
    folder, what = source.parse(text)
    chosen = folder.ledger[folder.ledger["seeds"] > 0]
    if what:
        chosen = chosen[chosen["family"].isin(what.split("; "))]
    return tables.ledger_markdown(chosen)


def gate_table(source: Source, text: str, page: Path) -> str:
    """SCALE: a line per gate that was measured."""
    return tables.gates_markdown(source.folder(text).gates)


def table(source: Source, text: str, page: Path) -> str:
    """SCALE: EXPERIMENT[ => LABEL]; ...: MRR@10, its sd over the seeds, R@100."""
    folder, what = source.parse(text)
    rows = {}
    for name, label in _labelled(what):
        mrr, recall = folder.percent(name), folder.percent(f"{name}, R@100")
        spread = mrr.std(ddof=1) if len(mrr) > 1 else np.nan
        rows[label] = {"MRR@10": mrr.mean(), "sd": spread, "R@100": recall.mean()}
    return markdown(pd.DataFrame.from_dict(rows, orient="index").dropna(axis=1, how="all"))


def differences(source: Source, text: str, page: Path) -> str:
    """SCALE SCALE ...: DIFFERENCE[ => LABEL]; ...: as `generators.difference`, with intervals."""
    scales, _, what = text.partition(": ")
    rows = {}
    for name, label in _labelled(what):
        rows[label] = {scale: _difference(source, scale, name) for scale in scales.split()}
    return markdown(pd.DataFrame.from_dict(rows, orient="index"))


def _difference(source: Source, scale: str, what: str) -> str:
    """A difference as "0.82 (0.18 to 1.43)", with the verdict behind where it is a claim's."""
    folder = source.folder(scale)
    said = tables.difference_text(folder.difference(what), *bounds(folder, what))
    return said if " - " in what else f"{said}, {folder.line(what)['verdict']}"


def _labelled(text: str) -> list[tuple[str, str]]:
    """(name, label) of each row of "NAME => LABEL; NAME". ValueError where two share a label."""
    rows: list[tuple[str, str]] = []
    for row in text.split("; "):
        name, _, label = row.partition(" => ")
        label = label or name
        if any(label == known for _, known in rows):
            raise ValueError(f"two rows are called {label!r}: each must have a label of its own")
        rows.append((name, label))
    return rows


def tried_table(source: Source, text: str, page: Path) -> str:
    """QUESTION: a row per setting, a column per measure."""
    return tried.markdown(text)


def tables_run(source: Source, text: str, page: Path) -> str:
    """SCALE: a row per table of `sweep`: how many rows were run, and which were not."""
    return markdown(coverage(source.folder(text).records, tables_at(config.scale(text))))


def made_worlds(source: Source, text: str, page: Path) -> str:
    """Nothing; a row per contrast of the made worlds."""
    return markdown(worlds.texts(worlds.table(worlds.read())))


def settings(source: Source, text: str, page: Path) -> str:
    """SCALE: every setting of `config.py` that decides a result on any machine."""
    described = asdict(config.scale(text))
    described |= {f"{who}, own": each for who, each in described.pop("own").items()}
    values = {}
    for name, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{field} {each}" for field, each in value.items())
        if value not in ("", None) and name not in ("name", "bf16"):
            values[name] = str(value)
    return markdown(pd.DataFrame({text: values}))


def conditions(source: Source, text: str, page: Path) -> str:
    """SCALE: the map of conditions, a row per condition that was run."""
    measured = condition_map.effects(source.folder(text).evidence)
    return markdown(condition_map.texts(measured).rename_axis("", axis=1))


def by_stratum(source: Source, text: str, page: Path) -> str:
    """SCALE SCALE ...: A - B[ => LABEL]; ...: a row per scale and stratum, a column per difference.

    A difference of experiments that a scale lacks is left empty; ValueError where all lack it.
    """
    scales, _, what = text.partition(": ")
    folders = {scale: source.folder(scale) for scale in scales.split()}
    parts = []
    for scale, folder in folders.items():
        columns = {"queries, %": 100 * strata.shares(folder.points)}
        for name, label in _labelled(what):
            first, _, second = name.partition(" - ")
            having = [each for each in folders.values() if {first, second} <= each.records.keys()]
            if not having:
                raise ValueError(f"none of {', '.join(folders)} has records of both in {name!r}")
            if folder in having:
                columns[label] = strata.texts(strata.gains(folder.points, first, second))
        parts.append(pd.DataFrame(columns).rename(index=f"{scale}, {{}}".format))
    return markdown(pd.concat(parts).fillna(""), {"queries, %": 0})


def figure(source: Source, text: str, page: Path) -> str:
    """SCALE: DRAWING[, ALTERNATIVE TEXT]; data/results/SCALE/DRAWING.png, drawn where outdated."""
    scale, _, what = text.partition(": ")
    name, _, alternative = what.partition(", ")
    path = source.draw(scale, name)
    return f"![{alternative or name}]({relpath(path, page.parent)})"


BLOCKS: dict[str, Callable[[Source, str, Path], str]] = {
    "main-table": main_table,
    "ledger": ledger,
    "gates": gate_table,
    "table": table,
    "differences": differences,
    "tried": tried_table,
    "settings": settings,
    "conditions": conditions,
    "coverage": tables_run,
    "strata": by_stratum,
    "worlds": made_worlds,
    "figure": figure,
}

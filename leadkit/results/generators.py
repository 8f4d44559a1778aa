"""What the markers of `report` may ask for: a function of this module each.

Those of `INLINE` give a number for a sentence, those of `BLOCKS` a table or a figure. They are
given what stands behind their name in the marker.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from os.path import relpath
from pathlib import Path

import numpy as np
import pandas as pd

from leadkit import config, paths
from leadkit.results import tables, tried
from leadkit.results.sources import Source, claim
from leadkit.results.tables import main_markdown, markdown, p_text, paper_mrr

# --- a number for a sentence; form: how it is written, as Python has it, "" for the default


def mean(source: Source, text: str, form: str) -> str:
    """SCALE: EXPERIMENT[, MEASURE][, seed N]; percent, the mean of the seeds."""
    folder, what = source.parse(text)
    return format(folder.percent(what).mean(), form or ".2f")


def sd(source: Source, text: str, form: str) -> str:
    """SCALE: EXPERIMENT[, MEASURE]; over the seeds."""
    folder, what = source.parse(text)
    return format(folder.percent(what).std(ddof=1), form or ".2f")


def difference(source: Source, text: str, form: str) -> str:
    """SCALE: A - B[, seed N], or SCALE: CLAIM; points of MRR@10, with a sign."""
    folder, what = source.parse(text)
    return format(folder.difference(what), form or "+.2f")


def margin(source: Source, text: str, form: str) -> str:
    """As `difference`, without a sign, for "A is 0.22 above B"; ValueError where it is not."""
    folder, what = source.parse(text)
    value = folder.difference(what)
    if not value > 0:
        raise ValueError(f"the text says that {what} is positive, it is {value:.2f}")
    return format(value, form or ".2f")


def interval(source: Source, text: str, form: str) -> str:
    """SCALE: A - B, or SCALE: CLAIM; 95%, "-0.60 to 0.15"."""
    folder, what = source.parse(text)
    low, high = folder.interval(what)
    return f"{low:{form or '.2f'}} to {high:{form or '.2f'}}"


def p(source: Source, text: str, form: str) -> str:
    """SCALE: CLAIM; corrected over all claims that were run."""
    folder, what = source.parse(text)
    value = folder.line(what)["p"]
    return format(value, form) if form else p_text(value)


def verdict(source: Source, text: str, form: str) -> str:
    """SCALE: CLAIM."""
    folder, what = source.parse(text)
    return folder.line(what)["verdict"]


def count(source: Source, text: str, form: str) -> str:
    """SCALE: VERDICT for claims of that verdict, "run" for all that were run, or "queries"."""
    folder, what = source.parse(text)
    verdicts = ("holds", "contradicted", "undecided", "not run")
    if what in verdicts:
        number = int((folder.ledger["verdict"] == what).sum())
    elif what == "run":
        number = int((folder.ledger["verdict"] != "not run").sum())
    elif what == "queries":
        number = len(next(iter(folder.points.values())))
    else:
        known = ", ".join((*verdicts, "run", "queries"))
        raise ValueError(f"nothing counts {what!r}: use one of {known}")
    return format(number, form or ",")


def paper(source: Source, text: str, form: str) -> str:
    """CLAIM, with a sign, or ROW: the paper's MRR@10 on MS MARCO passages."""
    published = paper_mrr()
    if text in published.index:
        return format(published[text], form or ".2f")
    return format(claim(text).paper(), form or "+.2f")


def measured(source: Source, text: str, form: str) -> str:
    """QUESTION: SETTING / MEASURE; the mean of the values, by default with their decimals."""
    values = _tried(text)
    return format(np.mean(values), form or f".{tried.decimals(values)}f")


def spread(source: Source, text: str, form: str) -> str:
    """QUESTION: SETTING / MEASURE; the least and the greatest value, "0.95 to 1.00"."""
    values = _tried(text)
    form = form or f".{tried.decimals(values)}f"
    return f"{min(values):{form}} to {max(values):{form}}"


def _tried(text: str) -> list[float]:
    question, _, what = text.partition(": ")
    setting, _, measure = what.partition(" / ")
    return tried.values(question, setting, measure)


def apart(source: Source, text: str, form: str) -> str:
    """SCALE SCALE: mean, or most; points between the same models, trained twice.

    Of the experiments that are trained on each seed, without those of a CE teacher.
    """
    scales, _, what = text.partition(": ")
    first, second = (source.folder(scale).points for scale in scales.split())
    differences = [
        abs(first[name, seed].mean() - second[name, seed].mean())
        for name, seed in first.keys() & second.keys()
        if name not in ("BM25", "12DE (mines)") and "CE" not in name
    ]
    if what not in ("mean", "most"):
        raise ValueError(f"{what!r} is unknown: use mean or most")
    return format(np.mean(differences) if what == "mean" else max(differences), form or ".2f")


def bench(source: Source, text: str, form: str) -> str:
    """NAME: KEY / KEY / ...; a number of data/results/bench/NAME.json."""
    name, _, keys = text.partition(": ")
    value = json.loads((paths.RESULTS / "bench" / f"{name}.json").read_text())
    for key in keys.split(" / "):
        if not isinstance(value, dict) or key not in value:
            known = "; ".join(value) if isinstance(value, dict) else "nothing further"
            raise ValueError(f"bench/{name}.json has no {key!r} in {keys!r}: there is {known}")
        value = value[key]
    return format(value, form or ".2f")


# --- a table or a figure; page: the file that it is written into


def main_table(source: Source, text: str, page: Path) -> str:
    """SCALE."""
    return main_markdown(tables.main_table(source.folder(text).records))


def ledger(source: Source, text: str, page: Path) -> str:
    """SCALE, or SCALE: TABLE TABLE ... of the paper: the claims that were run."""
    folder, what = source.parse(text)
    chosen = folder.ledger[folder.ledger["seeds"] > 0]
    if what:
        chosen = chosen[chosen["table"].astype(str).isin(what.split())]
    return tables.ledger_markdown(chosen)


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
    """SCALE SCALE ...: A - B or CLAIM[ => LABEL]; ...: a difference with its interval each."""
    scales, _, what = text.partition(": ")
    rows = {}
    for name, label in _labelled(what):
        rows[label] = {scale: _difference(source, scale, name) for scale in scales.split()}
    return markdown(pd.DataFrame.from_dict(rows, orient="index"))


def _difference(source: Source, scale: str, what: str) -> str:
    """A difference as "0.82 (0.18 to 1.43)", with the verdict behind where it is a claim's."""
    folder = source.folder(scale)
    low, high = folder.interval(what)
    said = f"{folder.difference(what):.2f} ({low:.2f} to {high:.2f})"
    return said if " - " in what else f"{said}, {folder.line(what)['verdict']}"


def _labelled(text: str) -> list[tuple[str, str]]:
    """(name, label) of each row of "NAME => LABEL; NAME"."""
    rows = []
    for row in text.split("; "):
        name, _, label = row.partition(" => ")
        rows.append((name, label or name))
    return rows


def tried_table(source: Source, text: str, page: Path) -> str:
    """QUESTION: a row per setting, a column per measure."""
    return tried.markdown(text)


def settings(source: Source, text: str, page: Path) -> str:
    """SCALE: every setting of `config.py` that decides a result on any machine."""
    described = asdict(config.scale(text))
    values = {}
    for name, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{field} {each}" for field, each in value.items())
        if value != "" and name not in ("name", "bf16"):
            values[name] = str(value)
    return markdown(pd.DataFrame({text: values}))


def figure(source: Source, text: str, page: Path) -> str:
    """SCALE: DRAWING[, ALTERNATIVE TEXT]; data/results/SCALE/DRAWING.png, drawn where outdated."""
    scale, _, what = text.partition(": ")
    name, _, alternative = what.partition(", ")
    path = source.draw(scale, name)
    return f"![{alternative or name}]({relpath(path, page.parent)})"


INLINE: dict[str, Callable[[Source, str, str], str]] = {
    "mean": mean,
    "sd": sd,
    "difference": difference,
    "margin": margin,
    "interval": interval,
    "p": p,
    "verdict": verdict,
    "count": count,
    "paper": paper,
    "tried": measured,
    "range": spread,
    "apart": apart,
    "bench": bench,
}
BLOCKS: dict[str, Callable[[Source, str, Path], str]] = {
    "main-table": main_table,
    "ledger": ledger,
    "table": table,
    "differences": differences,
    "tried": tried_table,
    "settings": settings,
    "figure": figure,
}

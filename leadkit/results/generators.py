"""What the markers of `report` may ask for in a sentence: a function of this module each.

They are given what stands behind their name in the marker. `blocks` has tables and figures.
"""

import json
from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from leadkit import paths
from leadkit.results import strata, tables, tried, worlds
from leadkit.results.claims import NOT_RUN, VERDICTS
from leadkit.results.gates import figures
from leadkit.results.sources import Folder, Source, claim
from leadkit.results.tables import p_text, paper_mrr

# form: how a number is written, as Python has it, "" for the default


def mean(source: Source, text: str, form: str) -> str:
    """SCALE: EXPERIMENT[, MEASURE][, seed N]; percent, the mean of the seeds."""
    folder, what = source.parse(text)
    return format(folder.percent(what).mean(), form or ".2f")


def sd(source: Source, text: str, form: str) -> str:
    """SCALE: EXPERIMENT[, MEASURE]; over the seeds."""
    folder, what = source.parse(text)
    return format(folder.percent(what).std(ddof=1), form or ".2f")


def difference(source: Source, text: str, form: str) -> str:
    """SCALE: A - B[, seed N], (A - B) - (C - D) or CLAIM; points of MRR@10, with a sign."""
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
    """As `difference`, of all seeds; 95%, "-0.60 to 0.15", with "over queries" for one seed."""
    folder, what = source.parse(text)
    return tables.interval_text(*bounds(folder, what), form=form or ".2f")


def p(source: Source, text: str, form: str) -> str:
    """SCALE: CLAIM; corrected over its family; nothing is where it is not testable."""
    folder, what = source.parse(text)
    value = folder.line(what)["p"]
    return format(value, form) if form else p_text(value)


def verdict(source: Source, text: str, form: str) -> str:
    """SCALE: CLAIM."""
    folder, what = source.parse(text)
    return folder.line(what)["verdict"]


def visible(source: Source, text: str, form: str) -> str:
    """SCALE: CLAIM; the smallest effect that could have been seen, in points."""
    folder, what = source.parse(text)
    return format(folder.line(what)["visible"], form or ".2f")


def gate(source: Source, text: str, form: str) -> str:
    """SCALE: GATE; "passed, 0.95 (0.52 to 1.38)"."""
    folder, what = source.parse(text)
    if what not in folder.gates.index:
        raise ValueError(f"gate {what!r} is unknown: use one of {', '.join(folder.gates.index)}")
    line = folder.gates.loc[what]
    return f"{line['state']}, {figures(line)}" if line["seeds"] else line["state"]


def count(source: Source, text: str, form: str) -> str:
    """SCALE: VERDICT for claims of that verdict, "run" for all that were run, or "queries"."""
    folder, what = source.parse(text)
    if what in VERDICTS:
        number = int((folder.ledger["verdict"] == what).sum())
    elif what == "run":
        number = int((folder.ledger["verdict"] != NOT_RUN).sum())
    elif what == "queries":
        number = len(next(iter(folder.points.values())))
    else:
        known = ", ".join((*VERDICTS, "run", "queries"))
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


def stratum(source: Source, text: str, form: str) -> str:
    """SCALE: A - B / STRATUM; the difference on these queries, in points, with a sign."""
    what, _, name = text.partition(" / ")
    gains = _gains(source, what)
    _check(name, gains.index)
    return format(gains.loc[name, "difference"], form or "+.2f")


def share(source: Source, text: str, form: str) -> str:
    """SCALE: STRATUM; percent of the queries."""
    folder, name = source.parse(text)
    shares = strata.shares(folder.points)
    _check(name, shares.index)
    return format(100 * shares[name], form or ".0f")


def with_shares(source: Source, text: str, form: str) -> str:
    """SCALE OTHER: A - B; the difference at SCALE if its strata had the shares of OTHER."""
    scales, _, what = text.partition(": ")
    mine, other = (_gains(source, f"{scale}: {what}") for scale in scales.split())
    return format(strata.with_shares(mine, other), form or "+.2f")


def _gains(source: Source, text: str) -> pd.DataFrame:
    folder, what = source.parse(text)
    first, _, second = what.partition(" - ")
    return strata.gains(folder.points, first, second)


def _check(stratum: str, known: Collection[str]) -> None:
    if stratum not in known:
        raise ValueError(f"stratum {stratum!r} is unknown: use one of {', '.join(known)}")


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


def made_world(source: Source, text: str, form: str) -> str:
    """WORLD: METHOD, a mean in percent, or WORLD: A - B, points with a sign; of students.json."""
    world, _, what = text.partition(": ")
    first, minus, second = what.partition(" - ")
    learnt = worlds.read()
    if minus:
        return format(worlds.difference(learnt, world, first, second).mean, form or "+.2f")
    return format(worlds.values(learnt, world, first).mean(), form or ".2f")


def bounds(folder: Folder, what: str) -> tuple[float, float, int]:
    """The interval of a difference, and the number of its seeds."""
    test = folder.test(what)
    return *test.interval(), test.seeds


INLINE: dict[str, Callable[[Source, str, str], str]] = {
    "mean": mean,
    "sd": sd,
    "difference": difference,
    "margin": margin,
    "interval": interval,
    "p": p,
    "verdict": verdict,
    "visible": visible,
    "gate": gate,
    "count": count,
    "paper": paper,
    "tried": measured,
    "range": spread,
    "stratum": stratum,
    "share": share,
    "with-shares": with_shares,
    "apart": apart,
    "bench": bench,
    "world": made_world,
}

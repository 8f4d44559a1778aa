"""The record of the made worlds: what students learnt in each, and which parts of LEAD paid.

S seeds; every method sees the same S sets of texts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leadkit import paths
from leadkit.results.statistics import Estimate, paired_t_test
from leadkit.results.tables import p_text

MARGIN = 1.0  # points of MRR@10: two methods that differ by less are equivalent
Students = dict[str, dict[str, np.ndarray]]  # world -> method -> MRR@10 in percent, (S,)


@dataclass(frozen=True)
class Contrast:
    """What a difference between two methods in one world shows."""

    question: str
    world: str
    first: str
    second: str


CONTRASTS = (
    Contrast("Do layer features help?", "drowned", "LEAD", "RD"),
    Contrast("... more than training alone?", "drowned", "LEAD", "control"),
    Contrast("... more than the label in every layer?", "drowned", "LEAD", "labels"),
    Contrast("Does the last layer alone help?", "drowned", "RD", "control"),
    Contrast("Does random selection help?", "moving", "LEAD", "LEAD, Last"),
    Contrast("Does re-weighting help?", "noisy", "LEAD", "LEAD, equal weights"),
    Contrast("Does keeping the order help?", "deepening", "LEAD", "LEAD, any order"),
    Contrast(
        "Does re-weighting help where noise is certain?", "drowned", "LEAD", "LEAD, equal weights"
    ),
    Contrast("Do layer features help?", "twin", "LEAD", "RD"),
    Contrast("Does random selection help?", "twin", "LEAD", "LEAD, Last"),
    Contrast("Does keeping the order help?", "twin", "LEAD", "LEAD, any order"),
)


def read() -> Students:
    """The committed record."""
    return students(json.loads((paths.RESULTS / "world" / "students.json").read_text()))


def students(record: Mapping) -> Students:
    """The students of a record as arrays."""
    return {
        world: {method: np.array(values) for method, values in methods.items()}
        for world, methods in record["mrr"].items()
    }


def difference(learnt: Students, world: str, first: str, second: str) -> Estimate:
    """How far the first method is above the second in this world, by a paired t-test over seeds."""
    pairs = values(learnt, world, first) - values(learnt, world, second)  # (S,)
    error = float(pairs.std(ddof=1)) / np.sqrt(len(pairs))
    return Estimate(float(pairs.mean()), error, len(pairs) - 1)


def values(learnt: Students, world: str, method: str) -> np.ndarray:
    """(S,). ValueError for what was not trained."""
    for known, name in ((learnt, world), (learnt.get(world, {}), method)):
        if name not in known:
            raise ValueError(f"nothing was trained as {name!r}: there are {'; '.join(known)}")
    return learnt[world][method]


def table(learnt: Students) -> pd.DataFrame:
    """World -> a row for each of its contrasts.

    p: of no difference. equivalent: of a difference of at least MARGIN.
    """
    rows = []
    for contrast in CONTRASTS:
        pair = contrast.world, contrast.first, contrast.second
        estimate = difference(learnt, *pair)
        _, p = paired_t_test(*(values(learnt, contrast.world, name) for name in pair[1:]))
        outside = max(estimate.p_above(-MARGIN), estimate.p_below(MARGIN))
        rows.append(
            {
                "world": contrast.world,
                "question": contrast.question,
                "difference": f"{contrast.first} - {contrast.second}",
                "points": estimate.mean,
                "low": estimate.low(0.025),
                "high": estimate.high(0.025),
                "p": p,
                "equivalent": outside,
            }
        )
    return pd.DataFrame(rows).set_index("world")


def texts(found: pd.DataFrame) -> pd.DataFrame:
    """A `table` for readers: the interval as words, p-values with their decimals."""
    between = [f"{low:.2f} to {high:.2f}" for low, high in found[["low", "high"]].to_numpy()]
    shown = found[["question", "difference", "points"]].assign(interval=between)
    shown["p"] = found["p"].map(p_text)
    shown[f"p outside ±{MARGIN:.0f}"] = found["equivalent"].map(p_text)
    return shown

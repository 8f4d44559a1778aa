"""Which queries a gain comes from: apart by how far the teacher is ahead of the student there.

S seeds, Q queries; reciprocal ranks in points, 100 for a relevant passage at rank 1.
"""

import numpy as np
import pandas as pd

from leadkit.results.contrasts import ClaimTest, pair
from leadkit.results.evidence import Points, shared_seeds
from leadkit.results.tables import difference_text

TEACHER, ALONE = "CB teacher", "student, as long"
LEVEL = 10.0  # points; two that are no further apart on a query are level there
STRATA = {"teacher behind": -1, "level": 0, "teacher ahead": 1}  # the sign of its lead


def lead(points: Points) -> np.ndarray:
    """(Q,): the teacher's points minus those of the student that trains alone, seeds averaged.

    ValueError where the two share no seed.
    """
    seeds = _seeds(points, TEACHER, ALONE)
    return np.mean([points[TEACHER, seed] - points[ALONE, seed] for seed in seeds], axis=0)


def groups(points: Points) -> dict[str, np.ndarray]:
    """Stratum, or "all" -> which of the queries are in it, (Q,)."""
    ahead = lead(points)  # (Q,)
    side = np.sign(ahead) * (np.abs(ahead) > LEVEL)  # (Q,)
    return {stratum: side == sign for stratum, sign in STRATA.items()} | {
        "all": np.full(len(side), True)
    }


def shares(points: Points) -> pd.Series:
    """Stratum, or "all" -> share of the queries that are in it."""
    return pd.Series({stratum: chosen.mean() for stratum, chosen in groups(points).items()})


def gains(points: Points, first: str, second: str) -> pd.DataFrame:
    """Stratum, or "all" -> share of the queries, difference first - second, low, high, seeds.

    The interval is the ledger's, with the strata taken as given; NaN with fewer than two queries.
    ValueError without common seeds, and for an experiment that `lead` compares: the noise that put
    a query into its stratum would count as its gain.
    """
    if {first, second} & {TEACHER, ALONE}:
        raise ValueError(
            f"{first} - {second}: {TEACHER} and {ALONE} made the strata, so their gain is biased"
        )
    seeds = _seeds(points, first, second)
    values = {name: np.stack([points[name, seed] for seed in seeds]) for name in (first, second)}
    rows = {}
    for stratum, chosen in groups(points).items():
        there = {name: each[:, chosen] for name, each in values.items()}  # (S, chosen queries)
        test = pair(first, second).test(there) if chosen.sum() > 1 else ClaimTest()
        bounds = dict(zip(("low", "high"), test.interval(), strict=True))
        rows[stratum] = {"share": chosen.mean(), "difference": test.difference, **bounds}
    return pd.DataFrame(rows).T.assign(seeds=len(seeds))


def with_shares(measured: pd.DataFrame, other: pd.DataFrame) -> float:
    r"""The gain that the strata of `measured` would add up to with the shares of `other`.

    $$\sum_s \mathrm{share}_s^{other}\, \Delta_s$$
    """
    strata = list(STRATA)
    return float((other.loc[strata, "share"] * measured.loc[strata, "difference"]).sum())


def texts(measured: pd.DataFrame) -> pd.Series:
    """`gains` as "0.81 (0.41 to 1.21)", by stratum; "" where there is none."""
    lines = measured[["difference", "low", "high", "seeds"]]
    return pd.Series({stratum: difference_text(*line) for stratum, line in lines.iterrows()})


def _seeds(points: Points, *experiments: str) -> list[int]:
    seeds = shared_seeds(points, experiments)
    if not seeds:
        raise ValueError(f"{' and '.join(experiments)} share no seed, so no query can be compared")
    return seeds

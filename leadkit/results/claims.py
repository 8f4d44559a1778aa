"""The ledger: a verdict on each claim, from result records.

Both the queries that were asked and the seeds that were trained are chance, so both are random in
the intervals and in the tests. S seeds, Q queries.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from leadkit.results.comparable import check, per_query
from leadkit.results.predicates import CLAIMS, Claim
from leadkit.results.records import Records
from leadkit.results.statistics import holm, resample_queries

# With fewer seeds, or a larger corrected p, a claim is undecided.
SEEDS = 5
ALPHA = 0.05


def points(records: Records) -> dict[tuple[str, int], np.ndarray]:
    """(experiment, seed) -> MRR@10 of each query (Q,) in points.

    ValueError where the records cannot be judged together.
    """
    rows = [row for found in records.values() for row in found]
    check(rows)
    return {(row["experiment"], row["seed"]): 100 * per_query(row) for row in rows}


def shared_seeds(values: Iterable[tuple[str, int]], experiments: Iterable[str]) -> list[int]:
    """The seeds that all these experiments have among the keys of `points`."""
    having = [{seed for name, seed in values if name == experiment} for experiment in experiments]
    return sorted(set.intersection(*having))


class Evidence:
    """Records that are judged together, with their means over resampled queries.

    draws: samples of queries; every record meets the same ones. ValueError where there is one seed.
    """

    def __init__(self, records: Records, draws: int = 10_000, seed: int = 0):
        self.values = points(records)
        seeds = {seed for _, seed in self.values}
        if len(seeds) < 2:
            raise ValueError(
                f"the records are of {len(seeds)} seed(s): a ledger needs at least two"
            )
        stacked = np.stack(list(self.values.values()))  # (R, Q)
        means = resample_queries(stacked, draws, seed)  # (draws, R)
        self.resampled = dict(zip(self.values, means.T, strict=True))  # {...: (draws,)}
        self.draws = draws
        self.seed = seed

    def judge(self, claim: Claim) -> dict[str, float]:
        """A claim's difference, its 95% interval (low, high), p, and the number of shared seeds.

        The interval is that of percentiles over a hierarchical bootstrap: seeds and then queries
        with replacement, the same ones for all experiments of a claim, the same queries for all
        seeds, as every seed meets every query (Owen, 2007). One seed: neither interval nor p.
        """
        seeds = shared_seeds(self.values, claim.experiments)
        judged = dict.fromkeys(("difference", "low", "high", "p"), np.nan) | {"seeds": len(seeds)}
        if not seeds:
            return judged
        values = {
            name: np.stack([self.values[name, seed] for seed in seeds])  # (S, Q)
            for name in claim.experiments
        }
        means = {name: v.mean() for name, v in values.items()}
        judged["difference"] = float(claim.statistic(means))
        if len(seeds) > 1:
            statistics = claim.statistic(self._resampled_means(claim.experiments, seeds))
            judged["low"], judged["high"] = np.percentile(statistics, (2.5, 97.5))
            judged["p"] = claim.p_value(values)
        return judged

    def _resampled_means(
        self, experiments: Iterable[str], seeds: list[int]
    ) -> dict[str, np.ndarray]:
        """Experiment -> its means (draws,) over seeds and queries that were drawn."""
        generator = np.random.default_rng((self.seed, 1))
        picks = generator.integers(len(seeds), size=(self.draws, len(seeds)))  # (draws, S)
        means = {}
        for name in experiments:
            by_seed = np.stack([self.resampled[name, s] for s in seeds], axis=1)  # (draws, S)
            means[name] = np.take_along_axis(by_seed, picks, axis=1).mean(1)  # (draws,)
        return means

    def ledger(self, claims: Iterable[Claim] = CLAIMS) -> pd.DataFrame:
        """One line per claim id, in points of MRR@10; its columns are those of `ledger`."""
        lines = {}
        for claim in claims:
            judged = self.judge(claim)
            head = {"table": claim.table, "claim": claim.sentence}
            head["verdict"] = "undecided" if judged["seeds"] else "not run"
            order = ("difference", "low", "high", "p")
            numbers = {name: judged[name] for name in order}
            lines[claim.id] = head | numbers | {"paper": claim.paper(), "seeds": judged["seeds"]}
        table = pd.DataFrame.from_dict(lines, orient="index")
        run = table["p"].notna()
        table.loc[run, "p"] = holm(table.loc[run, "p"].to_numpy())
        off_zero = (table["low"] > 0) | (table["high"] < 0)
        decided = (table["seeds"] >= SEEDS) & (table["p"] < ALPHA) & off_zero
        positive = table.loc[decided, "difference"] > 0
        table.loc[decided, "verdict"] = np.where(positive, "holds", "contradicted")
        return table


def ledger(
    records: Records,
    draws: int = 10_000,
    seed: int = 0,
    claims: Iterable[Claim] = CLAIMS,
) -> pd.DataFrame:
    """Judge each claim by the records: one line per claim id, in points of MRR@10.

    difference, low, high: the claim's statistic and its 95% interval (`Evidence.judge`).
    p: `Claim.p_value`, Holm-corrected over all claims that were run.
    paper: the statistic of the paper's MS MARCO passage numbers.
    seeds: those that all the claim's experiments share.
    verdict: holds or contradicted, by the sign of the difference, where p < 0.05, the interval is
    off zero and there are 5 seeds; undecided otherwise; not run where an experiment is missing.
    """
    return Evidence(records, draws, seed).ledger(claims)

"""Records that are judged together. S seeds, Q queries."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from leadkit.results.comparable import MEASURE, check, per_query
from leadkit.results.contrasts import Claim, ClaimTest, pair
from leadkit.results.records import Records

Points = dict[tuple[str, int], np.ndarray]  # (experiment, seed) -> values (Q,)


def points(records: Records, measure: str = MEASURE) -> Points:
    """A measure of each query in points, of the records that keep it.

    ValueError where the records cannot be judged together.
    """
    rows = [row for experiment in records.values() for row in experiment]
    check(rows)
    return {
        (row["experiment"], row["seed"]): 100 * per_query(row, measure)
        for row in rows
        if measure in row["per_query"]
    }


def shared_seeds(values: Iterable[tuple[str, int]], experiments: Iterable[str]) -> list[int]:
    """The seeds that all these experiments have among the keys of `points`."""
    having = [{seed for name, seed in values if name == experiment} for experiment in experiments]
    return sorted(set.intersection(*having))


class Evidence:
    """The per-query values of records, by measure. ValueError where there are no records."""

    def __init__(self, records: Records):
        self.records = _with_own_k(records)
        # The largest K that was run, at least 2; 6 where none was: Table 4 goes so far.
        self.layers = max(2, *_every_k(self.records)) if _every_k(records) else 6
        self._points = {MEASURE: points(self.records)}
        if not self._points[MEASURE]:
            raise ValueError("there are no records: a ledger needs those of one seed at least")

    def test(self, claim: Claim) -> ClaimTest:
        """The claim's test on the seeds that its experiments share."""
        if claim.measure not in self._points:
            self._points[claim.measure] = points(self.records, claim.measure)
        known = self._points[claim.measure]
        seeds = shared_seeds(known, claim.experiments)
        if not seeds:
            return ClaimTest()
        return claim.test(
            {
                name: np.stack([known[name, seed] for seed in seeds])  # (S, Q)
                for name in claim.experiments
            }
        )

    def differences(
        self, compared: Mapping[tuple, tuple[str, str]], names: Sequence[str]
    ) -> pd.DataFrame:
        """A line per pair of experiments that was run: difference, low, high, seeds; in points.

        compared: the line's key, one value for each of `names` -> the two experiments. The interval
        is the ledger's: seeds and queries are random, with one seed the queries alone.
        """
        lines = []
        for key, (first, second) in compared.items():
            test = self.test(pair(first, second))
            if test:
                lines.append((*key, test.difference, *test.interval(), test.seeds))
        columns = [*names, "difference", "low", "high", "seeds"]
        return pd.DataFrame(lines, columns=columns).set_index([*names])


def _every_k(records: Records) -> list[int]:
    """The K of the rows of Table 4."""
    matches = (re.fullmatch(r"K=(\d+)", name) for name in records)
    return [int(match[1]) for match in matches if match]


def _with_own_k(records: Records) -> Records:
    """The records, "CB LEAD" under the name of its K too: Table 4 does not run that K again."""
    rows = records.get("CB LEAD", [])
    described = rows[0].get("stage") or {} if rows else {}
    k = described.get("retriever", {}).get("method", {}).get("k")
    if k is None:
        return records
    name = f"K={k}"
    return {name: [row | {"experiment": name} for row in rows]} | records

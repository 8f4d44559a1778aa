"""The ledger: a verdict on each claim, from result records.

Both the queries that were asked and the seeds that were trained are chance, so both are random in
the intervals and in the tests.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from leadkit.results import gates
from leadkit.results.contrasts import Claim
from leadkit.results.evidence import Evidence
from leadkit.results.predicates import claims_for
from leadkit.results.records import Records
from leadkit.results.statistics import holm

# With fewer seeds, or a larger corrected p, a claim is undecided.
SEEDS = 5
ALPHA = 0.05

HOLDS = "holds"
SMALLER = "smaller than the paper's"
RULED_OUT = "ruled out"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_TESTABLE = "not testable"
NOT_RUN = "not run"
VERDICTS = (HOLDS, SMALLER, RULED_OUT, CONTRADICTED, UNDECIDED, NOT_TESTABLE, NOT_RUN)


def ledger(records: Records, claims: Iterable[Claim] | None = None) -> pd.DataFrame:
    """Judge each claim by the records: one line per claim id, in points of its measure.

    claims: by default those of `predicates.claims_for` the largest K that was run.

    difference, low, high: the claim's statistic and its 95% interval, from the crossed test; with
        one seed over queries only.
    p: of that test against 0; p of size: against the paper's effect. Both are Holm-corrected over
        the claims of the family that were run and are testable, each by itself.
    visible: the smallest effect that is seen with 80% power at 5% divided by the number of those
        claims, Holm's first level.
    paper: the statistic of the paper's MS MARCO passage numbers; ratio: visible / paper, below 1
        where the paper's effect could have been seen.
    seeds: those that all the claim's experiments share.
    gate: figures of the gates that its teachers fail, or which gates were not measured.
    verdict: see `verdict`.
    """
    evidence = Evidence(records)
    if claims is None:
        claims = claims_for(evidence.layers)
    measured = gates.measure(evidence)
    table = pd.DataFrame([_line(claim, evidence, measured) for claim in claims]).set_index("id")
    table.index.name = None
    judged = table["test"].map(bool) & ~table["failed"]
    for _, family in table[judged].groupby("family"):
        _correct(table, family)
    table["ratio"] = table["visible"] / table["effect"]
    table["verdict"] = [verdict(line) for _, line in table.iterrows()]
    return table.drop(columns=["test", "effect", "failed"])


def _line(claim: Claim, evidence: Evidence, measured: pd.DataFrame) -> dict[str, object]:
    """A claim's line before what depends on its family."""
    test = evidence.test(claim)
    low, high = test.interval(ALPHA)
    failed, gate = gates.told(measured, claim.experiments)
    return {
        "id": claim.id,
        "family": claim.family,
        "table": claim.table,
        "claim": claim.sentence,
        "verdict": "",
        "difference": test.difference,
        "low": low,
        "high": high,
        "p": np.nan,
        "p of size": np.nan,
        "visible": np.nan,
        "paper": claim.paper(),
        "ratio": np.nan,
        "seeds": test.seeds,
        "gate": gate if test else "",
        "test": test,
        "effect": claim.effect(),
        "failed": failed,
    }


def _correct(table: pd.DataFrame, family: pd.DataFrame) -> None:
    """Write p, p of size and the visible effect of the claims of one family."""
    tests = family["test"]
    table.loc[family.index, "p"] = holm(np.array([test.p() for test in tests]))
    level = ALPHA / len(family)
    table.loc[family.index, "visible"] = [test.visible(level) for test in tests]
    sized = family[family["effect"].notna()]
    against = [test.p(effect) for test, effect in zip(sized["test"], sized["effect"], strict=True)]
    table.loc[sized.index, "p of size"] = holm(np.array(against))


def verdict(line: pd.Series) -> str:
    """The verdict on a line of the ledger.

    not run: an experiment is missing. not testable: a teacher fails its gate.
    undecided: fewer than 5 seeds, or neither p is below 5%.
    By p: contradicted where the difference is negative; holds where it is positive, but smaller
    than the paper's where it is below the paper's effect and p of size is below 5% too.
    By p of size alone: ruled out, an effect of the paper's size; the sign is open.
    """
    if not line["seeds"]:
        return NOT_RUN
    if line["failed"]:
        return NOT_TESTABLE
    if line["seeds"] < SEEDS:
        return UNDECIDED
    smaller = line["difference"] < line["effect"] and line["p of size"] < ALPHA
    if line["p"] < ALPHA:
        if line["difference"] < 0:
            return CONTRADICTED
        return SMALLER if smaller else HOLDS
    return RULED_OUT if smaller else UNDECIDED

"""What LEAD's paper claims, and PROD's and MTA4DPR's: each claim as a predicate over result records.

A claim is about differences of MRR@10 over the same queries. Two things in them are chance, the queries that were asked and the
seeds that were trained, so both are random in the intervals and in the tests. S seeds, Q queries, R records.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from leadkit.results import paper

RESULTS = Path(__file__).parent.parent / "data" / "results"
MEASURE = "RR@10"  # the paper's MRR@10
SEEDS, ALPHA = 5, 0.05  # with fewer seeds or a larger corrected p, a claim is undecided
TEACHERS = ("DE", "CB", "CE")

# --- claims


@dataclass(frozen=True)
class Claim:
    """In at least one of the `ways`, the first experiment of every pair has the higher MRR@10.

    "A > B" is one way of one pair, "A beats all others" one way of several pairs, "the best K is 5 or 6" two ways of four pairs.
    """

    id: str
    table: int | str  # of LEAD's paper, or the other method
    sentence: str
    ways: tuple[tuple[tuple[str, str], ...], ...]

    @property
    def experiments(self) -> list[str]:
        return list(dict.fromkeys(name for way in self.ways for pair in way for name in pair))

    def statistic(self, means: Mapping[str, float | np.ndarray]) -> np.ndarray:
        r"""Positive exactly where the claim is true of these MRR@10 (numbers, or arrays of one shape), and by how much:

        $$T = \max_{w \in \mathrm{ways}} \; \min_{(a, b) \in w} \; (\mu_a - \mu_b)$$
        """
        return np.max(
            [np.min([means[a] - means[b] for a, b in way], axis=0) for way in self.ways], axis=0
        )

    def paper(self, collection: str = "MS-Pas", measure: str = "MRR@10") -> float:
        """The statistic of the paper's own numbers, NaN where the table lacks them."""
        column = paper.TABLES[self.table].get((collection, measure))
        return np.nan if column is None else float(self.statistic(column.reindex(self.experiments)))

    def p_value(self, values: Mapping[str, np.ndarray]) -> float:
        """Two-sided p against T = 0 from values (S, Q) of each experiment, S > 1; each pair is judged by a `crossed_t_test`.

        A way is shown when its weakest pair is (intersection-union test: Berger, 1982) and refuted when one of its J pairs is
        (Bonferroni: J times the smallest p). The claim holds when one of its A ways is shown (Bonferroni: A times) and fails when
        all are refuted.
        """
        tests = [
            np.array([crossed_t_test(values[a] - values[b]) for a, b in way]) for way in self.ways
        ]  # A x (J, 2)
        holds = len(tests) * min(pairs[:, 0].max() for pairs in tests)
        fails = max(len(pairs) * pairs[:, 1].min() for pairs in tests)
        return min(1.0, 2 * min(holds, fails))


def _claim(id: str, table: int | str, sentence: str, *ways: tuple[tuple[str, str], ...]) -> Claim:
    return Claim(id.lower(), table, sentence, ways)


def _beats(name: str, *others: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, other) for other in others)


_KS = ("K=1", "K=2", "K=3", "K=4", "CB LEAD", "K=6")
_ITERATIONS = tuple(f"MTA4DPR iteration {i}" for i in (1, 2, 3))
_STEPS = ("PROD* 12DE", "PROD* 12CB", "PROD* 12CE")
CLAIMS = (
    _claim(
        "larger-pair",
        1,
        "the larger pair, 24CB -> 12DE, beats the smaller (Tables 1, 2)",
        _beats("larger LEAD", "CB LEAD"),
    ),
    *(
        _claim(
            f"{t}-lead-student", 3, f"{t} teacher: LEAD > student", _beats(f"{t} LEAD", "student")
        )
        for t in TEACHERS
    ),
    *(
        _claim(f"{t}-lead-rd", 3, f"{t} teacher: LEAD > RD", _beats(f"{t} LEAD", f"{t} RD"))
        for t in TEACHERS
    ),
    *(
        _claim(f"{t}-rd-fd", 3, f"{t} teacher: RD > FD", _beats(f"{t} RD", f"{t} FD"))
        for t in TEACHERS
    ),
    _claim(
        "best-teacher",
        3,
        "CB is the best teacher for LEAD",
        _beats("CB LEAD", "DE LEAD", "CE LEAD"),
    ),
    # one way for each teacher s that may be the strongest and each other t whose student may be better
    _claim(
        "strongest-teacher",
        3,
        "the strongest teacher does not give the best student",
        *(
            _beats(f"{s} teacher", *(f"{o} teacher" for o in TEACHERS if o != s))
            + _beats(f"{t} LEAD", f"{s} LEAD")
            for s in TEACHERS
            for t in TEACHERS
            if t != s
        ),
    ),
    _claim("worst-k", 4, "K = 1 is the worst", tuple((k, "K=1") for k in _KS[1:])),
    _claim("best-k", 4, "the best K is 5 or 6", *(_beats(k, *_KS[:4]) for k in _KS[4:])),
    *(
        _claim(f"random-{name}", 5, f"Random > {name}", _beats("CB LEAD", name))
        for name in ("Weighted", "Last", "Skip")
    ),
    _claim(
        "joint",
        6,
        "LEAD > LEAD without joint training",
        _beats("CB LEAD", "without joint training"),
    ),
    _claim(
        "re-weighting",
        6,
        "LEAD > LEAD without re-weighting",
        _beats("CB LEAD", "without re-weighting"),
    ),
    # (LEAD - without re-weighting) - (LEAD - without joint training): LEAD cancels
    _claim(
        "second-drop",
        6,
        "re-weighting counts for more than joint training",
        _beats("without joint training", "without re-weighting"),
    ),
    _claim(
        "re-weighting-rd",
        6,
        "LEAD without re-weighting > RD",
        _beats("without re-weighting", "CB RD"),
    ),
    *(
        _claim(f"linear-{m}", 7, f"a linear layer lowers {m}", _beats(f"CB {m}", f"linear {m}"))
        for m in ("RD", "FD", "LEAD")
    ),
    _claim(
        "linear-best",
        7,
        "LEAD + linear is the best of the three",
        _beats("linear LEAD", "linear RD", "linear FD"),
    ),
    _claim(
        "best-start",
        8,
        "bottlenecked pre-training is the best start",
        _beats("bottlenecked start", "masked LM start", "CB LEAD"),
    ),
    _claim(
        "prod-steps",
        9,
        "PROD* improves at each step",
        tuple(zip(_STEPS, ("student", *_STEPS[:2]), strict=True)),
    ),
    _claim(
        "prod-lead",
        9,
        "PROD* + LEAD > PROD* at each step",
        tuple((step.replace("*", "* + LEAD"), step) for step in _STEPS),
    ),
    *(
        _claim(
            f"{t}-after",
            10,
            f"the {t} teacher improves after LEAD",
            _beats(f"{t} teacher after LEAD", f"{t} teacher"),
        )
        for t in TEACHERS
    ),
    _claim("prod-student", "PROD", "PROD > student", _beats("PROD", "student")),
    _claim(
        "prod-direct",
        "PROD",
        "three teachers in turn > the strongest at once, as long",
        _beats("PROD stage 3", "PROD direct"),
    ),
    _claim("prod-data", "PROD", "the data stage adds", _beats("PROD", "PROD stage 3")),
    _claim(
        "assistants",
        "MTA4DPR",
        "with assistants > without",
        _beats("MTA4DPR iteration 3", "MTA4DPR without assistants"),
    ),
    _claim(
        "iterations",
        "MTA4DPR",
        "a later iteration is better",
        tuple(zip(_ITERATIONS[1:], _ITERATIONS[:2], strict=True)),
    ),
    # the authors' future work
    _claim(
        "assistants-lead",
        "MTA4DPR",
        "layer features add",
        _beats("MTA4DPR + LEAD", "MTA4DPR iteration 3"),
    ),
)

# --- records


def read_records(folder: Path) -> dict[str, list[dict]]:
    """Experiment -> its records, seed by seed, of a folder that `recipes.save_records` wrote."""
    found: dict[str, list[dict]] = {}
    for record in sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda r: r["seed"]
    ):
        found.setdefault(record["experiment"], []).append(record)
    return found


def settings(described: object, path: str = "") -> dict[str, object]:
    """Every field of a record's stage that is no seed, by its path, e.g. "retriever.student.tower.bf16"."""
    if not isinstance(described, dict):
        return {path: described}
    found = (
        settings(value, f"{path}.{name}".strip("."))
        for name, value in described.items()
        if name != "seed"
    )
    return {name: value for part in found for name, value in part.items()}


def _same_settings(name: str, records: list[dict]) -> None:
    """ValueError where the records of one experiment differ in more than their seeds."""
    first, *others = records
    ours = settings(first.get("stage"))
    for other in others:
        theirs = settings(other.get("stage"))
        for field in sorted(ours.keys() | theirs.keys()):
            if ours.get(field) != theirs.get(field):
                raise ValueError(
                    f"the records of {name!r} differ in more than their seeds: {field} is {ours.get(field)!r} with "
                    f"seed {first['seed']}, {theirs.get(field)!r} with seed {other['seed']}"
                )


def points(records: dict[str, list[dict]]) -> dict[tuple[str, int], np.ndarray]:
    """(experiment, seed) -> MRR@10 of each query (Q,) in points. ValueError where the records cannot be judged together."""
    values, kinds, precisions = {}, {}, {}
    for name, record in ((name, record) for name, found in records.items() for record in found):
        which = f"the record of {name!r}, seed {record.get('seed', 'unknown')},"
        missing = [
            key
            for key in ("seed", "collection", "fingerprint", "split", "per_query")
            if key not in record
        ]
        if missing or MEASURE not in record["per_query"]:
            raise ValueError(f"{which} lacks {(missing or [MEASURE])[0]}")
        if (name, record["seed"]) in values:
            raise ValueError(
                f"{which} is there twice: one record per experiment and seed is wanted"
            )
        values[name, record["seed"]] = found = 100 * np.array(record["per_query"][MEASURE], float)
        if not np.isfinite(found).all():
            raise ValueError(f"{which} has a {MEASURE} that is no number")
        kind = (
            record["collection"],
            f"fingerprint {record['fingerprint']}",
            f"split {record['split']}",
            f"{len(found)} queries",
        )
        kinds.setdefault(kind, f"{', '.join(kind)} ({name}, seed {record['seed']})")
        for bf16 in {
            value
            for field, value in settings(record.get("stage")).items()
            if field.endswith(".bf16")
        }:
            precisions.setdefault(
                bf16, f"{'bfloat16' if bf16 else 'float32'} ({name}, seed {record['seed']})"
            )
    if len(kinds) > 1:
        raise ValueError(
            f"records of different collections or splits cannot be judged together: {'; '.join(kinds.values())}"
        )
    if (
        len(precisions) > 1
    ):  # a scale computes in bfloat16 where the processor can: this one was run on two kinds of machine
        raise ValueError(
            f"records of different precision cannot be judged together: {'; '.join(precisions.values())}"
        )
    for name, found in records.items():
        _same_settings(name, found)
    if len(seeds := {seed for _, seed in values}) < 2:
        raise ValueError(f"the records are of {len(seeds)} seed(s): a ledger needs at least two")
    return values


# --- verdicts


def crossed_t_test(differences: np.ndarray) -> tuple[float, float]:
    r"""One-sided p of (mean > 0, mean < 0) for differences (S, Q), seeds and queries both random (Judd, Westfall and Kenny, 2012):

    $$t = \bar x \Big/ \sqrt{(MS_s + \max(MS_q - MS_{sq}, 0)) / SQ}$$

    with the mean squares of seeds, queries and residual and Satterthwaite's degrees of freedom. It is the t-test over queries where
    the seeds agree, and that over seeds where the queries do. A t-test over queries of seed means (section 4.2.1) speaks of these S
    checkpoints only, so its p is the least that is given: seeds that agree, by chance, better than their noise lets them have a
    variance below zero, which would make all seeds surer than these. A bootstrap of five seeds rejects true nulls too often where
    seeds differ more than queries. There the approximate degrees of freedom are a little liberal too: simulated, 6% of true nulls
    at p < 0.05 and 0.6% at p < 0.0016.
    """
    S, Q = differences.shape
    mean, seeds, queries = (
        differences.mean(),
        differences.mean(1),
        differences.mean(0),
    )  # (), (S,), (Q,)
    residual = differences - seeds[:, None] - queries + mean  # (S, Q)
    df = np.array([S - 1, Q - 1, (S - 1) * (Q - 1)])
    squares = (
        np.array(
            [
                Q * ((seeds - mean) ** 2).sum(),
                S * ((queries - mean) ** 2).sum(),
                (residual**2).sum(),
            ]
        )
        / df
    )  # (3,)
    of_queries = squares[1]
    squares[1:] *= squares[1] >= squares[2]
    error = squares @ [1, 1, -1]
    if error < 1e-12:  # one difference everywhere
        return (0.5, 0.5) if abs(mean) < 1e-9 else (float(mean < 0), float(mean > 0))
    errors = (
        (error, error**2 / (squares**2 / df).sum()),
        (of_queries, Q - 1),
    )  # mean square and degrees of freedom
    tests = [
        (mean / np.sqrt(square / (S * Q)), df) for square, df in errors if square > 1e-12
    ]  # (t, df): crossed, over queries
    return max(
        ((float(student_t.sf(*test)), float(student_t.cdf(*test))) for test in tests), key=min
    )  # the less sure


def holm(p: np.ndarray) -> np.ndarray:
    r"""Holm's correction of p-values (m,): $\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})$."""
    order, corrected = np.argsort(p), np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * p[order]))
    return corrected


def resample_queries(values: np.ndarray, draws: int, seed: int = 0, chunk: int = 250) -> np.ndarray:
    """Means (draws, R) of values (R, Q) over Q queries drawn with replacement, the same queries for all R."""
    draw, queries, means = np.random.default_rng((seed, 0)), values.shape[1], []
    for start in range(0, draws, chunk):
        n = min(chunk, draws - start)
        drawn = (
            draw.integers(queries, size=(n, queries)) + queries * np.arange(n)[:, None]
        )  # (n, Q)
        counts = np.bincount(drawn.ravel(), minlength=n * queries).reshape(
            n, queries
        )  # (n, Q): how often each query was drawn
        means.append(counts.astype(float) @ values.T / queries)  # (n, R)
    return np.concatenate(means)


def ledger(
    records: dict[str, list[dict]],
    draws: int = 10_000,
    seed: int = 0,
    claims: tuple[Claim, ...] = CLAIMS,
) -> pd.DataFrame:
    """Judge each claim by the records, {experiment: one record per seed}: one line per claim id, in points of MRR@10.

    difference, paper: the claim's statistic, of the means over seeds and queries, and of the paper's MS MARCO passage numbers.
    low, high: 95% percentile interval of the statistic over a hierarchical bootstrap, seeds and then queries with replacement:
    the same ones for all experiments of a claim, the same queries for all seeds as every seed meets every query (Owen, 2007).
    p: `Claim.p_value`, Holm-corrected over all claims that were run. seeds: those that all the claim's experiments share.
    verdict: holds or contradicted, by the sign of the difference, where p < 0.05, the interval is off zero and there are 5 seeds;
    undecided otherwise; not run where an experiment is missing. A claim with one seed has neither interval nor p.
    """
    values = points(records)
    drawn = dict(
        zip(values, resample_queries(np.stack(list(values.values())), draws, seed).T, strict=True)
    )  # {...: (draws,)}
    lines = {}
    for claim in claims:
        seeds = sorted(
            set.intersection(
                *(
                    {s for name, s in values if name == experiment}
                    for experiment in claim.experiments
                )
            )
        )
        own = {
            name: np.stack([values[name, s] for s in seeds]) for name in claim.experiments if seeds
        }  # {...: (S, Q)}
        difference, low, high, p = np.nan, np.nan, np.nan, np.nan
        if seeds:
            difference = claim.statistic({name: v.mean() for name, v in own.items()})
        if len(seeds) > 1:
            picks = np.random.default_rng((seed, 1)).integers(
                len(seeds), size=(draws, len(seeds))
            )  # (draws, S)
            by_seed = {
                name: np.stack([drawn[name, s] for s in seeds], axis=1) for name in own
            }  # {...: (draws, S)}
            means = {
                name: np.take_along_axis(v, picks, axis=1).mean(1) for name, v in by_seed.items()
            }  # {...: (draws,)}
            low, high = np.percentile(claim.statistic(means), (2.5, 97.5))
            p = claim.p_value(own)
        lines[claim.id] = {
            "table": claim.table,
            "claim": claim.sentence,
            "verdict": "undecided" if seeds else "not run",
            "difference": difference,
            "low": low,
            "high": high,
            "p": p,
            "paper": claim.paper(),
            "seeds": len(seeds),
        }
    table = pd.DataFrame.from_dict(lines, orient="index")
    run = table["p"].notna()
    table.loc[run, "p"] = holm(table.loc[run, "p"].to_numpy())
    decided = (
        (table["seeds"] >= SEEDS)
        & (table["p"] < ALPHA)
        & ((table["low"] > 0) | (table["high"] < 0))
    )
    table.loc[decided, "verdict"] = np.where(
        table.loc[decided, "difference"] > 0, "holds", "contradicted"
    )
    return table

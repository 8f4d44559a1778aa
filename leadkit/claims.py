"""What the paper claims: its own numbers, and each claim as a predicate over result records.

A claim is about differences of MRR@10 over the same queries. Two things in them are chance, the queries that were asked and the
seeds that were trained, so both are random in the intervals and in the tests. S seeds, Q queries, R records.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

RESULTS = Path(__file__).parent.parent / "data" / "results"
MEASURE = "RR@10"  # the paper's MRR@10
SEEDS, ALPHA = 5, 0.05  # with fewer seeds or a larger corrected p, a claim is undecided
TEACHERS = ("DE", "CB", "CE")

# --- the paper's numbers, in percent; rows are named as our experiments where there is one

_MS_PAS, _MS_DOC = {"MS-Pas": "MRR@10 MAP@1k R@1k"}, {"MS-Doc": "MRR@10 MAP@100 R@100"}
_PAS = _MS_PAS | {"TREC-Pas-19": "nDCG@10 MAP@1k", "TREC-Pas-20": "nDCG@10 MAP@1k"}
_DOC = _MS_DOC | {"TREC-Doc-19": "nDCG@10 R@100", "TREC-Doc-20": "nDCG@10 R@100"}
_BOTH = {"MS-Pas": "MRR@10 MAP@1k", "MS-Doc": "MRR@10 MAP@100"}


def _table(columns: dict[str, str], rows: str) -> pd.DataFrame:
    """Lines of a row's name and its numbers ("-" where the paper has none), under (collection, measure)."""
    header = [(collection, measure) for collection, measures in columns.items() for measure in measures.split()]
    lines = [line.strip().rsplit(maxsplit=len(header)) for line in rows.strip().splitlines()]
    values = [[np.nan if x == "-" else float(x) for x in numbers] for _, *numbers in lines]
    return pd.DataFrame(values, [name for name, *_ in lines], pd.MultiIndex.from_tuples(header))


PAPER = {
    1: _table(_PAS, """
        BM25                     18.7  19.6  85.7   49.7  29.0   48.7  28.8
        DeepCT                   24.3  25.0  91.0   55.0  34.1   55.6  34.3
        docT5query               27.2  28.1  94.7   64.2  40.3   61.9  40.7
        ANCE                     33.0  33.6  95.9   64.8  37.1   64.6  40.8
        ADORE                    34.7  35.2  -      68.3  41.9   66.6  44.2
        ColBERT                  36.0  -     96.8   -     -      -     -
        Condenser                36.6  -     97.4   69.8  -      -     -
        coCondenser              38.2  -     98.4   71.7  -      68.4  -
        Margin-MSE               32.5  33.1  95.7   69.9  40.5   64.5  41.6
        TAS-B                    34.4  35.1  97.6   71.7  44.7   68.5  45.5
        SPLADE v2                36.8  -     97.9   72.9  -      -     -
        CL-DRD                   38.2  38.6  -      72.5  45.3   68.7  46.5
        TCT-ColBERT              33.5  34.2  96.4   67.0  39.1   66.8  43.0
        RocketQA v2              38.8  -     98.1   -     -      -     -
        AR2                      39.5  -     98.6   -     -      -     -
        ColBERT v2               39.7  -     98.4   -     -      -     -
        ERNIE-Search             40.1  -     98.2   -     -      -     -
        CB LEAD                  37.8  38.3  97.4   70.4  43.0   68.9  44.1
        larger LEAD              40.4  40.9  99.0   72.5  48.8   71.2  48.8"""),
    2: _table(_DOC, """
        BM25                     27.9  -     80.7   51.9  39.5   -     -
        ME-BERT                  34.6  -     -      61.0  -      -     -
        ANCE                     37.7  -     89.4   61.0  27.3   -     -
        STAR                     39.0  -     91.3   60.5  31.3   -     -
        COIL-full                39.7  -     -      63.6  -      -     -
        ADORE                    40.5  -     91.9   62.8  31.7   -     -
        CB LEAD                  40.0  40.9  88.6   63.8  28.9   60.1  46.2
        larger LEAD              41.3  42.1  91.9   64.0  32.5   62.1  51.4"""),
    3: _table(_PAS | _DOC, """
        student     32.62 33.30 96.45  64.76 41.35  64.38 39.47   36.39 37.36 86.33  61.44 27.71  56.66 46.26
        DE teacher  36.45 37.04 98.31  67.93 45.18  67.54 44.28   39.88 40.79 90.31  62.36 30.73  61.51 52.75
        DE FD       33.50 34.10 95.69  63.97 38.93  63.75 38.21   35.84 36.78 84.38  59.93 26.33  55.51 43.39
        DE RD       35.36 35.99 96.99  69.04 42.05  66.31 40.85   38.70 39.63 87.92  63.02 28.31  57.00 42.87
        DE LEAD     36.26 36.85 96.51  68.91 42.11  66.26 41.49   39.68 40.61 88.00  63.76 27.57  59.33 44.10
        CB teacher  39.46 40.02 98.31  72.03 48.24  72.82 51.52   41.58 42.44 90.31  65.69 30.73  62.04 52.75
        CB FD       33.92 34.56 96.12  63.69 38.93  65.54 39.71   36.01 36.95 84.94  59.12 26.20  56.92 43.08
        CB RD       36.02 36.62 97.18  67.88 42.57  67.06 42.19   38.45 39.37 87.98  62.11 27.88  59.09 45.70
        CB LEAD     37.80 38.32 97.42  70.44 43.01  68.92 44.09   40.00 40.93 88.63  63.79 28.90  60.05 46.20
        CE teacher  40.54 41.10 98.31  72.58 49.78  72.96 51.00   41.68 42.55 90.31  61.36 30.73  58.73 52.75
        CE FD       34.18 34.81 95.52  65.85 40.78  65.43 40.00   36.42 37.32 84.25  59.26 25.92  53.82 39.66
        CE RD       35.74 36.31 96.55  67.98 40.34  64.68 39.89   36.78 37.59 81.29  59.12 26.24  54.00 37.47
        CE LEAD     36.73 37.23 96.13  69.12 41.05  66.63 40.12   37.35 38.24 84.77  60.25 28.69  54.82 39.93"""),
    4: _table(_BOTH, """
        K=1                      37.04 37.62   39.46 40.37
        K=2                      37.53 38.05   39.73 40.65
        K=3                      37.59 38.06   39.63 40.57
        K=4                      37.66 38.17   39.90 40.80
        CB LEAD                  37.80 38.32   39.98 40.88
        K=6                      37.68 38.13   40.00 40.93"""),  # CB LEAD is K = 5
    5: _table(_MS_PAS, """
        CB LEAD                  37.80 38.32 97.42
        Weighted                 37.13 37.67 97.38
        Last                     37.05 37.61 97.08
        Skip                     37.18 37.73 97.05"""),  # CB LEAD is Random
    6: _table(_MS_PAS, """
        CB LEAD                  37.80 38.32 97.42
        without joint training   37.24 37.79 97.12
        without re-weighting     36.46 37.06 97.08
        CB RD                    36.02 36.62 97.18"""),
    7: _table({"MS-Pas": "MRR@10 MAP@1k"}, """
        CB RD                    36.02 36.62
        linear RD                34.53 35.10
        CB FD                    33.92 34.56
        linear FD                33.20 33.84
        CB LEAD                  37.80 38.32
        linear LEAD              36.32 36.94"""),
    # 24CB -> 12DE from ERNIE-2.0-Base, coCondenser and MASTER; ours is the smaller pair from a student of the same kind
    8: _table(_PAS | _DOC, """
        masked LM start     38.52 39.08 97.69  74.13 46.08  67.96 44.24   40.75 41.65 88.71  61.34 27.07  57.87 45.87
        CB LEAD             38.96 39.52 98.61  71.13 45.75  68.69 45.24   40.90 41.81 90.58  61.99 31.44  60.99 49.81
        bottlenecked start  40.40 40.90 98.98  72.54 48.81  71.23 48.75   41.25 42.14 91.88  64.01 32.50  62.08 51.44"""),
    9: _table({"MS-Pas": "MRR@10 MAP@1k"}, """
        DE teacher               36.45 37.04
        CB teacher               39.46 40.02
        CE teacher               40.54 41.10
        student                  32.62 33.30
        PROD* 12DE               35.36 36.00
        PROD* 12CB               35.92 36.58
        PROD* 12CE               36.30 36.92
        PROD* + LEAD 12DE        36.26 36.85
        PROD* + LEAD 12CB        37.64 38.18
        PROD* + LEAD 12CE        37.82 38.34"""),
    10: _table(_BOTH, """
        DE teacher               36.45 37.04   39.88 40.79
        DE teacher after LEAD    37.66 38.21   40.97 41.85
        CB teacher               39.46 40.02   41.58 42.44
        CB teacher after LEAD    40.49 41.00   41.94 42.79
        CE teacher               40.54 41.10   41.68 42.55
        CE teacher after LEAD    41.35 41.87   43.12 43.93"""),
}


def paper(table: int, row: str) -> pd.Series:
    """(collection, measure) -> the paper's number of this row, in percent: `paper(3, "CB LEAD")["MS-Pas", "MRR@10"]` is 37.8."""
    if table not in PAPER or row not in PAPER[table].index:
        known = f"use one of {', '.join(PAPER[table].index)}" if table in PAPER else "tables are 1 to 10"
        raise ValueError(f"the paper's Table {table} has no row {row!r}: {known}")
    return PAPER[table].loc[row]


# --- claims


@dataclass(frozen=True)
class Claim:
    """In at least one of the `ways`, the first experiment of every pair has the higher MRR@10.

    "A > B" is one way of one pair, "A beats all others" one way of several pairs, "the best K is 5 or 6" two ways of four pairs.
    """

    id: str
    table: int
    sentence: str
    ways: tuple[tuple[tuple[str, str], ...], ...]

    @property
    def experiments(self) -> list[str]:
        return list(dict.fromkeys(name for way in self.ways for pair in way for name in pair))

    def statistic(self, means: Mapping[str, float | np.ndarray]) -> np.ndarray:
        r"""Positive exactly where the claim is true of these MRR@10 (numbers, or arrays of one shape), and by how much:

        $$T = \max_{w \in \mathrm{ways}} \; \min_{(a, b) \in w} \; (\mu_a - \mu_b)$$
        """
        return np.max([np.min([means[a] - means[b] for a, b in way], axis=0) for way in self.ways], axis=0)

    def paper(self, collection: str = "MS-Pas", measure: str = "MRR@10") -> float:
        """The statistic of the paper's own numbers, NaN where the table lacks them."""
        column = PAPER[self.table].get((collection, measure))
        return np.nan if column is None else float(self.statistic(column))

    def p_value(self, values: Mapping[str, np.ndarray]) -> float:
        """Two-sided p against T = 0 from values (S, Q) of each experiment, S > 1; each pair is judged by a `crossed_t_test`.

        A way is shown when its weakest pair is (intersection-union test: Berger, 1982) and refuted when one of its J pairs is
        (Bonferroni: J times the smallest p). The claim holds when one of its A ways is shown (Bonferroni: A times) and fails when
        all are refuted.
        """
        tests = [np.array([crossed_t_test(values[a] - values[b]) for a, b in way]) for way in self.ways]  # A x (J, 2)
        holds = len(tests) * min(pairs[:, 0].max() for pairs in tests)
        fails = max(len(pairs) * pairs[:, 1].min() for pairs in tests)
        return min(1.0, 2 * min(holds, fails))


def _claim(id: str, table: int, sentence: str, *ways: tuple[tuple[str, str], ...]) -> Claim:
    return Claim(id.lower(), table, sentence, ways)


def _beats(name: str, *others: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, other) for other in others)


_KS = ("K=1", "K=2", "K=3", "K=4", "CB LEAD", "K=6")
_STEPS = ("PROD* 12DE", "PROD* 12CB", "PROD* 12CE")
CLAIMS = (
    _claim("larger-pair", 1, "the larger pair, 24CB -> 12DE, beats the smaller (Tables 1, 2)", _beats("larger LEAD", "CB LEAD")),
    *(_claim(f"{t}-lead-student", 3, f"{t} teacher: LEAD > student", _beats(f"{t} LEAD", "student")) for t in TEACHERS),
    *(_claim(f"{t}-lead-rd", 3, f"{t} teacher: LEAD > RD", _beats(f"{t} LEAD", f"{t} RD")) for t in TEACHERS),
    *(_claim(f"{t}-rd-fd", 3, f"{t} teacher: RD > FD", _beats(f"{t} RD", f"{t} FD")) for t in TEACHERS),
    _claim("best-teacher", 3, "CB is the best teacher for LEAD", _beats("CB LEAD", "DE LEAD", "CE LEAD")),
    # one way for each teacher s that may be the strongest and each other t whose student may be better
    _claim("strongest-teacher", 3, "the strongest teacher does not give the best student", *(
        _beats(f"{s} teacher", *(f"{o} teacher" for o in TEACHERS if o != s)) + _beats(f"{t} LEAD", f"{s} LEAD")
        for s in TEACHERS for t in TEACHERS if t != s)),
    _claim("worst-k", 4, "K = 1 is the worst", tuple((k, "K=1") for k in _KS[1:])),
    _claim("best-k", 4, "the best K is 5 or 6", *(_beats(k, *_KS[:4]) for k in _KS[4:])),
    *(_claim(f"random-{name}", 5, f"Random > {name}", _beats("CB LEAD", name)) for name in ("Weighted", "Last", "Skip")),
    _claim("joint", 6, "LEAD > LEAD without joint training", _beats("CB LEAD", "without joint training")),
    _claim("re-weighting", 6, "LEAD > LEAD without re-weighting", _beats("CB LEAD", "without re-weighting")),
    # (LEAD - without re-weighting) - (LEAD - without joint training): LEAD cancels
    _claim("second-drop", 6, "re-weighting counts for more than joint training",
           _beats("without joint training", "without re-weighting")),
    _claim("re-weighting-rd", 6, "LEAD without re-weighting > RD", _beats("without re-weighting", "CB RD")),
    *(_claim(f"linear-{m}", 7, f"a linear layer lowers {m}", _beats(f"CB {m}", f"linear {m}")) for m in ("RD", "FD", "LEAD")),
    _claim("linear-best", 7, "LEAD + linear is the best of the three", _beats("linear LEAD", "linear RD", "linear FD")),
    _claim("best-start", 8, "bottlenecked pre-training is the best start",
           _beats("bottlenecked start", "masked LM start", "CB LEAD")),
    _claim("prod-steps", 9, "PROD* improves at each step", tuple(zip(_STEPS, ("student", *_STEPS[:2]), strict=True))),
    _claim("prod-lead", 9, "PROD* + LEAD > PROD* at each step", tuple((step.replace("*", "* + LEAD"), step) for step in _STEPS)),
    *(_claim(f"{t}-after", 10, f"the {t} teacher improves after LEAD", _beats(f"{t} teacher after LEAD", f"{t} teacher"))
      for t in TEACHERS),
)

# --- verdicts


def crossed_t_test(differences: np.ndarray) -> tuple[float, float]:
    r"""One-sided p of (mean > 0, mean < 0) for differences (S, Q), seeds and queries both random (Judd, Westfall and Kenny, 2012):

    $$t = \bar x \Big/ \sqrt{(MS_s + \max(MS_q - MS_{sq}, 0)) / SQ}$$

    with the mean squares of seeds, queries and residual and Satterthwaite's degrees of freedom. It is the t-test over queries where
    the seeds agree, and that over seeds where the queries do. A t-test over queries of seed means (section 4.2.1) speaks of these S
    checkpoints only; a bootstrap of five seeds rejects true nulls too often where seeds differ more than queries. There the
    approximate degrees of freedom are a little liberal too: simulated, 6% of true nulls at p < 0.05 and 0.6% at p < 0.0016.
    """
    S, Q = differences.shape
    mean, seeds, queries = differences.mean(), differences.mean(1), differences.mean(0)  # (), (S,), (Q,)
    residual = differences - seeds[:, None] - queries + mean  # (S, Q)
    df = np.array([S - 1, Q - 1, (S - 1) * (Q - 1)])
    squares = np.array([Q * ((seeds - mean) ** 2).sum(), S * ((queries - mean) ** 2).sum(), (residual**2).sum()]) / df  # (3,)
    squares[1:] *= squares[1] >= squares[2]
    error = squares @ [1, 1, -1]
    if error < 1e-12:  # one difference everywhere
        return (0.5, 0.5) if abs(mean) < 1e-9 else (float(mean < 0), float(mean > 0))
    t, df = mean / np.sqrt(error / (S * Q)), error**2 / (squares**2 / df).sum()
    return float(student_t.sf(t, df)), float(student_t.cdf(t, df))


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
        drawn = draw.integers(queries, size=(n, queries)) + queries * np.arange(n)[:, None]  # (n, Q)
        counts = np.bincount(drawn.ravel(), minlength=n * queries).reshape(n, queries)  # (n, Q): how often each query was drawn
        means.append(counts.astype(float) @ values.T / queries)  # (n, R)
    return np.concatenate(means)


def points(records: dict[str, list[dict]]) -> dict[tuple[str, int], np.ndarray]:
    """(experiment, seed) -> MRR@10 of each query (Q,) in points. ValueError where the records cannot be judged together."""
    values, kinds = {}, {}
    for name, record in ((name, record) for name, found in records.items() for record in found):
        which = f"the record of {name!r}, seed {record.get('seed', 'unknown')},"
        missing = [key for key in ("seed", "collection", "fingerprint", "split", "per_query") if key not in record]
        if missing or MEASURE not in record["per_query"]:
            raise ValueError(f"{which} lacks {(missing or [MEASURE])[0]}")
        if (name, record["seed"]) in values:
            raise ValueError(f"{which} is there twice: one record per experiment and seed is wanted")
        values[name, record["seed"]] = found = 100 * np.array(record["per_query"][MEASURE], float)
        if not np.isfinite(found).all():
            raise ValueError(f"{which} has a {MEASURE} that is no number")
        kind = (record["collection"], f"fingerprint {record['fingerprint']}", f"split {record['split']}", f"{len(found)} queries")
        kinds.setdefault(kind, f"{', '.join(kind)} ({name}, seed {record['seed']})")
    if len(kinds) > 1:
        raise ValueError(f"records of different collections or splits cannot be judged together: {'; '.join(kinds.values())}")
    if len(seeds := {seed for _, seed in values}) < 2:
        raise ValueError(f"the records are of {len(seeds)} seed(s): a ledger needs at least two")
    return values


def ledger(records: dict[str, list[dict]], draws: int = 10_000, seed: int = 0, claims: tuple[Claim, ...] = CLAIMS) -> pd.DataFrame:
    """Judge each claim by the records, {experiment: one record per seed}: one line per claim id, in points of MRR@10.

    difference, paper: the claim's statistic, of the means over seeds and queries, and of the paper's MS MARCO passage numbers.
    low, high: 95% percentile interval of the statistic over a hierarchical bootstrap, seeds and then queries with replacement:
    the same ones for all experiments of a claim, the same queries for all seeds as every seed meets every query (Owen, 2007).
    p: `Claim.p_value`, Holm-corrected over all claims that were run. seeds: those that all the claim's experiments share.
    verdict: holds or contradicted, by the sign of the difference, where p < 0.05, the interval is off zero and there are 5 seeds;
    undecided otherwise; not run where an experiment is missing. A claim with one seed has neither interval nor p.
    """
    values = points(records)
    drawn = dict(zip(values, resample_queries(np.stack(list(values.values())), draws, seed).T, strict=True))  # {...: (draws,)}
    lines = {}
    for claim in claims:
        seeds = sorted(set.intersection(*({s for name, s in values if name == experiment} for experiment in claim.experiments)))
        own = {name: np.stack([values[name, s] for s in seeds]) for name in claim.experiments if seeds}  # {...: (S, Q)}
        difference, low, high, p = np.nan, np.nan, np.nan, np.nan
        if seeds:
            difference = claim.statistic({name: v.mean() for name, v in own.items()})
        if len(seeds) > 1:
            picks = np.random.default_rng((seed, 1)).integers(len(seeds), size=(draws, len(seeds)))  # (draws, S)
            by_seed = {name: np.stack([drawn[name, s] for s in seeds], axis=1) for name in own}  # {...: (draws, S)}
            means = {name: np.take_along_axis(v, picks, axis=1).mean(1) for name, v in by_seed.items()}  # {...: (draws,)}
            low, high = np.percentile(claim.statistic(means), (2.5, 97.5))
            p = claim.p_value(own)
        lines[claim.id] = {"table": claim.table, "claim": claim.sentence, "verdict": "undecided" if seeds else "not run",
                           "difference": difference, "low": low, "high": high, "p": p, "paper": claim.paper(), "seeds": len(seeds)}
    table = pd.DataFrame.from_dict(lines, orient="index")
    run = table["p"].notna()
    table.loc[run, "p"] = holm(table.loc[run, "p"].to_numpy())
    decided = (table["seeds"] >= SEEDS) & (table["p"] < ALPHA) & ((table["low"] > 0) | (table["high"] < 0))
    table.loc[decided, "verdict"] = np.where(table.loc[decided, "difference"] > 0, "holds", "contradicted")
    return table

"""How often the crossed test's 95% interval covers the truth: lines for data/results/tried.jsonl.

    python bench/coverage.py >> data/results/tried.jsonl

Tables of five or two seeds and 1,000 or 2,000 queries are simulated with normal effects. The parts
are those of the expected mean squares: of seeds, of queries, of noise (every seed and query anew).
"""

import json
from itertools import product

import numpy as np

from leadkit.results.statistics import crossed

TABLES = 20_000  # simulated per setting; the standard error of a coverage of 95% is 0.15
SEEDS = (5, 2)  # all that are planned, and a beginning
STRICT = 0.005  # a level as Holm's correction asks in a family of ten
REGIMES = {
    "queries dominate": (0.0, 5.0, 1.0),
    "seeds dominate": (100.0, 1.0, 1.0),
    "both": (5.0, 5.0, 1.0),
    "queries and noise alike": (0.0, 1.0, 1.0),
    "noise dominates": (0.0, 0.3, 1.0),
    "seeds five times the rest": (10.0, 1.0, 1.0),
}


def simulate(
    seed_part: float, query_part: float, noise: float, queries: int, seeds: int
) -> tuple[float, ...]:
    """Percent of intervals that cover the truth, and of true nulls with p below `STRICT`."""
    rng = np.random.default_rng(0)
    covered = rejected = 0
    for _ in range(TABLES):
        of_seeds = rng.normal(0, np.sqrt(seed_part / queries), (seeds, 1))
        of_queries = rng.normal(0, np.sqrt(query_part / seeds), (1, queries))
        noises = rng.normal(0, np.sqrt(noise), (seeds, queries))
        estimate = crossed(of_seeds + of_queries + noises)
        covered += estimate.low(0.025) < 0 < estimate.high(0.025)
        rejected += 2 * min(estimate.p_above(), estimate.p_below()) < STRICT
    return 100 * covered / TABLES, 100 * rejected / TABLES


def main() -> None:
    for seeds, (regime, parts), queries in product(SEEDS, REGIMES.items(), (1000, 2000)):
        names = ("95% intervals that cover, percent", f"true nulls, p < {STRICT}, percent")
        setting = f"{regime}, {queries:,} queries"
        for measure, value in zip(names, simulate(*parts, queries, seeds), strict=True):
            line = {
                "question": "coverage",
                "setting": setting if seeds == max(SEEDS) else f"{setting}, {seeds} seeds",
                "measure": measure,
                "values": [round(value, 2)],
                "split": "",
                "seeds": [],
                "device": "AMD EPYC, AVX512_BF16",
                "date": "",
                "note": f"{TABLES:,} simulated tables of {seeds} seeds; parts {parts}",
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""A LEAD step, 12CB -> 6DE, by the passages of a batch: does its time grow linearly?

Also drawn, as passages.png.
"""

from dataclasses import replace

import lead_step
import numpy as np
import records
import torch
from measuring import seconds

from leadkit.config import scale
from leadkit.experiments.pipeline import Pipeline
from leadkit.hardware import processor
from leadkit.lessons import figures

QUERIES = 16
PER_QUERY = (2, 4, 8, 16)
STEPS = 3


def measure(per_query: int) -> float:
    """Seconds of a step, the mean of STEPS after one that is not counted."""
    chosen = scale("classroom")
    data = replace(chosen.data, batch=QUERIES, passages=per_query)
    pipeline = Pipeline(replace(chosen, data=data))
    batches = lead_step.batches_of(pipeline)
    run = lead_step.leadkit(pipeline)
    run(1, batches)
    (spent,) = seconds(lambda: run(STEPS, batches))
    return spent / STEPS


def main() -> None:
    passages = [QUERIES * n for n in PER_QUERY]
    measured = [measure(n) for n in PER_QUERY]
    slope, start = np.polyfit(passages, measured, 1)
    line = [start + slope * n for n in passages]
    off = max(abs(a / b - 1) for a, b in zip(measured, line, strict=True))
    print(
        f"LEAD step, {QUERIES} queries; threads {torch.get_num_threads()}; "
        f"{1000 * slope:.1f} ms a passage and {start:.2f} s; at most {off:.1%} off that line"
    )
    for n, spent in zip(passages, measured, strict=True):
        print(f"{n:4} passages  {spent:6.2f} s")
    draw(passages, {"measured": measured, "line": line})
    by_passages = dict(zip(passages, measured, strict=True))
    records.write({"seconds": by_passages, "a passage": slope, "start": start, "off the line": off})


def draw(passages: list[int], columns: dict[str, list[float]]) -> None:
    figures.style()
    title = f"A LEAD step of {QUERIES} queries, {processor()}"
    axes = figures.lines(columns, title, "passages in the batch", "seconds", at=passages)
    axes.set(xlim=0, ylim=0)
    axes.figure.savefig(records.path().with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()

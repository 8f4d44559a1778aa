"""A LEAD step, 12CB -> 6DE, K = 5, by the passages in a batch: whether its time grows linearly. Also drawn, as passages.png."""

import time
from dataclasses import replace

import lead_step
import numpy as np
import records
import torch

from leadkit.experiments import distillation
from leadkit.lessons import figures
from leadkit.config import scale
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.store import processor

QUERIES, PER_QUERY, STEPS = 16, (2, 4, 8, 16), 3


def seconds(per_query: int) -> float:
    """A step, the mean of STEPS after one that is not counted."""
    chosen = scale("classroom")
    pipeline = Pipeline(
        replace(chosen, data=replace(chosen.data, batch=QUERIES, passages=per_query))
    )
    at = {
        name: distillation.batches(pipeline.miner, stage.tower)
        for name, stage in {"student": pipeline.student, "teacher": pipeline.teacher}.items()
    }
    run = lead_step.leadkit(pipeline)
    run(1, at)
    started = time.perf_counter()
    run(STEPS, at)
    return (time.perf_counter() - started) / STEPS


if __name__ == "__main__":
    passages = [QUERIES * n for n in PER_QUERY]
    found = [seconds(n) for n in PER_QUERY]
    slope, start = np.polyfit(passages, found, 1)
    line = [start + slope * n for n in passages]
    off = max(abs(a / b - 1) for a, b in zip(found, line, strict=True))
    print(
        f"LEAD step, {QUERIES} queries; threads {torch.get_num_threads()}; {1000 * slope:.1f} ms a passage and {start:.2f} s; "
        f"at most {off:.1%} off that line"
    )
    for n, each in zip(passages, found, strict=True):
        print(f"{n:4} passages  {each:6.2f} s")
    figures.style()
    title = f"A LEAD step of {QUERIES} queries, {processor()}"
    axes = figures.lines(
        {"measured": found, "line": line}, title, "passages in the batch", "seconds", at=passages
    )
    axes.set(xlim=0, ylim=0)
    axes.figure.savefig(records.path().with_suffix(".png"), dpi=110)
    records.write(
        {
            "seconds": dict(zip(passages, found, strict=True)),
            "a passage": slope,
            "start": start,
            "off the line": off,
        }
    )

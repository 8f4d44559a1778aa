"""LEAD on one GPU at the paper's sizes: steps, encoding and exact search.

They are compared with a plain reference and with the GPU's own matrix product. BERT-base with
random weights, real texts (python-docs) at their own lengths. A rate counts only the matrix
products of the encoders over real tokens: no padding, no MaxSim, no loss.

`python bench/gpu.py tiny` tries every line on any machine, and measures nothing.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import records
from gpu_measures import Size, encoding, matmul, measure_step, search, towers

from leadkit.config import scale
from leadkit.hardware import DEVICE

TARGETS = {
    "queries a second, times the reference's in float32": 3,
    "the same, in bfloat16": 1.5,
    "step, share of the matmul": 0.45,
    "encoding, share of the matmul": 0.55,
    "memory, share of the reference's in float32": 1 / 3,
    "search, seconds": 3,
    "loading, share of a step": 0.03,
}
TINY = Size(
    collection="python-docs:smoke",
    hidden=32,
    heads=2,
    batch=2,
    passages=(2, 8),
    steps=1,
    matrix=64,
    vectors=500,
    asked=20,
    trained=100,
    depth=10,
)


def recipe(size: Size, step: float, encoding: float, search: float) -> dict[str, float]:
    """GPU hours of the paper's recipe on MS MARCO passages, for one teacher.

    Its four trainings, with LEAD's, and the encoding and searching between them and at the end.
    step: seconds of a LEAD step; a training of fewer layers takes as much less.
    encoding: seconds of a passage by the student; the miner takes as much longer as it has layers.
    search: seconds of a query.
    """
    paper = scale("paper")
    student, teacher = size.layers
    layers = student * paper.student.steps + teacher * (paper.warm_up.steps + paper.teacher.steps)
    steps = paper.distil.steps + layers / (student + teacher)  # in steps of LEAD
    return {
        "training": step * steps / 3600,
        "encoding": encoding * size.vectors * (1 + teacher / student) / 3600,
        "searching": search * (size.trained + size.asked) / 3600,
    }


def main(size: Size) -> dict:
    """Every figure; of each target, what was wanted and what was measured."""
    ceiling = matmul(size)
    with tempfile.TemporaryDirectory() as folder:
        chosen = towers(size, Path(folder))
        sizes = {n: replace(chosen, data=replace(chosen.data, passages=n)) for n in size.passages}
        by_passages = {n: measure_step(each, "leadkit", size) for n, each in sizes.items()}
        plain = {name: measure_step(sizes[8], name, size) for name in ("float32", "bfloat16")}
        encoded, encoding_seconds = encoding(chosen, size)
    searching = search(size)
    ours, rate = by_passages[8], "queries a second"
    measured = {
        "queries a second, times the reference's in float32": ours[rate] / plain["float32"][rate],
        "the same, in bfloat16": ours[rate] / plain["bfloat16"][rate],
        "step, share of the matmul": ours["operations a second"] / ceiling,
        "encoding, share of the matmul": encoded / ceiling,
        "memory, share of the reference's in float32": (
            ours["memory GiB"] / plain["float32"]["memory GiB"]
        ),
        "search, seconds": searching,
        "loading, share of a step": ours["loading seconds"] / ours["seconds"],
    }
    hours = recipe(size, ours["seconds"], encoding_seconds, searching / size.asked)
    return {
        "matmul, operations a second": ceiling,
        "reference": plain,
        "leadkit, by passages a query": by_passages,
        "encoding, operations a second": encoded,
        "targets and measured": {name: (TARGETS[name], measured[name]) for name in TARGETS},
        "the paper's recipe, GPU hours": hours,
    }


def record_not_run() -> None:
    """Say so in the record. A record of a GPU, where there is one, stays."""
    if records.path().exists():
        return
    missing = "not run: no GPU"
    targets = {name: (target, missing) for name, target in TARGETS.items()}
    records.write({"targets and measured": targets, "the paper's recipe, GPU hours": missing})


def show(measured: dict) -> None:
    for name, (target, value) in measured["targets and measured"].items():
        print(f"{name:52} {value:8.3f}   target {target:.2f}")
    hours = measured["the paper's recipe, GPU hours"]
    parts = ", ".join(f"{name} {value:.1f}" for name, value in hours.items())
    total = sum(hours.values())
    print(
        f"the paper's recipe: {total:.1f} GPU hours ({parts}), "
        f"on eight at best {total / 8:.1f} hours"
    )


if __name__ == "__main__":
    tiny = sys.argv[1:] == ["tiny"]
    if not tiny and DEVICE.type != "cuda":
        record_not_run()
        sys.exit("no GPU: not run")
    measured = main(TINY if tiny else Size())
    show(measured)
    if not tiny:
        records.write(measured)

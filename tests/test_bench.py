"""The GPU's benchmark at a tiny size: its versions compute the same, and its counts are right."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))
import gpu
import gpu_measures


def test_operations_by_hand():
    # Per layer: 24 h^2 for each of 4 tokens; 4 h for the 9 and the 1 that attend to one another.
    by_hand = 2 * (24 * 64 * 4 + 4 * 8 * 10)
    assert gpu_measures.operations(np.array([3, 1]), layers=2, hidden=8) == by_hand


def test_hours_of_the_recipe_by_hand():
    size = gpu.Size(layers=(6, 12), vectors=1000, asked=10, trained=90)
    # 50,000 steps of 18 layers, 20,000 of 6, twice 20,000 of 12.
    # The miner's passages take twice as long as the student's.
    want = {
        "training": 0.18 * (50_000 + 20_000 / 3 + 40_000 * 2 / 3),
        "encoding": 0.3 * 1000 * 3,
        "searching": 0.5 * 100,
    }
    assert gpu.recipe(size, 0.18, 0.3, 0.5) == {
        name: pytest.approx(seconds / 3600) for name, seconds in want.items()
    }


def test_every_line_runs_and_the_reference_computes_the_same(name):
    found = gpu.main(replace(gpu.TINY, collection=name))
    losses = [
        row["first loss"]
        for row in (found["leadkit, by passages a query"][8], *found["reference"].values())
    ]
    assert losses == [pytest.approx(losses[1], abs=2e-2)] * 3 and losses[0] > 1
    assert all(hours > 0 for hours in found["the paper's recipe, GPU hours"].values())
    figures = dict(found["targets and measured"])
    del figures["memory, share of the reference's in float32"]  # of a GPU
    assert all(value > 0 for _, value in figures.values())

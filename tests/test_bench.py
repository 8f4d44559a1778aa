"""The GPU's benchmark, tried at a size of nothing: what it compares computes the same, and its counts are right."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))
import gpu  # noqa: E402


def test_operations_by_hand():
    # Per layer: 24 h^2 for each of 4 tokens; 4 h for the 9 and the 1 that attend to one another.
    assert gpu.operations(np.array([3, 1]), layers=2, hidden=8) == 2 * (24 * 64 * 4 + 4 * 8 * 10)


def test_every_line_runs_and_the_reference_computes_the_same(name):
    found = gpu.main(replace(gpu.TINY, collection=name))
    losses = [row["first loss"] for row in (found["leadkit, by passages a query"][8], *found["reference"].values())]
    assert losses == [pytest.approx(losses[1], abs=2e-2)] * 3 and losses[0] > 1
    figures = dict(found["targets and measured"])
    del figures["memory, share of the reference's in float32"]  # of a GPU
    assert all(value > 0 for _, value in figures.values())

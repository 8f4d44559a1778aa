"""Weights between a trained retriever and its encoder: by hand, and at both ends."""

import pytest
import torch
from toys import scale

from leadkit.experiments.interpolation import TakenBack
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.ready import Ready


def test_each_weight_is_moved_by_its_share_of_the_way(common, subtests):
    student = Pipeline(scale(common)).student
    trained, before = student.model(), Ready(student.data, student.tower).model()
    assert any(
        not a.equal(b) for a, b in zip(trained.parameters(), before.parameters(), strict=True)
    )
    for share in (0.0, 0.25, 1.0):
        with subtests.test(share=share):
            moved = TakenBack(student.data, student, share).model()
            for name, weight in moved.named_parameters():
                ends = trained.get_parameter(name), before.get_parameter(name)
                torch.testing.assert_close(weight, (1 - share) * ends[0] + share * ends[1])
    assert student.model().get_parameter(name).equal(trained.get_parameter(name))  # as it was


def test_a_share_outside_of_the_way_is_refused(name):
    student = Pipeline(scale(name)).student
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"^share is {share}: it must be from 0 to 1$"):
            TakenBack(student.data, student, share)

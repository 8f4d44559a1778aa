"""A rescaled student: the same weights and ranking, other scores, and a loss that sees them."""

import pytest
import torch
from toys import scale

from leadkit.experiments.method import Step
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rescaled import Rescaled


def test_scores_are_multiplied_in_every_layer_and_weights_are_kept(common):
    chain = Pipeline(scale(common))
    student = Rescaled(chain.scale.data, chain.student, 2.0)
    assert student.tower.scale == 2 * chain.student.tower.scale
    before, after = chain.student.model().eval(), student.model().eval()
    for name, weight in after.named_parameters():
        assert weight.equal(before.get_parameter(name))
    batch = chain.batches(before.tower)(0)
    layers = range(1, before.layers + 1)
    for old, new in zip(before(batch, layers), after(batch, layers), strict=True):
        torch.testing.assert_close(new, 2 * old, rtol=0, atol=0)
    assert chain.student.model().tower.scale == chain.student.tower.scale  # as it was


def test_the_loss_sees_the_scores_of_the_rescaled_student(common):
    chain = Pipeline(scale(common))
    control = chain.distil("student")
    batch = control.batches(control.tower)(0)
    _, final = chain.student.model()(batch)  # (B, C)
    losses = {}
    for times in (0.5, 1.0, 2.0):
        models = {"student": Rescaled(chain.scale.data, chain.student, times).model()}
        losses[times] = control.method.parts(Step(models, {"student": batch}, seed=0))["total"]
        log_s = (times * final).log_softmax(-1)
        torch.testing.assert_close(losses[times], -log_s[range(len(final)), batch.positive].mean())
    assert len({loss.item() for loss in losses.values()}) == 3


@pytest.mark.parametrize("times", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_that_is_no_scale_is_refused(times, name):
    chain = Pipeline(scale(name))
    with pytest.raises(ValueError, match=f"^times is {times}: it must be positive and finite$"):
        Rescaled(chain.scale.data, chain.student, times)

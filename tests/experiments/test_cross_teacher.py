"""A CE teacher that starts from the trained CB: its start, its batches, its fading teacher."""

import math
from dataclasses import replace

import pytest
import torch
from toys import scale

from leadkit.config import CrossStart, Schedule
from leadkit.experiments import cross_teacher, distillation
from leadkit.experiments.cross_teacher import started_from
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.prod import PROD
from leadkit.models.tower import Tower

HOW = CrossStart(batch=3, passages=4)


def made(name, linear=False, **changes):
    own = {"teacher CE": Schedule(10, 1e-3)}
    pipeline = Pipeline(replace(scale(name), cross_start=HOW, own=own), 0, "CE", linear)
    return replace(pipeline.teacher, **changes)


@pytest.mark.parametrize("linear", (False, True))
def test_it_starts_as_the_cb_does_and_scores_every_pair_alike(name, linear):
    stage = made(name, linear=linear)
    colbert = stage.start.model()
    model = started_from(colbert, stage.tower).eval()
    theirs = colbert.state_dict()
    for key, value in model.state_dict().items():
        if key == "projection":
            assert not value.any()
        elif key.endswith("token_type_embeddings.weight"):
            assert torch.equal(value[0], theirs[key][0]) and torch.equal(value[1], value[0])
        else:
            assert torch.equal(value, theirs[key]), key
    batch = stage.batches()(0)
    every, final = model(batch, (1,))
    assert final.shape == (3, 4) and not final.any() and not every.any()
    # With another w the pair is read as one text of one kind.
    torch.nn.init.normal_(model.projection)
    before = model(batch)[1]
    batch.pairs.kinds.zero_()
    assert torch.equal(model(batch)[1], before) and before.std() > 0


def test_it_sees_random_negatives_first_and_listens_to_the_cb_less_and_less(name, monkeypatch):
    """Of 10 batches 0 to 3 are random (10 / 3 = 3.33); the CB weighs 1 - number / 8."""
    asked = []

    def watched(stage, tower, trained, seed, negatives):
        batches = distillation.draw_batches(stage, tower, trained, seed, negatives)

        def draw(number):
            asked.append((number, negatives is None))
            return batches(number)

        draw.sampler = batches.sampler
        return draw

    stage = made(name)
    first = stage._batches(None)(0)
    _, taught = stage.start.model()(first)
    p = taught.softmax(1)
    monkeypatch.setattr(cross_teacher, "draw_batches", watched)
    log = stage.log()
    assert asked == [(number, number <= 3) for number in range(10)]
    # w = 0: the CE answers 1/4 for each of the 4 passages.
    assert log[0]["student"] == pytest.approx(math.log(4), rel=1e-5)
    assert log[0]["response"] == pytest.approx((p * (4 * p).log()).sum(1).mean().item(), rel=1e-3)
    weights = [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0]
    for row, weight in zip(log, weights, strict=True):
        total = row["student"] + weight * row["response"]
        assert row["total"] == pytest.approx(total, rel=1e-5)
        assert (row["response"] > 0) == (weight > 0)
    assert stage.teacher_passes() == 8
    assert stage.model().projection.any()


def test_the_start_and_its_settings_are_part_of_what_is_trained(name):
    stage = made(name)
    others = (
        replace(stage, start=replace(stage.start, seed=1)),
        replace(stage, how=replace(HOW, easy=0.5)),
        replace(stage, how=replace(HOW, fade=0.5)),
    )
    assert len({stage.key, *(other.key for other in others)}) == 4
    assert stage.start in stage.inputs()


def test_a_cb_of_another_shape_is_refused(name):
    stage = made(name)
    with pytest.raises(ValueError, match=r"start has encoder 'random:9x32', the tower 'random:"):
        replace(stage, start=replace(stage.start, tower=Tower("CB", "random:9x32")))
    with pytest.raises(ValueError, match=r"start has linear 8, the tower 0: a CE starts from"):
        linear = replace(stage.start.tower, linear=8)
        replace(stage, start=replace(stage.start, tower=linear))


@pytest.mark.parametrize(
    ("wrong", "message"),
    (
        ({"easy": 1.0}, "easy is 1.0: it must be at least 0 and below 1"),
        ({"easy": -0.1}, "easy is -0.1"),
        ({"fade": 0.0}, "fade is 0.0: it must be above 0 and at most 1"),
        ({"fade": 1.1}, "fade is 1.1"),
    ),
)
def test_shares_of_the_training_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        CrossStart(**wrong)


def test_every_ce_teacher_of_prod_starts_so(name):
    """Each from the CB of its own size that the mined negatives of the main pipeline trained."""
    chosen = replace(scale(name), cross_start=HOW)
    prod = PROD(chosen)
    smaller, larger = (stage.teacher for stage in prod.stages[1:3])
    assert smaller.start.key == Pipeline(chosen, 0, "CB").teacher.key
    assert larger.start.key == Pipeline(chosen, 0, "CB", larger=True).teacher.key
    for teacher, stage in ((smaller, prod.stages[1]), (larger, prod.stages[2])):
        assert (teacher.data.batch, teacher.data.passages) == (3, 4)
        assert teacher.negatives == stage.negatives

"""The losses of PROD and MTA4DPR."""

from math import log

import pytest
import torch
from torch import tensor
from toys import gradients, logits, score_batch

from leadkit.companion_losses import (
    assisted_loss,
    footrule,
    fuse,
    progressive_loss,
    ranks,
    rbo,
)
from leadkit.losses import kl, lead_loss, response_loss


@pytest.fixture
def batch():
    return score_batch()


# MTA4DPR


def test_footrule_and_rbo_by_hand():
    """Rankings 0 1 2 and 1 0 2: two items moved by one place, of at most 4 places together.

    They agree to 0, 1, 1, ... at depth 1, 2, 3, ...
    """
    a, b = tensor([3.0, 2, 1]), tensor([2.0, 3, 1])
    assert ranks(tensor([[1.0, 3, 2], [5, 5, 9]])).tolist() == [[2, 0, 1], [1, 2, 0]]
    assert footrule(a, b) == 2 / 4 and footrule(a, a) == 0
    assert footrule(tensor([1.0, 2, 3, 4]), tensor([4.0, 3, 2, 1])) == 1 == footrule(a, a.flip(0))
    # p = 1/2: 1/2 (0 + 1/2 + 1/4 + ...); p = 3/4: 1/4 (0 + 3/4 + 9/16 + ...) = 1/4 (4 - 1)
    assert rbo(a, b, 0.5).item() == pytest.approx(0.5) and rbo(a, b, 0.75).item() == pytest.approx(
        0.75
    )
    assert rbo(a, a, 0.9).item() == pytest.approx(1)


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_footrule_and_rbo_are_their_definitions(p):
    """Slow sums; below the C candidates whatever follows is the same in both rankings."""
    teacher, assistants = torch.randn(4, 7), torch.randn(3, 4, 7)
    fast = rbo(teacher, assistants, p), footrule(teacher, assistants)
    assert fast[0].shape == fast[1].shape == (3, 4)
    for i in range(3):
        for b in range(4):
            x, y = (
                sorted(range(7), key=lambda c: -scores[c])
                for scores in (teacher[b].tolist(), assistants[i, b].tolist())
            )
            moved = sum(abs(x.index(c) - y.index(c)) for c in range(7))
            x, y = x + list(range(7, 300)), y + list(range(7, 300))
            overlap = sum(p ** (d - 1) * len({*x[:d]} & {*y[:d]}) / d for d in range(1, 300))
            assert fast[0][i, b].item() == pytest.approx((1 - p) * overlap, abs=1e-6)
            assert fast[1][i, b].item() == pytest.approx(moved / 24)


def test_fused_assistants_by_hand():
    """The mean of (.8, .2) and (.5, .5) is (.65, .35).

    tau_d = 1/2 squares the odds first: (16/17, 1/17) and (1/2, 1/2).
    """
    scores = torch.stack([logits(0.8), logits(0.5)])  # (2, 1, 2)
    torch.testing.assert_close(
        fuse(scores).softmax(-1), tensor([[0.65, 0.35]], dtype=torch.float64)
    )
    cool = (fuse(scores, 0.5) / 0.5).softmax(-1)
    torch.testing.assert_close(cool[0, 0], (tensor(16 / 17) + 0.5).double() / 2)
    # One assistant, fused, is itself.
    torch.testing.assert_close(fuse(scores[:1], 0.5).softmax(-1), scores[0].softmax(-1))
    layers = torch.randn(3, 2, 4, 5)  # any shape between: (A, K, B, C)
    torch.testing.assert_close(fuse(layers).exp(), layers.softmax(-1).mean(0))
    underflows = tensor([0.0, -2e4])
    assert fuse(torch.stack([underflows, underflows])).tolist() == underflows.tolist()


def test_assisted_loss_is_its_three_terms(batch):
    student, teacher, student_final, teacher_final, positive = batch
    assistant = teacher_final.flip(0)
    taught, helped = (
        response_loss(student_final, final, positive, tau_d=2.0)
        for final in (teacher_final, assistant)
    )
    loss = assisted_loss(taught, helped, hard=0.2, soft=0.3, assist=0.7)
    want = (
        0.2 * torch.nn.functional.cross_entropy(student_final, positive)
        + 0.3 * kl(teacher_final, student_final, 2.0).mean()
        + 0.7 * kl(assistant, student_final, 2.0).mean()
    )
    torch.testing.assert_close(loss.total, want)
    torch.testing.assert_close(loss.assistant, kl(assistant, student_final, 2.0).mean())
    assert gradients(loss.total, batch[:4])[2].any() and gradients(
        loss.total, (teacher_final,)
    ) == (None,)
    alone = assisted_loss(taught, None)
    assert alone.assistant == 0
    torch.testing.assert_close(alone.total, taught.total)
    layers = [
        lead_loss(student, t, student_final, f, positive, joint=False)
        for t, f in ((teacher, teacher_final), (teacher.flip(0), assistant))
    ]
    both = assisted_loss(*layers, assist=2.0)
    torch.testing.assert_close(both.layer, layers[0].layer + layers[1].layer)
    torch.testing.assert_close(
        both.total, layers[0].total + 2 * (layers[1].response + layers[1].layer)
    )


# PROD


def test_progressive_loss_by_hand():
    """Odds 3 and 1/3; the temperature 2 takes their square roots, p = .634 and 1 - p.

    Then the KL is (2 p - 1) ln(p / (1 - p)).
    """
    student, teacher, positive = logits(0.75), logits(0.25), tensor([0])
    p = 3**0.5 / (1 + 3**0.5)
    far = 4 * (2 * p - 1) * log(3) / 2  # tau_d^2 KL
    moved = progressive_loss(
        student, teacher, logits(0.5), positive, hard=0.3, soft=0.5, keep=0.25, tau_d=2.0
    )
    assert moved.response.item() == pytest.approx(far)
    kept = 4 * (0.5 * log(0.5 / p) + 0.5 * log(0.5 / (1 - p)))
    assert moved.keep.item() == pytest.approx(kept)
    assert moved.total.item() == pytest.approx(0.3 * -log(0.75) + 0.5 * far + 0.25 * kept)
    assert moved.layer == moved.teacher == 0
    published = progressive_loss(student, teacher, student, positive)
    want = 0.1 * -log(0.75) + 0.9 * 16 * kl(teacher, student, 4.0).item()
    assert published.total.item() == pytest.approx(want)


def test_keep_is_zero_for_the_student_as_it_was(batch):
    """And only the student gets a gradient, from keep as well as from the teacher."""
    _, _, student_final, teacher_final, positive = batch
    before = student_final.detach().clone().requires_grad_()
    same = progressive_loss(student_final, teacher_final, before, positive)
    assert same.keep.item() == pytest.approx(0, abs=1e-14) and same.response > 0
    torch.testing.assert_close(
        gradients(same.keep, (student_final,))[0], torch.zeros(4, 5).double(), atol=1e-14, rtol=0
    )
    before = before + torch.randn(4, 5)
    moved = progressive_loss(student_final, teacher_final, before, positive)
    assert moved.keep > 0 and gradients(moved.keep, (student_final,))[0].any()
    student, *frozen = gradients(moved.total, (student_final, teacher_final, before))
    assert student.any() and frozen == [None, None]
    without = progressive_loss(student_final, teacher_final, None, positive)
    assert without.keep == 0
    torch.testing.assert_close(moved.total, without.total + moved.keep)
    assert progressive_loss(
        teacher_final, teacher_final, teacher_final, positive
    ).response.item() == pytest.approx(0, abs=1e-14)

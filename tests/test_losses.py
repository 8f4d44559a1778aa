"""The loss of LEAD by hand, by its properties, and against the released code."""

import json
from itertools import product
from math import log
from pathlib import Path

import pytest
import torch
from torch import tensor
from toys import gradients, logits, score_batch

from leadkit import scores
from leadkit.losses import (
    VARIANTS,
    feature_loss,
    kl,
    layer_weights,
    lead_loss,
    nll,
    response_loss,
    student_loss,
)

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "released_loss_dual_encoder.json").read_text()
)["cases"]
PARTS = ("layer", "response", "teacher", "student")


@pytest.fixture
def batch():
    return score_batch()


# By hand, two queries and two candidates


def test_kl_by_hand():
    # 1/2 ln((1/2) / (1/4)) + 1/2 ln((1/2) / (3/4)), then with the arguments swapped
    half, quarter = logits(0.5), logits(0.25)
    assert kl(half, quarter).item() == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))
    assert kl(quarter, half).item() == pytest.approx(0.25 * log(1 / 2) + 0.75 * log(3 / 2))
    # tau_d = 1/2 squares the odds: 1/3 becomes 1/9, so 1/4 becomes 1/10
    assert kl(half, quarter, 0.5).item() == pytest.approx(
        0.5 * log(0.5 / 0.1) + 0.5 * log(0.5 / 0.9)
    )
    assert kl(quarter, half, 0.5, "released").item() == pytest.approx(
        0.1 * log(0.1 / 0.5) + 0.9 * log(0.9 / 0.5)
    )
    assert kl(half, quarter, 0.5, "released").item() == pytest.approx(kl(half, quarter).item())


def test_lead_loss_by_hand():
    """tau_l = 1: a weight is the teacher's probability of the positive over the sum of both."""
    teacher = torch.stack([logits(0.8, 0.5), logits(0.2, 0.5)])
    student = torch.stack([logits(0.5, 0.25), logits(0.5, 0.5)])
    student_final, teacher_final, positive = logits(0.5, 0.25), logits(0.5, 0.5), tensor([0, 1])
    to_half = 0.8 * log(0.8 / 0.5) + 0.2 * log(0.2 / 0.5)  # D(.8 || .5) = D(.2 || .5)
    to_quarter = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)  # D(.5 || .25)
    back = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)  # D(.25 || .5)
    got = lead_loss(student, teacher, student_final, teacher_final, positive)
    torch.testing.assert_close(got.weights, tensor([[0.8, 0.5], [0.2, 0.5]], dtype=torch.float64))
    want = {
        "layer": ((0.8 + 0.2) * to_half + 0.5 * to_quarter) / 2,
        "response": (to_quarter + back) / 2,
        "teacher": log(2),
        "student": -(log(0.5) + log(0.75)) / 2,
    }
    assert {part: getattr(got, part).item() for part in PARTS} == pytest.approx(want)
    assert got.total.item() == pytest.approx(sum(want.values()))
    frozen = lead_loss(
        student, teacher, student_final, teacher_final, positive, joint=False, reweight=False
    )
    assert frozen.layer.item() == pytest.approx((to_half + to_half + to_quarter) / 2 / 2)
    assert frozen.response.item() == pytest.approx(to_quarter / 2)
    assert frozen.teacher.item() == 0


def test_nll_and_weights_by_hand():
    teacher = torch.stack([logits(0.8, 0.5), logits(0.2, 0.5)])
    torch.testing.assert_close(
        nll(teacher, tensor([0, 1])), -tensor([[0.8, 0.5], [0.2, 0.5]]).double().log()
    )
    # tau_l = 2 takes square roots: sqrt(.8) : sqrt(.2) = 2 : 1
    torch.testing.assert_close(
        layer_weights(teacher, tensor([0, 1]), 2.0)[:, 0], tensor([2 / 3, 1 / 3]).double()
    )


# Properties


def test_a_temperature_divides_both_sides_without_a_factor(batch):
    student, teacher, student_final, teacher_final, positive = batch
    cool = response_loss(student_final / 3, teacher_final / 3, positive, joint=True).response
    warm = response_loss(student_final, teacher_final, positive, joint=True, tau_d=3.0).response
    torch.testing.assert_close(cool, warm)
    # Eq. (7) looks at the teacher before tau_d
    weights = [lead_loss(*batch, tau_d=t).weights for t in (1.0, 3.0)]
    torch.testing.assert_close(*weights)


def test_zero_when_student_equals_teacher_else_positive(batch):
    student, teacher, student_final, teacher_final, positive = batch
    for joint in (False, True):
        same = lead_loss(
            teacher, teacher, teacher_final, teacher_final, positive, joint=joint, tau_d=2.0
        )
        assert same.layer.item() == pytest.approx(
            0, abs=1e-15
        ) and same.response.item() == pytest.approx(0, abs=1e-15)
        for variant in VARIANTS:
            other = lead_loss(*batch, joint=joint, variant=variant)
            assert other.layer > 0 and other.response > 0 and other.student > 0
            torch.testing.assert_close(other.total, sum(getattr(other, part) for part in PARTS))
    maps = torch.rand(2, 4, 5, 3, 6).softmax(-1)
    assert feature_loss(maps, maps, student_final, positive).layer == 0
    assert feature_loss(maps, maps.flip(-1), student_final, positive).layer > 0


def test_direction_of_the_kl(batch):
    """A student that misses a peak of the teacher pays more than one that adds a peak."""
    student, teacher = tensor([[[0.0, -9, -9]]]), tensor([[[0.0, 0, -9]]])
    final, positive = tensor([[0.0, 0, 0]]), tensor([0])
    missing = lead_loss(student, teacher, student[0], teacher[0], positive, joint=False)
    adding = lead_loss(teacher, student, teacher[0], student[0], positive, joint=False)
    for part in ("layer", "response"):
        assert getattr(missing, part) > 3 > 1 > getattr(adding, part)
    assert response_loss(final, final, positive).response == 0
    there = response_loss(student[0], teacher[0], positive, joint=True).response
    torch.testing.assert_close(
        there, response_loss(teacher[0], student[0], positive, joint=True).response
    )


def test_who_gets_a_gradient(batch):
    inputs = batch[:4]
    frozen = gradients(lead_loss(*batch, joint=False).total, inputs)
    assert frozen[0].any() and frozen[2].any() and frozen[1] is None and frozen[3] is None
    assert (
        gradients(lead_loss(*batch, joint=False, teacher_layer_grad=True).total, inputs)[1] is None
    )
    joint = lead_loss(*batch)
    assert gradients(joint.layer, inputs)[1] is None
    for part in (joint.response, joint.total):
        assert gradients(part, inputs)[2].any() and gradients(part, inputs)[3].any()
    assert gradients(lead_loss(*batch, teacher_layer_grad=True).layer, inputs)[1].any()
    assert gradients(lead_loss(*batch, joint=False, variant="released").total, inputs)[1].any()
    rd = response_loss(*batch[2:], joint=False)
    assert gradients(rd.total, inputs)[2].any() and gradients(rd.total, inputs)[3] is None
    assert response_loss(*batch[2:]).total == rd.total  # frozen is the default


def test_joint_response_trains_both_sides_with_both_terms(batch):
    _, _, student_final, teacher_final, positive = batch
    loss = response_loss(student_final, teacher_final, positive, joint=True, tau_d=2.0).response
    by_torch = sum(
        torch.nn.functional.kl_div(
            (b / 2).log_softmax(-1), (a / 2).softmax(-1), reduction="batchmean"
        )
        for a, b in ((teacher_final, student_final), (student_final, teacher_final))
    )
    torch.testing.assert_close(loss, by_torch)
    torch.testing.assert_close(gradients(loss, batch[2:4]), gradients(by_torch, batch[2:4]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_sum_to_one_and_fall_for_a_corrupted_layer(batch, variant):
    student, teacher, student_final, teacher_final, positive = batch
    before = lead_loss(*batch, variant=variant, tau_l=0.7).weights
    corrupted = teacher.detach().clone()
    corrupted[1, torch.arange(4), positive] -= 3
    after = lead_loss(
        student, corrupted, student_final, teacher_final, positive, variant=variant, tau_l=0.7
    ).weights
    assert before.shape == ((3, 4) if variant == "paper" else (3,))
    for weights in (before, after):
        assert not weights.requires_grad
        torch.testing.assert_close(
            weights.sum(0), torch.ones(weights.shape[1:], dtype=torch.float64)
        )
    assert (after[1] < before[1]).all() and (after[[0, 2]] > before[[0, 2]]).all()


def test_weights_act_per_instance(batch):
    student, teacher, student_final, teacher_final, positive = batch
    got = lead_loss(*batch, tau_d=2.0, tau_l=0.5)
    terms = [
        [torch.exp(-nll(teacher[i, b][None], positive[b][None]) / 0.5) for b in range(4)]
        for i in range(3)
    ]
    want = 0
    for b in range(4):
        for i in range(3):
            t, s = (teacher[i, b] / 2).softmax(0), (student[i, b] / 2).softmax(0)
            want += terms[i][b] / sum(terms[j][b] for j in range(3)) * (t * (t / s).log()).sum() / 4
    torch.testing.assert_close(got.layer, want[0])


def test_without_reweighting(batch):
    each = kl(batch[1], batch[0]).mean(1)  # (K,)
    torch.testing.assert_close(lead_loss(*batch, reweight=False).layer, each.mean())
    torch.testing.assert_close(
        lead_loss(*batch, reweight=False, variant="released").layer, each.sum()
    )


def test_baselines(batch):
    final, positive = batch[2], batch[4]
    alone = student_loss(final, positive)
    torch.testing.assert_close(alone.total, torch.nn.functional.cross_entropy(final, positive))
    assert alone.weights is None and alone.layer == alone.response == alone.teacher == 0
    maps = torch.rand(2, 2, 4, 5, 3, 6).unbind()
    slow = sum((a - b) ** 2 for a, b in zip(*(m.flatten().tolist() for m in maps), strict=True)) / (
        2 * 4 * 5
    )
    assert feature_loss(*maps, final, positive).layer.item() == pytest.approx(slow, rel=1e-5)


def test_finite_at_huge_scores(batch):
    inputs = [(1e4 * t.detach().float()).requires_grad_() for t in batch[:4]]
    for variant, joint in product(VARIANTS, (False, True)):
        loss = lead_loss(*inputs, batch[4], joint=joint, variant=variant)
        assert loss.total.isfinite() and loss.total > 1e3 and loss.weights.isfinite().all(), variant
        moved = [g for g in gradients(loss.total, inputs) if g is not None]
        assert len(moved) >= 2 and all(g.isfinite().all() for g in moved), variant


# Bad input


WIDE = torch.zeros(4, 6)
BAD = [
    ({"teacher": torch.zeros(2, 4, 5)}, r"teacher \(2, 4, 5\): both must be"),
    ({"teacher": torch.zeros(3, 4, 6)}, "both must be"),
    ({"student": torch.zeros(0, 4, 5), "teacher": torch.zeros(0, 4, 5)}, "K at least 1"),
    ({"student_final": WIDE, "teacher_final": WIDE}, "both must be"),
    ({"teacher_final": WIDE}, r"teacher_final is \(4, 6\)"),
    (
        {"positive": tensor([0, 1, 2, 5])},
        r"positive is \[0, 1, 2, 5\]: every one must be a column from 0 to 4",
    ),
    ({"positive": tensor([0, 1, 2, -1])}, "positive"),
    ({"positive": tensor([0, 1, 2])}, "positive"),
    ({"positive": torch.zeros(4)}, "positive"),
    ({"tau_d": 0.0}, "tau_d is 0.0: a temperature must be positive"),
    ({"tau_l": -1.0}, "tau_l"),
    ({"variant": "Paper"}, "variant 'Paper' is unknown: use one of paper, released"),
]


def test_bad_input(batch, subtests):
    names = ("student", "teacher", "student_final", "teacher_final", "positive")
    for change, message in BAD:
        arguments = dict(zip(names, batch, strict=True)) | change
        with subtests.test(str(change)), pytest.raises(ValueError, match=message):
            lead_loss(**arguments)
    with pytest.raises(ValueError, match="variant 'Paper' is unknown"):
        kl(WIDE, WIDE, 2.0, "Paper")
    with pytest.raises(ValueError, match="tau_d is -1.0: a temperature must be positive"):
        kl(WIDE, WIDE, -1.0)
    with pytest.raises(ValueError, match="tau_l is 0.0: a temperature must be positive"):
        layer_weights(WIDE[None], tensor([0, 1, 2, 3]), 0.0)
    maps = torch.zeros(1, 4, 5, 2, 3), torch.zeros(1, 4, 5, 3, 3)
    with pytest.raises(ValueError, match="student_maps"):
        feature_loss(*maps, batch[2], batch[4])


# The released code


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_released_variant_reproduces_the_released_loss(case):
    """Loss, parts and gradients of all inputs, to 1e-9 in float64; "source" says of what."""
    settings, parts = case["settings"], case["parts"]
    states = {
        name: tensor(v, dtype=torch.float64, requires_grad=True)
        for name, v in case["inputs"].items()
    }
    layers = {
        side: [i - 1 for i in case[f"selected_{side}_layers_1based"]]
        for side in ("student", "teacher")
    }

    def selected(side):
        return (
            states[f"{side}_{x}"].transpose(0, 1)[layers[side]] for x in "qp"
        )  # (K, B, X, H), (K, N, Y, H)

    def layer_scores(side):
        return scores.dot(*(s[:, :, 0] for s in selected(side)))  # (K, B, N)

    def final_scores(side):
        return scores.dot(*(states[f"{side}_{x}"][None, :, -1, 0] for x in "qp"))[0]  # (B, N)

    student, teacher = final_scores("student"), final_scores("teacher")
    positive = torch.arange(len(student)) * case["n_passages_per_query"]
    options = {
        "tau_d": settings["temperature"],
        "joint": settings["train_de"],
        "variant": "released",
    }
    want = {"student": parts["loss_db"], "teacher": parts.get("loss_dual", 0)}
    if settings["distill_de_db_attention"]:
        masks = tensor(case["query_mask"]), tensor(case["passage_mask"])
        maps = (scores.attention_maps(*selected(side), *masks) for side in ("student", "teacher"))
        loss = feature_loss(*maps, student, positive)
        want |= {"layer": parts["loss_de_db_attention"], "response": 0}
    else:
        response = parts["loss_de_db_dis"] + settings["train_de"] * parts["loss_db_de_dis"]
        want |= {"layer": parts.get("loss_de_db_layer_dis", 0), "response": response}
        if settings["distill_de_db_layer_score"]:
            options |= {
                "tau_l": settings["layer_temperature"],
                "reweight": settings["layer_score_reweight"],
            }
            loss = lead_loss(
                layer_scores("student"),
                layer_scores("teacher"),
                student,
                teacher,
                positive,
                **options,
            )
            assert loss.weights.shape == (2,)
        else:
            loss = response_loss(student, teacher, positive, **options)
    assert loss.total.item() == pytest.approx(case["loss"], rel=0, abs=1e-9)
    assert {part: getattr(loss, part).item() for part in PARTS} == pytest.approx(
        want, rel=0, abs=1e-9
    )
    loss.total.backward()
    for name, grad in case["grads"].items():
        got = torch.zeros_like(states[name]) if states[name].grad is None else states[name].grad
        torch.testing.assert_close(got, tensor(grad, dtype=torch.float64), rtol=0, atol=1e-9)

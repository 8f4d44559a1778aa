"""Gradients of loss parts, and what layers say: hand-made cases, and a toy chain."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from toys import scale

from leadkit import config, result_commands
from leadkit.experiments.agreement import block_gradients, cosine, gradient_cosines
from leadkit.experiments.features import (
    Answers,
    added_to_last,
    answers,
    heard_by_temperature,
    layer_features,
    sureness,
)
from leadkit.experiments.method import Method
from leadkit.experiments.paper_methods import Alone
from leadkit.experiments.pipeline import Pipeline

# --- cosines of gradients


def test_cosines_by_hand():
    pile = [nn.Linear(2, 1), nn.Linear(2, 1)]
    inputs = torch.eye(2)
    along, across = (pile[0](each).sum() - pile[0].bias.sum() for each in inputs)
    losses = {"same": along, "negated": -3 * along, "orthogonal": across}
    first, second = block_gradients(along, pile)
    assert first.tolist() == [1, 0, 0] and not second.any()  # weights, bias; another block
    got = {name: cosine(first, block_gradients(loss, pile)[0]) for name, loss in losses.items()}
    assert got == {"same": 1.0, "negated": -1.0, "orthogonal": 0.0}
    assert math.isnan(cosine(first, second))


@dataclass(frozen=True)
class Mirror(Method):
    """A layer loss that is the student's, and a response loss against it, twice as large."""

    name = "mirror"

    def parts(self, step):
        loss = Alone().parts(step)["student"]
        return {"total": loss, "student": loss, "layer": loss, "response": -2 * loss}


def test_the_same_loss_agrees_in_every_block_and_the_negated_one_in_none(common):
    stage = replace(Pipeline(scale(common)).distil("LEAD"), method=Mirror())
    lines = gradient_cosines(stage, batches=2)
    assert [line["block"] for line in lines] == [1, 2] * 3
    expected = {"layer student": (1, 1), "response student": (-1, 2), "layer response": (-1, 0.5)}
    for line in lines:
        mean, ratio = expected[f"{line['first']} {line['second']}"]
        assert line["mean"] == pytest.approx(mean, abs=1e-5)
        assert line["sd"] == pytest.approx(0, abs=1e-5) and line["batches"] == 2
        assert line["ratio"] == pytest.approx(ratio, rel=1e-4)


def test_cosines_are_those_of_whole_backward_passes(common):
    stage = Pipeline(scale(common)).distil("LEAD", k=2)
    student, teacher = stage.student.model().train(), stage.teacher.model().train()
    models = {"student": student, "teacher": teacher}
    step = stage.step(0, models, {name: stage.batches(each.tower) for name, each in models.items()})
    gradients = []
    for part in ("layer", "student"):
        student.zero_grad()
        stage.method.parts(step)[part].backward()
        block = student.encoder.encoder.layer[1]
        gradients.append(torch.cat([p.grad.flatten() for p in block.parameters()]))
    want = (gradients[0] @ gradients[1] / (gradients[0].norm() * gradients[1].norm())).item()
    line = gradient_cosines(stage, batches=1)[1]
    assert (line["first"], line["second"], line["block"]) == ("layer", "student", 2)
    assert line["mean"] == pytest.approx(want, abs=1e-4) and line["sd"] is None


def test_a_block_above_every_selected_layer_has_no_cosine(common):
    """K = 1 of two layers, another in each batch: block 2 counts where layer 2 was drawn."""
    lines = gradient_cosines(Pipeline(scale(common)).distil("LEAD", k=1), batches=8)
    assert lines[0]["batches"] == 8 and 0 < lines[1]["batches"] < 8
    with pytest.raises(ValueError, match="batches is 0: at least one is needed"):
        gradient_cosines(Pipeline(scale(common)).distil("LEAD"), batches=0)


# --- what layers say


def made(*layers):
    """Answers of a teacher of these layers, (C,) scores each, to one query; the student's is it."""
    teacher = torch.tensor(layers)[:, None]  # (N, 1, C)
    return [Answers(teacher, teacher, torch.tensor([0]))]


def test_features_by_hand():
    nothing, sure, wrong = [0.0, 0.0, 0.0, 0.0], [99.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]
    lines = layer_features(made(nothing, sure, wrong))[:3]
    assert [line["entropy"] for line in lines[:2]] == pytest.approx([math.log(4), 0], abs=1e-5)
    assert [line["limit"] for line in lines] == pytest.approx([math.log(4)] * 3)
    wanted = [math.log(4), 0, math.log(3 + math.e)]
    assert [line["nll"] for line in lines] == pytest.approx(wanted, abs=1e-5)
    assert [line["right"] for line in lines] == [1, 1, 0]  # of equals the first
    warm = layer_features(made(wrong), tau_d=1e6)[0]
    assert warm["entropy"] == pytest.approx(math.log(4)) and warm["nll"] == lines[2]["nll"]


def test_how_sure_a_student_is_by_hand():
    """Two passages, the positive first: with scores a apart it has the probability 1 / (1 + e^-a).

    One query is answered rightly and one wrongly.
    """
    right, wrong = ([[[score, 0.0]]] for score in (2.0, -2.0))
    every = [Answers(torch.tensor(s), torch.tensor(s), torch.tensor([0])) for s in (right, wrong)]
    for line in sureness(every, (0.5, 3.0)):
        apart = 2 * line["times"]
        p = 1 / (1 + math.exp(-apart))
        assert line["nll"] == pytest.approx(-(math.log(p) + math.log(1 - p)) / 2)
        entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
        assert line["entropy"] == pytest.approx(entropy, abs=1e-5)


def test_layers_heard_by_hand():
    """The NLLs of the two layers differ by 2 nats: their weights are 1 and exp(-2 / tau_l)."""
    scores = torch.tensor([0.5, 0.5 / math.e**2]).logit().tolist()
    every = made(*([score, 0.0] for score in scores))
    heard = {(line["k"], line["tau_l"]): line["heard"] for line in heard_by_temperature(every)}
    for tau_l in (0.1, 0.3, 1.0, 3.0, 10.0):
        assert heard[1, tau_l] == pytest.approx(1)
        w = 1 / (1 + math.exp(-2 / tau_l))
        entropy = -w * math.log(w) - (1 - w) * math.log1p(-w) if w < 1 else 0
        assert heard[2, tau_l] == pytest.approx(math.exp(entropy), abs=1e-4)
    alike = made(*[[1.0, 0.0]] * 3)
    assert all(line["heard"] == pytest.approx(line["k"]) for line in heard_by_temperature(alike))


def test_answers_are_those_of_the_warmed_up_models_on_leads_batches(common):
    stage = Pipeline(scale(common)).distil("LEAD")
    first, second = answers(stage, 2)
    assert first.student.shape == (2, 4, 8) and first.teacher.shape == (3, 4, 8)
    assert not torch.equal(first.teacher, second.teacher)
    teacher = stage.teacher.model()
    with torch.no_grad():
        want = teacher(stage.batches(teacher.tower)(1), (1, 2, 3))[0]
    torch.testing.assert_close(second.teacher, want)
    even = answers(Pipeline(scale(common)).distil("LEAD", even_spread=True), 1)
    for name in ("teacher", "student"):
        spread = [line["spread"] for line in layer_features(even) if line["model"] == name]
        assert spread == pytest.approx([spread[-1]] * len(spread), rel=1e-2)


def test_the_commands(common, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(config.SCALES, "toy", scale(common))
    result_commands.gradients("toy", batches=2, out=tmp_path / "g.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    assert lines == gradient_cosines(Pipeline(scale(common)).distil("LEAD"), 2)
    result_commands.layers("toy", batches=2, out=tmp_path / "l.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert len(lines) == 3 + 2 + 2 * 5 + 6
    out = capsys.readouterr().out
    assert "response student" in out and "layers heard of K" in out
    assert "the student's scores, multiplied" in out


def test_a_layer_adds_what_the_last_one_does_not_say():
    draw = torch.Generator().manual_seed(0)
    positive = torch.randint(0, 8, (400,), generator=draw)  # (Q,)
    knows = 2 * torch.nn.functional.one_hot(positive, 8)  # (Q, C)
    noise = torch.randn(3, 400, 8, generator=draw)  # (J, Q, C)
    last = knows + noise[0]
    other, copy, deaf = knows + noise[1], 3 * last, noise[2]
    lines = added_to_last(torch.stack([other, copy, deaf, last]), positive)
    assert [line["layer"] for line in lines] == [1, 2, 3]
    assert lines[0]["low"] > 0.1 and abs(lines[1]["gain"]) < 1e-3 and lines[2]["low"] < 0
    assert lines[0]["share"] == pytest.approx(0.5, abs=0.1) and lines[1]["share"] > 0.5

"""Methods and architectures are objects: what the baselines compute, and what a new one takes."""

from dataclasses import dataclass, replace

import pytest
import torch
from scipy import stats
from scipy.optimize import brentq
from scipy.special import softmax
from toys import data, scale

from leadkit import losses, selection
from leadkit.config import Lead
from leadkit.experiments import methods
from leadkit.experiments.distillation import Distil, TeacherAfter
from leadkit.experiments.label_smoothing import SmoothAlone, SmoothLEAD
from leadkit.experiments.margin_mse import margins
from leadkit.experiments.method import Method, Step, logged
from leadkit.experiments.own_passages import OwnPassages
from leadkit.experiments.paper_methods import RD, Alone, as_wide, evened
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rows import WITHOUT_TEACHER
from leadkit.experiments.state_matching import StateMatching
from leadkit.models import retrievers
from leadkit.models.dual_encoder import DualEncoder


def test_rows_without_a_teacher_are_those_of_methods_that_need_none():
    alone = {name for name, each in methods.METHODS.items() if not each.needs_teacher}
    assert alone - {"student"} <= set(WITHOUT_TEACHER)


# --- LEAD


def student_gradient(stage):
    """The total's gradient in the student, one long vector, and the parts."""
    step = step_of(stage)
    parts = stage.method.parts(step)
    parameters = list(step.models["student"].parameters())
    each = torch.autograd.grad(parts["total"], parameters, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in each]), parts


def test_the_gradient_is_linear_in_the_weight_of_the_layer_loss(common):
    chain = Pipeline(scale(common))
    none, once, thrice = (
        student_gradient(chain.distil("LEAD", layer_weight=weight)) for weight in (0.0, 1.0, 3.0)
    )
    layer = once[0] - none[0]
    assert layer.norm() > 0.01 * once[0].norm()
    torch.testing.assert_close(thrice[0], none[0] + 3 * layer, rtol=1e-3, atol=1e-5)
    for weight, (_, parts) in zip((0, 1, 3), (none, once, thrice), strict=True):
        rest = parts["response"] + parts["teacher"] + parts["student"]
        torch.testing.assert_close(parts["total"], rest + weight * parts["layer"])


@pytest.mark.parametrize(
    "name, default, other", [("layer_weight", 1.0, 0.3), ("even_spread", False, True)]
)
def test_settings_that_came_later(name, default, other, common):
    plain, same, changed = (
        Pipeline(scale(common)).distil("LEAD", **changes)
        for changes in ({}, {name: default}, {name: other})
    )
    assert name not in plain.describe()["method"] and plain.key == same.key != changed.key


def test_layers_of_even_spread():
    """Each layer has the final scores' spread and its own order; a constant factor is lost."""
    layers, final = torch.randn(3, 4, 6), 5 * torch.randn(4, 6)
    even = evened(layers, final)
    assert torch.equal(even.argsort(-1), layers.argsort(-1))
    spread = final.std(-1).mean().item()
    assert even.std(-1).mean(-1).tolist() == pytest.approx([spread] * 3, rel=1e-5)
    torch.testing.assert_close(evened(layers * 0.01, final), even)
    torch.testing.assert_close(evened(final[None], final)[0], final)
    assert not evened(torch.zeros(1, 4, 6), final).any()
    leaf = layers.clone().requires_grad_()
    evened(leaf, final).sum().backward()
    factors = (even / layers)[:, :1, :1].expand_as(layers)
    torch.testing.assert_close(leaf.grad, factors)  # the factors are constants


def test_even_spread_changes_the_layer_loss_alone(common):
    chain = Pipeline(scale(common))
    (_, plain), (_, even) = (
        student_gradient(chain.distil("LEAD", even_spread=each)) for each in (False, True)
    )
    assert all(plain[part] == even[part] for part in ("response", "teacher", "student"))
    assert plain["layer"] != even["layer"] and even["layer"].isfinite()


def test_weighted_layers_are_drawn_by_their_evened_scores(common, monkeypatch):
    """Eq. (7) hears the same scores when it draws layers and when it weighs them."""
    drawn = []

    def select(strategy, k, M, N, generator, weights=None):
        drawn.append(weights)
        return (1,), (1,)

    monkeypatch.setattr(selection, "select", select)
    for even in (False, True):
        stage = Pipeline(scale(common)).distil("LEAD", k=1, strategy="weighted", even_spread=even)
        step = step_of(stage)
        stage.method.parts(step)
        model, batch = step.models["teacher"], step.batches["teacher"]
        every, final = model(batch, tuple(range(1, model.layers + 1)))  # (N, B, C), (B, C)
        heard = evened(every, final) if even else every
        weights = losses.layer_weights(heard, batch.positive, stage.method.tau_l).mean(1)  # (N,)
        torch.testing.assert_close(drawn[-1], weights)
    plain, even = (weights for weights in drawn if weights is not None)
    assert not torch.allclose(plain, even)


def test_maps_over_passages_that_a_cross_encoder_cuts():
    maps = torch.tensor([0.5, 0.25, 0.25, 0.0]).expand(1, 1, 1, 2, 4)  # (K, B, n, X, Y)
    assert as_wide(maps, 4) is maps
    assert as_wide(maps, 2)[0, 0, 0].tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)]] * 2
    padding = torch.zeros(1, 1, 1, 1, 4)
    assert torch.equal(as_wide(padding, 2), padding[..., :2])


def test_layers_heard_follow_the_temperature(common):
    """K = 2: a high temperature hears both layers, a low one one; without Eq. (7) none is asked."""
    for variant in ("released", "paper"):
        chain = Pipeline(scale(common, lead=Lead(k=2, variant=variant)))
        heard = [
            student_gradient(chain.distil("LEAD", tau_l=tau_l))[1]["layers_heard"]
            for tau_l in (1e-4, 0.1, 1e4)
        ]
        assert heard[0] < 1.01 and heard[0] < heard[1] < heard[2]
        assert heard[2].item() == pytest.approx(2, abs=1e-4)
    parts = student_gradient(chain.distil("LEAD", reweight=False))[1]
    assert "w1" in parts and "layers_heard" not in parts


# --- margin-MSE


def test_margins_by_hand():
    final = torch.tensor([[5.0, 3.0, 9.0, 1.0], [0.0, 0.0, 2.0, 6.0]])  # in-batch: B = 2, n = 2
    assert margins(final, torch.tensor([0, 2]), 2).tolist() == [[2.0], [-4.0]]
    own = torch.tensor([[4.0, 1.0, 2.0], [0.0, 3.0, 3.0]])  # a CE's: n = 3
    assert margins(own, torch.tensor([0, 0]), 3).tolist() == [[3.0, 2.0], [-3.0, -3.0]]


def step_of(stage):
    """The first step of a distillation as its method sees it, and its models."""
    models = {"student": stage.student.model().train(), "teacher": stage.teacher.model()}
    heads = stage.method.heads(models["student"], models["teacher"])
    batches = {name: stage.batches(model.tower)(0) for name, model in models.items()}
    return Step({**models, **heads}, batches, seed=0)


@pytest.mark.parametrize("teacher", ["DE", "CB", "CE"])
def test_margin_mse_is_the_mean_over_own_negatives(teacher, common):
    made = scale(common, data=data(common, passages=3))
    stage = Pipeline(made, teacher=teacher).distil("margin-MSE")
    step = step_of(stage)
    loss = stage.method.parts(step)["total"]
    s, t = (step.models[who](step.batches[who])[1] for who in ("student", "teacher"))
    squares = []
    for b, positive in enumerate(step.batches["student"].positive.tolist()):
        for other in (positive + 1, positive + 2):
            margin = (s[b, positive] - s[b, other]) - (t[b, positive] - t[b, other])
            squares.append(margin.item() ** 2)
    assert len(squares) == 8 and loss.item() == pytest.approx(sum(squares) / 8, rel=1e-5)
    loss.backward()
    assert all(p.grad is None for p in step.models["teacher"].parameters())
    assert any(p.grad is not None and p.grad.any() for p in step.models["student"].parameters())


def test_margin_mse_runs_and_the_student_moves(common):
    stage = Pipeline(scale(common)).distil("margin-MSE")
    before, after = stage.student.model().state_dict(), stage.model().state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not (stage.folder / "teacher").exists() and len(stage.log()) == 3


# --- RD + matching of the last [CLS] states


def test_states_are_compared_through_the_projection(common):
    stage = Pipeline(scale(common)).distil("RD + states")
    step = step_of(stage)
    parts = stage.method.parts(step)
    project = step.models["projection"].weight  # (H teacher, H student)
    want = 0.0
    for which in ("queries", "passages"):
        states = {}
        for who in ("student", "teacher"):
            model, tokens = step.models[who], getattr(step.batches[who], which)
            states[who] = model.states(tokens, (model.layers,))[0][:, 0]  # (P, H)
        want += ((states["student"] @ project.T - states["teacher"]) ** 2).mean().item()
    assert parts["states"].item() == pytest.approx(want, rel=1e-5) and want > 0
    total = parts["response"] + parts["student"] + parts["states"]
    assert parts["total"].item() == pytest.approx(total.item(), rel=1e-6)
    parts["total"].backward()
    assert step.models["projection"].weight.grad.any()
    assert all(p.grad is None for p in step.models["teacher"].parameters())


def test_without_weight_it_is_rd_and_the_projection_is_thrown_away(common):
    chain = Pipeline(scale(common))
    alone = replace(chain.distil("RD + states"), method=StateMatching(weight=0.0))
    want = chain.distil("RD").model().state_dict()
    got = alone.model().state_dict()
    assert got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)
    assert not list(alone.folder.rglob("*projection*"))


def test_a_cross_encoder_has_no_state_of_a_single_text(common):
    with pytest.raises(ValueError, match="'RD \\+ states' compares .*: a CE has none, it sees"):
        Pipeline(scale(common), teacher="CE").distil("RD + states")
    with pytest.raises(ValueError, match="weight is -1.0: it must not be negative"):
        StateMatching(weight=-1.0)


# --- deep supervision: LEAD's layers of the student, other targets


def same_entropy(scores, like):
    """The temperature at which scores (C,) have the entropy of others, (C,)."""
    scores, wanted = scores.detach().numpy(), stats.entropy(softmax(like.detach().numpy()))
    return brentq(lambda tau: stats.entropy(softmax(scores / tau)) - wanted, 1e-3, 1e3)


DEEP = ("deep label", "deep response", "deep soft response")


LAST = ("response", "soft response", "tempered response", "smooth label")


@pytest.mark.parametrize("target", [*DEEP, *LAST])
def test_each_drawn_layer_learns_what_the_last_one_learns(target, common):
    """Where the target is not deep the last layer learns all of them."""
    chain = Pipeline(scale(common))
    stage = chain.distil(f"RD + {target}")
    step = step_of(stage)
    parts = stage.method.parts(step)
    lead = chain.distil("LEAD", joint=False).method
    layers, theirs = step.layers(lead)
    assert stage.method.k == lead.k == len(layers)
    scores, last = step.models["student"](step.batches["student"], layers)  # (K, B, C), (B, C)
    if target not in DEEP:
        scores = last.expand_as(scores)
    teacher, final = step.models["teacher"](step.batches["teacher"], theirs)  # (K, B, C), (B, C)
    want = []
    for layer, softness in zip(scores.double().softmax(-1), teacher.double(), strict=True):
        for b, positive in enumerate(step.batches["student"].positive.tolist()):
            s, t = layer[b], final[b].double()
            if target == "smooth label":
                t = torch.nn.functional.one_hot(torch.tensor(positive), len(s)).double()
            tau = {"tempered response": 2}.get(target, 1)
            if "soft" in target or "smooth" in target:
                tau = same_entropy(t, softness[b])
            t = (t / tau).softmax(-1)
            cross = -s[positive].log() if target == "deep label" else (t * (t / s).log()).sum()
            want.append(cross.item())
    assert parts["layer"].item() == pytest.approx(sum(want) / len(want), rel=1e-5)
    rest = parts["response"] + parts["student"]
    torch.testing.assert_close(parts["total"], rest + parts["layer"])
    rd = chain.distil("RD").method.parts(step)
    assert (rd["response"], rd["student"]) == (parts["response"], parts["student"])
    parts["total"].backward()
    assert all(p.grad is None for p in step.models["teacher"].parameters())


def loud(model):
    """The scores of a toy are all alike; with larger weights they differ."""
    for parameter in model.parameters():
        parameter.data *= 10
    return model


def test_a_smoothed_label_gives_its_share_to_all_passages(common):
    stage = Pipeline(scale(common)).distil("student + smooth label")
    assert stage.teacher is None and stage.method.smoothing == 0.2
    model = loud(stage.student.model().train())
    step = Step({"student": model}, {"student": stage.batches(model.tower)(0)}, seed=0)
    _, final = step.models["student"](step.batches["student"])  # (B, C)
    log_s = final.log_softmax(-1)
    own = log_s[range(len(final)), step.batches["student"].positive]  # (B,)
    parts = stage.method.parts(step)
    torch.testing.assert_close(parts["total"], -(0.8 * own + 0.2 * log_s.mean(-1)).mean())
    torch.testing.assert_close(parts["student"], -own.mean())
    assert (parts["total"] - parts["student"]).abs() > 0.01
    with pytest.raises(ValueError, match="smoothing is 1.0: it must be from 0 to below 1"):
        SmoothAlone(1.0)


def test_the_control_of_a_ces_students_sees_what_they_see(common):
    """The same texts, and each query's own passages only: its hard loss is theirs."""
    own = Pipeline(scale(common)).distil("student, own passages")
    taught = Pipeline(scale(common), teacher="CE").distil("RD")
    assert own.teacher is None and own.method == OwnPassages()
    model = loud(own.student.model())
    ours, theirs = (stage.batches(model.tower)(0) for stage in (own, taught))
    assert theirs.own and not ours.own
    step = Step({"student": model}, {"student": ours}, seed=0)
    got, usual = (method.parts(step)["student"] for method in (own.method, Alone()))
    _, final = model(theirs)  # (B, n)
    torch.testing.assert_close(got, losses.nll(final, theirs.positive).mean())
    assert usual - got > 0.01


@pytest.mark.parametrize("teacher", ["CB", "CE"])
def test_a_teacher_speaks_of_own_passages_and_the_label_of_all(teacher, common):
    """Slow loops over queries: the KL over n passages, the hard loss over all B * n."""
    made = scale(common, data=data(common, passages=3))
    stage = Pipeline(made, teacher=teacher).distil("RD on own passages")
    step = step_of(stage)
    model, other = loud(step.models["student"]), loud(step.models["teacher"])
    parts = stage.method.parts(step)
    given, asked = step.batches["student"], step.batches["teacher"]
    everywhere = replace(given, own=False)
    scores, (_, theirs) = model(everywhere)[1].double(), other(asked)  # (B, N), (B, C)
    response, hard = [], []
    for b in range(len(scores)):
        mine = [3 * b, 3 * b + 1, 3 * b + 2]
        t = theirs[b].double() if asked.own else theirs[b].double()[mine]
        t, s = t.softmax(-1), scores[b][mine].softmax(-1)
        response.append((t * (t / s).log()).sum().item())
        hard.append(-scores[b].log_softmax(-1)[3 * b].item())
    assert given.own == (teacher == "CE") and len(scores[0]) == 3 * len(scores)
    assert parts["response"].item() == pytest.approx(sum(response) / len(response), rel=1e-4)
    assert parts["student"].item() == pytest.approx(sum(hard) / len(hard), rel=1e-4)
    torch.testing.assert_close(parts["total"], parts["response"] + parts["student"])
    parts["total"].backward()
    assert all(p.grad is None for p in other.parameters())


def test_the_label_speaks_of_own_passages_and_of_all(common):
    """Slow loops over queries: the hard loss over n passages beside that over all B * n."""
    made = scale(common, data=data(common, passages=3))
    stage = Pipeline(made).distil("student + label on own passages")
    model = loud(stage.student.model())
    batch = stage.batches(model.tower)(0)
    parts = stage.method.parts(Step({"student": model}, {"student": batch}, seed=0))
    scores = model(batch)[1].double()  # (B, N)
    near, hard = [], []
    for b in range(len(scores)):
        mine = scores[b][[3 * b, 3 * b + 1, 3 * b + 2]]
        near.append(mine.exp().sum().log().item() - mine[0].item())
        hard.append(scores[b].exp().sum().log().item() - mine[0].item())
    assert stage.teacher is None and len(scores[0]) == 3 * len(scores)
    assert parts["near"].item() == pytest.approx(sum(near) / len(near), rel=1e-4)
    assert parts["student"].item() == pytest.approx(sum(hard) / len(hard), rel=1e-4)
    assert parts["student"] - parts["near"] > 0.1
    torch.testing.assert_close(parts["total"], parts["near"] + parts["student"])


@pytest.mark.parametrize("layer_weight", [1.0, 0.3])
def test_lead_with_a_smoothed_label_differs_in_the_label_alone(layer_weight, common):
    chain = Pipeline(scale(common))
    plain, smooth = (
        chain.distil(name, layer_weight=layer_weight) for name in ("LEAD", "LEAD + smooth label")
    )
    step = step_of(smooth)
    loud(step.models["student"])
    want, got = (stage.method.parts(step) for stage in (plain, smooth))
    alone = SmoothAlone().parts(step)
    assert smooth.method.trains_teacher and want.keys() == got.keys()
    for part in want.keys() - {"total"}:  # also the sharp label, which is logged
        torch.testing.assert_close(got[part], want[part])
    assert (alone["total"] - want["student"]).abs() > 0.01
    difference = alone["total"] - want["student"]
    torch.testing.assert_close(got["total"], want["total"] + difference)
    with pytest.raises(ValueError, match="smoothing is -0.1: it must be from 0 to below 1"):
        SmoothLEAD(smoothing=-0.1)
    with pytest.raises(ValueError, match="tau_l is 0.0"):
        SmoothLEAD(tau_l=0.0)


# --- what a stranger adds


@dataclass(frozen=True)
class Half(Method):
    """Half of RD's loss: a method of a stranger."""

    name = "half RD"

    def parts(self, step: Step) -> dict[str, torch.Tensor]:
        parts = RD().parts(step)
        return {"total": parts["total"] / 2}


def test_a_new_method_runs_by_its_name(common, monkeypatch):
    monkeypatch.setitem(methods.METHODS, Half.name, Half)
    chain = Pipeline(scale(common))
    half, whole = chain.distil("half RD").log()[0], chain.distil("RD").log()[0]
    assert half["total"] == pytest.approx(whole["total"] / 2)
    with pytest.raises(ValueError, match="method 'none' is unknown: use one of .*half RD"):
        chain.distil("none")


class MeanEncoder(DualEncoder):
    """A DE that compares means of token states: an architecture of a stranger."""

    architecture = "mean"

    def compared(self, states, mask):
        return states.mean(1, keepdim=True)  # (P, 1, H)

    def encode(self, tokens):
        return self.compared(self.states(tokens, (self.layers,))[0], tokens.mask)[:, 0]  # (P, H)


def test_a_new_architecture_teaches_and_searches(common, monkeypatch):
    monkeypatch.setitem(retrievers.ARCHITECTURES, "mean", MeanEncoder)
    chain = Pipeline(scale(common), teacher="mean")
    lead = chain.distil("LEAD")
    assert isinstance(lead, Distil) and lead.log()[0]["layer"] > 0
    searched = chain.evaluate(TeacherAfter(lead.data, lead), "test")
    assert searched.first is None and searched.ranking().rows.shape == (6, 20)
    with pytest.raises(ValueError, match="teacher 'X' is unknown: use one of DE, CB, CE, mean"):
        Pipeline(scale(common), teacher="X")


def test_a_teacher_after_needs_a_method_that_trains_it(common):
    rd = Pipeline(scale(common)).distil("RD")
    with pytest.raises(ValueError, match="method 'RD' does not train its teacher"):
        TeacherAfter(rd.data, rd)


def test_parts_of_a_loss_are_logged_by_name():
    scores = torch.tensor([[2.0, 0.0]])
    loss = losses.student_loss(scores, torch.tensor([0]))
    assert set(logged(loss)) == {"total", "layer", "response", "teacher", "student"}

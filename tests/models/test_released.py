"""The released code, its losses and retrievers together: golden values and properties."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import tensor
from torch.nn.functional import normalize
from toys import encoder, scale

from leadkit import losses
from leadkit.config import Lead
from leadkit.data.tokens import pair
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.texts import passages_of, queries_of
from leadkit.models.batch import Batch, Tokens
from leadkit.models.retrievers import build
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower
from leadkit.retrieval.reranking import rerank
from leadkit.retrieval.runs import Run

FILE = Path(__file__).parent.parent / "golden" / "released_loss_colbert_cross_encoder.json"
GOLDEN = json.loads(FILE.read_text())["cases"]
RELEASED = Lead(k=2, variant="released")


def stub(tower, layers, queries, passages):
    """A retriever of this tower that answers with these token states: (texts, L, T, H) each."""
    model = build(replace(tower, encoder=f"random:{layers}x8"))
    states = {True: queries, False: passages}
    model.states = lambda tokens, wanted: [states[tokens.kinds is None][:, i - 1] for i in wanted]
    return model


def batch_of(case):
    """A golden case's batch. Of its tokens only the masks matter: token types mark the passages."""
    q_mask, p_mask = (tensor(case[f"{x}_mask"]).bool() for x in ("query", "passage"))
    n = case["n_passages_per_query"]
    own = case["kind"] == "ce"
    positive = torch.arange(len(q_mask)) * (0 if own else n)
    passages = Tokens(p_mask.long(), p_mask, p_mask.long())
    return Batch(Tokens(q_mask.long(), q_mask), passages, positive, own)


@pytest.mark.parametrize("case", GOLDEN, ids=[f"{c['kind']}{i}" for i, c in enumerate(GOLDEN)])
def test_towers_and_loss_together_reproduce_the_released_loss(case):
    """Loss, parts and the gradients of all token states, to 1e-9 in float64."""
    inputs = {
        name: tensor(values, dtype=torch.float64, requires_grad=True)
        for name, values in case["inputs"].items()
    }
    batch, settings, parts = batch_of(case), case["settings"], case["parts"]
    a, b = (case[f"selected_{side}_layers_1based"] for side in ("teacher", "student"))
    student = stub(
        Tower("DE", "", released=True),
        inputs["student_q"].shape[1],
        inputs["student_q"],
        inputs["student_p"],
    )
    layers, final = student(batch, tuple(b))
    if case["kind"] == "cb":
        tower = Tower("CB", "", released=True)
        states = inputs["teacher_q"], inputs["teacher_p"]
        teacher_layers, teacher_final = stub(tower, states[0].shape[1], *states)(batch, tuple(a))
    else:
        every = inputs["teacher_layer_scores"]
        teacher_layers, teacher_final = every[[i - 1 for i in a]], every[-1]
    loss = losses.lead_loss(
        layers,
        teacher_layers,
        final,
        teacher_final,
        batch.positive,
        tau_d=settings["temperature"],
        tau_l=settings["layer_temperature"],
        joint=settings["joint"],
        variant="released",
    )
    x = "col" if case["kind"] == "cb" else "ce"
    response = parts[f"loss_{x}_db_dis"] + settings["joint"] * parts[f"loss_db_{x}_dis"]
    want = [
        parts["loss_db"],
        parts.get(f"loss_{x}", 0),
        parts[f"loss_{x}_db_layer_dis"],
        response,
        case["loss"],
    ]
    got = [loss.student, loss.teacher, loss.layer, loss.response, loss.total]
    assert [part.item() for part in got] == pytest.approx(want, rel=0, abs=1e-9)
    loss.total.backward()
    for name, gradient in case["grads"].items():
        expected = tensor(gradient, dtype=torch.float64)
        torch.testing.assert_close(inputs[name].grad, expected, rtol=0, atol=1e-9)


def test_only_the_final_score_is_normalised():
    """The last layer's layer score and the final score are two scores, of the same states."""
    torch.manual_seed(0)
    q, p = 3 * torch.randn(2, 3, 4, 8), 3 * torch.randn(4, 3, 5, 8)  # (texts, L, T, H)
    q_mask, p_mask = torch.ones(2, 4).bool(), torch.ones(4, 5).bool()
    q_mask[0, 2:] = p_mask[1, 3:] = False
    passages = Tokens(p_mask.long(), p_mask, p_mask.long())
    batch = Batch(Tokens(q_mask.long(), q_mask), passages, torch.tensor([0, 2]))
    model = stub(Tower("CB", "", released=True), 3, q, p)
    layers, final = model(batch, (1, 3))
    alone = model(batch)[1]
    _, of_fd = model.interactions(batch, (1,))
    for b in range(2):
        for c in range(4):
            y = p[c, :, p_mask[c]]  # (L, tokens, H)
            raw = torch.einsum("lxh,lyh->lxy", q[b], y).amax(2).sum(1)  # (L,)
            unit = normalize(q[b, -1], dim=-1) @ normalize(y[-1], dim=-1).T  # (X, tokens)
            for value, expected in (
                (layers[0, b, c], raw[0]),
                (layers[1, b, c], raw[-1]),
                (final[b, c], unit.amax(1).sum()),
                (alone[b, c], unit.amax(1).sum()),
                (of_fd[b, c], unit.amax(1).sum()),
            ):
                torch.testing.assert_close(value, expected)
    plain = stub(Tower("CB", ""), 3, q, p)
    every, last = plain(batch, (1, 3))
    assert torch.equal(every[1], last) and not torch.allclose(last, layers[1])  # masked queries


def test_maps_of_fd_are_over_all_passages_of_the_batch():
    torch.manual_seed(0)
    q, p = torch.randn(2, 2, 4, 8), torch.randn(4, 2, 5, 8)
    mask = torch.ones(4, 5).bool()
    batch = Batch(
        Tokens(mask[:2, :4].long(), mask[:2, :4]),
        Tokens(mask.long(), mask, mask.long()),
        torch.tensor([0, 2]),
    )
    every, _ = stub(Tower("DE", "", released=True), 2, q, p).interactions(batch, (1, 2))
    own, _ = stub(Tower("DE", ""), 2, q, p).interactions(batch, (1, 2))
    assert every.shape == (2, 2, 4, 4, 5) and own.shape == (2, 2, 2, 4, 5)
    torch.testing.assert_close(own[:, 1], every[:, 1, 2:])


def test_weights_are_from_the_mean_of_all_processes():
    """The mean of NLLs that two processes have is what each of them weighs its layers by."""
    torch.manual_seed(0)
    scores = torch.randn(3, 4, 6)  # (K, B, C)
    positive = torch.tensor([0, 1, 2, 3])

    def weights(rows, average):
        part, final = scores[:, rows], scores[0, rows]
        options = {"variant": "released", "tau_l": 2.0, "average": average}
        return losses.lead_loss(part, part, final, final, positive[rows], **options).weights

    nll = losses.nll(scores, positive)  # (K, B)
    want = (-nll.mean(1) / 2.0).softmax(0)
    torch.testing.assert_close(weights(slice(0, 4), itself), want)
    other = nll[:, 2:].mean(1)
    torch.testing.assert_close(weights(slice(0, 2), lambda value: (value + other) / 2), want)
    assert not torch.allclose(weights(slice(0, 2), itself), want)


def itself(value):
    return value


# --- texts


def test_markers_take_the_place_of_cls_and_masks_fill_the_queries(name):
    words = load_tokenizer("random:2x32")
    data = scale(name).data
    plain, marked = (Tower("CB", "random:2x32", released=released) for released in (False, True))
    before, after = (queries_of(tower, data, "train") for tower in (plain, marked))
    assert set(after.lengths) == {data.query_tokens}
    for i in range(len(before)):
        first, *rest = after.row(i).tolist()
        assert first == words.convert_tokens_to_ids("[unused1]")
        fill = data.query_tokens - len(before.row(i))
        assert rest == before.row(i)[1:].tolist() + fill * [words.mask_token_id]
    tokens = after.rows(np.arange(4))
    assert tokens.mask.all() and tokens.ids.shape == (4, data.query_tokens)
    before, after = (passages_of(tower, data) for tower in (plain, marked))
    np.testing.assert_array_equal(before.lengths, after.lengths)
    for i in (0, 5):
        first, *rest = after.row(i).tolist()
        assert first == words.convert_tokens_to_ids("[unused2]")
        assert rest == before.row(i)[1:].tolist() == after.take([i]).row(0)[1:].tolist()
    assert before.row(0)[0] == words.cls_token_id  # the tokens on disk are not marked


def test_markers_are_different_tokens_where_the_vocabulary_has_them(name, tmp_path):
    folder = encoder(tmp_path / "bert", "bert")
    words = json.loads((tmp_path / "bert" / "tokenizer.json").read_text())
    last = len(words["model"]["vocab"])
    words["model"]["vocab"] |= {"[unused1]": last, "[unused2]": last + 1}
    (tmp_path / "bert" / "tokenizer.json").write_text(json.dumps(words))
    tower, data = Tower("CB", folder, released=True), scale(name).data
    query, passage = queries_of(tower, data, "dev").row(0), passages_of(tower, data).row(0)
    assert (query[0], passage[0]) == (last, last + 1)


def test_only_who_marks_is_marked(name):
    data = scale(name).data
    rows = np.arange(3)
    for architecture in ("DE", "CE"):
        plain, released = (
            Tower(architecture, "random:2x32", released=value) for value in (False, True)
        )
        for texts in (lambda tower: queries_of(tower, data, "dev"), lambda t: passages_of(t, data)):
            one, other = texts(plain).rows(rows), texts(released).rows(rows)
            assert torch.equal(one.ids, other.ids) and torch.equal(one.mask, other.mask)
    ce = [
        pair(queries_of(tower, data, "dev"), passages_of(tower, data), rows, rows)
        for tower in (plain, released)
    ]
    assert torch.equal(ce[0].ids, ce[1].ids)
    assert ce[0].kinds.any() and not ce[1].kinds.any()


def test_re_ranking_scores_normalised_states_of_full_queries(name):
    """Every position counts, and no score depends on the batch that a query is in."""
    data, tower = scale(name).data, Tower("CB", "random:2x32", released=True)
    torch.manual_seed(0)
    model = build(tower).eval()
    queries, passages = queries_of(tower, data, "dev"), passages_of(tower, data)
    rows = np.stack([np.random.default_rng(i).permutation(9)[:8] for i in range(len(queries))])
    got = rerank(model, queries, passages, Run(rows, np.zeros(rows.shape, np.float32)), 8)
    for i in range(len(queries)):
        for p, score in zip(got.rows[i], got.scores[i], strict=True):
            with torch.no_grad():
                q, d = (
                    normalize(model.states(texts.rows(np.array([row])), (2,))[0][0], dim=-1)
                    for texts, row in ((queries, i), (passages, p))
                )
            assert len(q) == data.query_tokens
            assert score == pytest.approx((q @ d.T).amax(1).sum().item(), rel=3e-3)


# --- whole or not at all


@pytest.mark.parametrize("teacher", ["DE", "CB", "CE"])
def test_the_variant_switches_all_stages_of_a_pipeline(name, teacher):
    chain = Pipeline(scale(name, lead=RELEASED), 1, teacher)
    methods = [chain.distil(method) for method in ("RD", "FD", "LEAD")]
    for stage in (chain.miner, chain.teacher, chain.student):
        assert stage.tower.released and stage.tower.scale == 1 and stage.tower.dropout == 0.1
        assert stage.schedule.weight_decay == 0
    for stage in methods:
        assert stage.method.variant == "released" and stage.schedule.weight_decay == 0
    assert [stage.method.redraw_every for stage in methods] == [1, 10, 10]
    plain = Pipeline(scale(name), 1, teacher)
    assert not plain.teacher.tower.released and plain.teacher.schedule.weight_decay > 0
    for method in ("RD", "FD", "LEAD"):
        for one, other in ((plain, chain), (chain, plain)):
            half = other.distil(method).method
            with pytest.raises(ValueError, match="reproduced whole or not at all"):
                replace(one.distil(method), method=half)
    with pytest.raises(ValueError, match="variant is 'released', but the DE has released = False"):
        plain.distil("LEAD", variant="released")
    with pytest.raises(ValueError, match="variant is 'paper', but the DE has released = True"):
        chain.distil("LEAD", variant="paper")


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["DE", "CB", "CE"])
def test_a_released_chain_runs(name, teacher):
    chain = Pipeline(scale(name, lead=RELEASED), 0, teacher)
    for method in ("RD", "FD", "LEAD"):
        for row in chain.distil(method).log():
            assert np.isfinite(row["total"]) and row["student"] > 0
            assert (row["layer"] > 0) == (method != "RD")
    assert chain.rows()["teacher"].record()["measures"]["RR@10"] > 0

"""Retrievers out and in again: exports, ready teachers, the evaluation of a checkpoint."""

import importlib
import json
import re
from dataclasses import replace

import ir_measures
import numpy as np
import pytest
import sentence_transformers
import torch
from huggingface_hub import ModelCard
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize
from test_command_line import call as call  # a fixture
from toys import encoder, scale

from leadkit import config, export
from leadkit.data.tokens import pair, tokenise
from leadkit.experiments import recipe
from leadkit.experiments.own_evaluation import plan
from leadkit.experiments.ready import ready_tower, saved
from leadkit.experiments.texts import collection
from leadkit.models.batch import Batch
from leadkit.models.retrievers import build, load
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower
from leadkit.retrieval.measures import MEASURES, measure

QUERIES = ["list of the index", "sort a table", "array"]
PASSAGES = ["the index of a list", "sort", "a table of text and numbers", "graph node"]


def scores_of(model, cache):
    """(3, 4): the final scores."""
    tokenizer = load_tokenizer(model.tower.encoder)
    q = tokenise(dict(enumerate(QUERIES)), tokenizer, 64, cache)
    p = tokenise(dict(enumerate(PASSAGES)), tokenizer, 64, cache)
    rows = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    with torch.no_grad():
        if model.pairs_only:
            return model.score(pair(q, p, *rows), (model.layers,))[0].view(3, 4)
        batch = Batch(q.rows(np.arange(3)), p.rows(np.arange(4)), torch.zeros(3).long())
        return model(batch)[1]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("architecture, linear", [("DE", 0), ("CB", 0), ("CB", 8), ("CE", 0)])
def test_every_architecture_scores_the_same_in_sentence_transformers(
    architecture, linear, kind, common, tmp_path
):
    start = encoder(tmp_path / kind, kind)
    model = build(Tower(architecture, start, 0.5, linear)).eval()
    data = replace(scale(common).data, query_tokens=24, passage_tokens=48)
    export.save_retriever(model, data, "card", tmp_path / "out")
    want = scores_of(model, tmp_path) / 0.5
    folder = str(tmp_path / "out")
    if architecture == "CE":
        pairs = [(query, passage) for query in QUERIES for passage in PASSAGES]
        got = torch.from_numpy(CrossEncoder(folder, device="cpu").predict(pairs)).view(3, 4)
    else:
        library = {"DE": SentenceTransformer, "CB": MultiVectorEncoder}[architecture]
        there = library(folder, device="cpu")
        got = there.similarity(there.encode_query(QUERIES), there.encode_document(PASSAGES))
    assert ((got - want).abs().max() / want.abs().max()).item() < 1e-6
    torch.testing.assert_close(scores_of(load(folder), tmp_path), want * 0.5)


@pytest.mark.parametrize("architecture", ["DE", "CB", "CE"])
def test_a_ready_teacher_needs_no_warm_up(architecture, common, tmp_path):
    start = encoder(tmp_path / "bert", "bert")
    toy = scale(common, student_encoder="random:2x32", teacher_encoder=str(tmp_path / "ready"))
    export.save_retriever(build(Tower(architecture, start)), toy.data, "card", tmp_path / "ready")
    for name in ("retriever.json", "head"):  # as others' folders: nothing of leadkit
        path = tmp_path / "ready" / name
        (path.unlink if path.is_file() else lambda: None)()
    rows = export.distil_and_export(
        toy, tmp_path / "out", ready=True, teacher_out=tmp_path / "after"
    )
    stage = rows["distilled"].retriever
    assert (stage.teacher.kind, stage.teacher.tower.architecture) == ("ready", architecture)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "warm-up: teacher" not in card and "warm-up: student" in card
    assert load(tmp_path / "after").architecture == architecture
    with pytest.raises(ValueError, match=f"the ready teacher .* is a {architecture}"):
        recipe.Recipe(toy, 0, "CE" if architecture == "DE" else "DE", ready=True)


def test_a_saved_retriever_is_read_where_its_name_points(tmp_path, monkeypatch):
    retriever = build(Tower("DE", "random:2x32"))
    retriever.save(tmp_path / "kept", load_tokenizer("random:2x32"))
    monkeypatch.setenv("HOME", str(tmp_path))
    tower = ready_tower("~/kept", 0.0, False)
    assert (tower.architecture, tower.encoder) == ("DE", "~/kept")
    assert not saved(f"layers:1:{tmp_path}/kept")  # it is read whole or not at all


def test_evaluate_reproduces_the_record_and_its_run_has_the_same_measures(
    call, common, tmp_path, monkeypatch
):
    toy = scale(common, student_encoder=encoder(tmp_path / "bert", "bert", 2))
    rows = export.distil_and_export(toy, tmp_path / "out")
    want = rows["distilled"].record()["measures"]
    run = tmp_path / "run.trec"
    code, out, err = call(
        "evaluate", tmp_path / "out", "--collection", common, "--depth", 20, "--run", run
    )
    assert code == 0, err
    printed = {name: float(value) for name, value in re.findall(r"(\S+@\d+) ([\d.]+)", out)}
    assert printed == pytest.approx(want, abs=5e-5)
    texts = collection(common)
    metrics = {measure(name, 1): name for name in MEASURES}
    read = ir_measures.read_trec_run(str(run))
    got = ir_measures.calc_aggregate(list(metrics), texts.qrels["test"], read)
    assert {metrics[m]: value for m, value in got.items()} == pytest.approx(want, abs=1e-6)


def test_evaluate_of_a_retriever_that_cannot_search(common, tmp_path):
    start = encoder(tmp_path / "bert", "bert")
    toy = scale(common)
    for name in ("CB", "DE"):
        export.save_retriever(build(Tower(name, start)), toy.data, "card", tmp_path / name)
    words, dense = (str(tmp_path / name) for name in ("CB", "DE"))
    stage = plan(words, common, "test", "", (None, None), 20, 5)
    assert stage.first.retriever is None and stage.record()["measures"]["RR@10"] > 0
    stage = plan(words, common, "test", dense, (None, None), 20, 5)
    assert stage.first.retriever.tower.architecture == "DE"
    with pytest.raises(ValueError, match="searches and needs none"):
        plan(dense, common, "test", dense, (None, None), 20, 5)
    for lengths, said in {(0, None): "query_tokens is 0", (None, 2): "passage_tokens is 2"}.items():
        with pytest.raises(ValueError, match=f"{said}: use at least 3"):
            plan(dense, common, "test", "", lengths, 20, 5)


def test_equal_scores_are_written_in_the_order_of_the_run(tmp_path):
    from leadkit.retrieval.runs import Run

    run = Run(np.array([[2, 0, 1]]), np.array([[1.0, 1.0, 1.0]], np.float32))
    run.write_trec(tmp_path / "run", ["q"], ["a", "b", "c"], "t")
    scores = [np.float32(line.split()[4]) for line in (tmp_path / "run").read_text().splitlines()]
    assert scores[0] == 1 and scores[0] > scores[1] > scores[2] > 0.999


def test_card_says_what_the_hub_reads(common, tmp_path):
    toy = scale(common, student_encoder=encoder(tmp_path / "bert", "bert", 2))
    rows = export.distil_and_export(toy, tmp_path / "out", license="apache-2.0")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0" and card.data.datasets == ["toy"]
    assert card.data.base_model is None  # a local folder
    told = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert told == rows["distilled"].record()["measures"]
    assert list(rows) == ["BM25", "as it came", "warmed up", "distilled"]
    assert (recipe.verdict(rows) or "One seed.") in card.text


def test_card_says_what_follows_the_pooling(common, tmp_path):
    came = SentenceTransformer(encoder(tmp_path / "bert", "bert", 2), device="cpu")
    came.append(Normalize())
    came.save_pretrained(str(tmp_path / "came"))
    export.distil_and_export(
        scale(common, student_encoder=str(tmp_path / "came")), tmp_path / "out", method="student"
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the vector of a text is the mean of its token states, then `normalize`,\n" in card


def test_sentence_transformers_5_is_told_the_version_that_it_needs(common, tmp_path, monkeypatch):
    """Version 5 says this number before it stops at query_length; leadkit says it too."""
    start = encoder(tmp_path / "bert", "bert")
    data = scale(common).data
    export.save_retriever(build(Tower("DE", start)), data, "card", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())
    needed = sentence_transformers.__version__
    assert settings["__version__"]["sentence_transformers"] == needed >= "6.2"
    monkeypatch.delattr(sentence_transformers, "MultiVectorEncoder")  # as in version 5
    with pytest.raises(ImportError, match=r"needs sentence-transformers 6\.2 or newer"):
        importlib.reload(export)


def test_rates_suit_the_width(tmp_path):
    wide = encoder(tmp_path / "wide", "bert", 2, 384)
    base = config.scale("smoke", teacher_encoder=wide)
    chosen = recipe.suited(base, None, None, None, None)
    assert (chosen.teacher.learning_rate, chosen.distil.learning_rate) == (5e-5, 5e-5)
    assert chosen.student == base.student  # a miniature's
    given = recipe.suited(base, 1e-5, 7, 3, 0.5)
    assert given.distil == replace(base.distil, learning_rate=1e-5, steps=7, warmup=0.5)
    assert {given.warm_up.steps, given.teacher.steps, given.student.steps} == {3}


class Row:
    def __init__(self, value):
        self.value = value

    def values(self, name):
        return np.array([self.value])


def test_verdict_says_when_the_distillation_did_not_help():
    rows = {"BM25": Row(0.9), "as it came": Row(0.4), "warmed up": Row(0.5)}
    assert recipe.verdict(rows | {"distilled": Row(0.6)}) == ""
    said = "did not help: RR@10 is 0.4500 after it and 0.5000 warmed up"
    assert said in recipe.verdict(rows | {"distilled": Row(0.45)})

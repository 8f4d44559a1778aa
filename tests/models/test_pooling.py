"""Mean pooling: a DE's vectors are the means of the tokens' states, whatever the padding."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from test_encoders import PASSAGES, QUERIES, Plain, batch, folders, wider  # noqa: F401
from test_export import LONG, own_scores
from toys import data, scale

from leadkit import config, export
from leadkit.experiments.pipeline import Pipeline, tower
from leadkit.files import write_json
from leadkit.models.batch import Batch
from leadkit.models.retrievers import build, load
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower

KINDS = ("bert", "distilbert", "roberta")


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_means_of_single_texts(kind, folders, tmp_path):  # noqa: F811
    plain = Plain(folders[kind])
    model = build(Tower("DE", folders[kind], scale=0.5, dropout=0.0, pooling="mean")).eval()
    made = batch(folders[kind], tmp_path, own=False)
    pad = load_tokenizer(folders[kind]).pad_token_id
    queries, passages = wider(made.queries, pad), wider(made.passages, pad)

    def vectors(texts, layer):
        return torch.stack([plain(text).hidden_states[layer][0].mean(0) for text in texts])

    with torch.no_grad():
        every, final = model(Batch(queries, passages, made.positive), (1, 3))
        for scores, layer in ((every[0], 1), (every[1], 3), (final, 3)):
            want = 0.5 * vectors(QUERIES, layer) @ vectors(PASSAGES, layer).T
            torch.testing.assert_close(scores, want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.encode(passages), vectors(PASSAGES, 3), atol=1e-5, rtol=0)


def test_what_pools_and_what_does_not(name):
    assert Tower("DE", "random:2x32").pooling == "cls"
    for architecture in ("CB", "CE"):
        message = f"pooling 'mean' is not for a {architecture}: use 'cls'"
        with pytest.raises(ValueError, match=message):
            build(Tower(architecture, "random:2x32", pooling="mean"))
    with pytest.raises(ValueError, match="pooling 'max' is not for a DE: use 'cls' or 'mean'"):
        build(Tower("DE", "random:2x32", pooling="max"))
    toy = scale(name, pooling="mean")
    towers = {part: tower(toy, part, "random:2x64") for part in ("DE", "CB", "CE")}
    assert {part: each.pooling for part, each in towers.items()} == {
        "DE": "mean",
        "CB": "cls",
        "CE": "cls",
    }
    assert (towers["DE"].scale, towers["CB"].scale) == (1.0, 0.06)
    assert tower(scale(name), "DE", "random:2x64").scale == 0.125


def test_the_default_leaves_keys_as_they_were(name):
    chain = Pipeline(scale(name))
    assert "pooling" not in chain.student.describe()["tower"]
    other = Pipeline(scale(name, pooling="mean"))
    assert other.student.describe()["tower"]["pooling"] == "mean"
    assert other.student.key != chain.student.key
    assert "pooling" not in other.teacher.describe()["tower"]  # a CB


def test_a_retriever_saved_before_pooling_is_read(tmp_path):
    model = build(Tower("DE", "random:2x32"))
    model.save(tmp_path / "saved", load_tokenizer("random:2x32"))
    path = tmp_path / "saved" / "retriever.json"
    settings = json.loads(path.read_text())
    assert settings.pop("pooling") == "cls"
    write_json(path, settings)
    assert load(tmp_path / "saved").tower.pooling == "cls"


@pytest.mark.parametrize("teacher", ["DE", "CB"])
def test_a_mean_pooled_pair_distils_and_exports(teacher, folders, common, tmp_path):  # noqa: F811
    toy = scale(
        common,
        teacher_encoder=folders["deep bert"],
        student_encoder=f"layers:1,3:{folders['bert']}",
        pooling="mean",
        data=data(common),
    )
    rows = export.distil_and_export(toy, tmp_path / "out", teacher)
    own = rows["distilled"].retriever.model()
    assert own.tower.pooling == "mean" and own.layers == 2
    model = SentenceTransformer(str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text()) == {
        "embedding_dimension": 32,
        "pooling_mode": "mean",
        "include_prompt": True,
    }
    queries = [*QUERIES, LONG]
    passages = [*PASSAGES, LONG]
    want = own_scores(own, queries, passages, toy.data, tmp_path) / own.tower.scale
    got = model.similarity(model.encode_query(queries), model.encode_document(passages))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert np.abs(want.numpy()).max() > 1e-2
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the vector of a text is the mean of its token states,\n" in card


def test_states_are_matched_as_they_are_pooled(name):
    chain = Pipeline(scale(name, pooling="mean"), teacher="DE")
    assert chain.distil("RD + states").log()[0]["states"] > 0
    assert config.scale("classroom").pooling == "cls"

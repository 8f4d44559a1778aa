"""What a distillation leaves in a folder, loaded by the real sentence-transformers."""

import importlib
import json
import logging
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from toys import encoder, isolate, scale

from leadkit import export, files, paths
from leadkit.data.tokens import tokenise
from leadkit.experiments.texts import collection
from leadkit.models import retrievers
from leadkit.models.batch import Batch
from leadkit.models.retrievers import build
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower
from leadkit.retrieval.measures import MEASURES

LONG = "list of the sequence order and the number of items in a file with a name and an index"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    students = {kind: encoder(folder / kind, kind, 2) for kind in ("bert", "distilbert", "roberta")}
    return students | {"teacher": encoder(folder / "deep", "bert", 12, 16)}


def own_scores(student, queries, passages, data, cache):
    """(B, N): leadkit's final scores. At least one text of each kind is cut."""
    tokenizer = load_tokenizer(student.tower.encoder)
    q = tokenise(dict(enumerate(queries)), tokenizer, data.query_tokens, cache)
    p = tokenise(dict(enumerate(passages)), tokenizer, data.passage_tokens, cache)
    assert max(q.lengths) == data.query_tokens < max(p.lengths) == data.passage_tokens
    positive = torch.zeros(len(q), dtype=torch.long)
    batch = Batch(q.rows(np.arange(len(q))), p.rows(np.arange(len(p))), positive)
    with torch.no_grad():
        _, final = student(batch)
    return final


# --- the student


@pytest.mark.parametrize(
    "student, architecture", [("roberta", "CB"), ("bert", "DE"), ("distilbert", "CE")]
)
def test_student_scores_the_same_in_sentence_transformers(
    student, architecture, encoders, common, tmp_path, caplog
):
    toy = scale(common, teacher_encoder=encoders["teacher"], student_encoder=encoders[student])
    out = tmp_path / "new" / "student"
    rows = export.distil_and_export(toy, out, architecture)
    texts, own = collection(common), rows["distilled"].retriever.model()
    queries, passages = [*texts.split("test").values(), LONG], [*texts.passages.values(), LONG]
    want = own_scores(own, queries, passages, toy.data, tmp_path) / own.tower.scale
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        model = SentenceTransformer(str(out))
    assert caplog.records == []  # no weight is missing, none is left over
    got = model.similarity(model.encode_query(queries), model.encode_document(passages))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert want.std() > 1e-2 and model.similarity_fn_name == "dot"
    assert model.max_seq_length == toy.data.passage_tokens
    # What the record measured is this model's ranking.
    best = got[:-1, :-1].sort(descending=True).values[:, : toy.depth]
    np.testing.assert_allclose(rows["distilled"].ranking().scores, best, rtol=1e-4, atol=1e-5)
    # The folder is a leadkit retriever, and an encoder, as well.
    again = own_scores(retrievers.load(out), queries, passages, toy.data, tmp_path)
    torch.testing.assert_close(again / own.tower.scale, want)
    encoder = build(Tower("CB", str(out))).encoder
    for name, weights in own.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], weights), name
    suffixes = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".md"}  # nothing is pickled


@pytest.mark.parametrize("method", ["student", "RD", "FD"])
def test_other_methods(method, common, tmp_path):
    out = tmp_path / "out"
    rows = export.distil_and_export(scale(common), out, method=method, split="dev", seed=1)
    stage = rows["distilled"].retriever
    assert (stage.method.name, stage.seed, rows["distilled"].split) == (method, 1, "dev")
    assert f"| distillation: {method} |" in (out / "README.md").read_text()
    assert SentenceTransformer(str(out)).encode("file").shape == (32,)


# --- the card


def test_card_says_what_was_done(encoders, common, tmp_path):
    toy = scale(
        common,
        teacher_encoder=encoders["teacher"],
        student_encoder=encoders["roberta"],
        dropout=0.1,
    )
    rows = export.distil_and_export(toy, tmp_path / "my-student", "CB")
    card, texts = (tmp_path / "my-student" / "README.md").read_text(), collection(common)
    assert "\n# my-student\n" in card
    for said in (
        f"toy, fingerprint {texts.fingerprint}: 48 passages,\n24 queries to train on, 6 to measure "
        "with (split test)",
        "cut at 8 tokens",
        "cut at 16 tokens",
        "over 0.1",
        "Dropout 0.1, seed 0",
        "| warm-up: mines hard negatives | 12DE of deep | 3 | 0.001 |",
        "| warm-up: teacher | 12CB of deep | 3 | 0.001 |",
        "| distillation: LEAD | 12CB of deep -> 2DE of roberta | 3 | 0.001 |",
        f"LEAD: `{rows['distilled'].retriever.method}`",
        f"|  | {' | '.join(MEASURES)} |",
        f"torch {torch.__version__}",
    ):
        assert said in card
    for row, evaluation in rows.items():
        values = " | ".join(f"{value:.4f}" for value in evaluation.record()["measures"].values())
        assert f"| {row} | {values} |" in card
    assert "bfloat16" not in card and str(tmp_path.parent) not in card and "beir:" not in card
    metadata = ModelCard(card).data.to_dict()
    assert [result["name"] for result in metadata.pop("model-index")] == ["my-student"]
    assert metadata == {
        "license": "unknown",  # which is the user's to choose
        "datasets": ["toy"],
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "feature-extraction", "dense-retrieval"],
    }
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace('"my-student"', repr(str(tmp_path / "my-student")))
    exec(compile(code, "card", "exec"), {})  # what the card shows runs


def test_card_of_a_student_that_was_measured_in_bfloat16(common, tmp_path):
    export.distil_and_export(scale(common, bf16=True), tmp_path / "out")
    assert "Measured with the encoder in bfloat16" in (tmp_path / "out" / "README.md").read_text()


# --- whole or not there, and bad input


def test_folder_appears_whole_or_not_at_all(common, tmp_path, monkeypatch):
    data, student = scale(common).data, build(Tower("DE", "random:2x32"))
    real = SentenceTransformer.save_pretrained

    def full(model, path, **arguments):
        real(model, path, **arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SentenceTransformer, "save_pretrained", full)
    with pytest.raises(OSError, match="out could not be written .No space left"):
        export.save_retriever(student, data, "card", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "out").mkdir()  # an empty folder will do
    export.save_retriever(student, data, "card", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "modules.json").read_text())[1]["path"] == "1_Pooling"


@pytest.mark.parametrize("tower", [Tower("DE", "random:2x32", linear=8)])
def test_student_that_is_not_one_vector_of_its_encoder(tower, common, tmp_path):
    said = f"retriever is a DE with linear layer {tower.linear}: only one without"
    with pytest.raises(ValueError, match=said):
        export.save_retriever(build(tower), scale(common).data, "card", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["out", "out/notes"])
def test_folder_that_holds_something_is_refused_before_any_work(file, name, tmp_path):
    files.write(tmp_path / file, lambda path: path.write_text("mine"))
    said = r"out '.*out' exists and is not empty: name a new folder"
    with pytest.raises(FileExistsError, match=said):
        export.distil_and_export(scale(name), tmp_path / "out")
    assert not paths.RUNS.exists()


def test_folder_whose_path_is_not_unicode_is_refused_before_any_work(name, tmp_path):
    out = tmp_path / os.fsdecode(b"out\xe9")
    with pytest.raises(ValueError, match=r"out '.*out\\udce9' is not Unicode"):
        export.distil_and_export(scale(name), out)
    assert not paths.RUNS.exists() and not out.exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"collection": "beir:nowhere"}, "nowhere is not a folder"),
        (
            {"passage_tokens": 600},
            "data.passage_tokens is 600: the position table of encoder 'random:3x32' holds 512",
        ),
    ],
)
def test_data_that_cannot_do_is_told_before_any_work(change, message, name, tmp_path):
    toy = scale(name)
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        changed = replace(toy, data=replace(toy.data, **change))
        export.distil_and_export(changed, tmp_path / "out")
    assert not paths.RUNS.exists() and not (tmp_path / "out").exists()


def test_collection_without_training_queries(monkeypatch, tmp_path, name):
    isolate(monkeypatch, tmp_path)
    (tmp_path / "toy" / "qrels" / "train.tsv").rename(tmp_path / "toy" / "qrels" / "other.tsv")
    said = r"split 'train' is not in collection .*: choose one of \['dev', 'other', 'test'\]"
    with pytest.raises(ValueError, match=said):
        export.distil_and_export(scale(name), tmp_path / "out")
    assert not paths.RUNS.exists()


def test_without_sentence_transformers_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "leadkit.export")
    with pytest.raises(ImportError, match=r'-m pip install -e "\.\[export\]" -c constraints.txt'):
        importlib.import_module("leadkit.export")

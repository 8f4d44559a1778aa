"""What a larger encoder gives the miniatures: vectors of texts, a start of the words."""

import pytest
import torch
from toys import WORDS, encoder

from leadkit.models.encoders import load_encoder
from leadkit.models.tokenizers import load_tokenizer
from leadkit.training import teaching
from leadkit.training.teaching import kept_vectors, sentence_vectors, word_vectors

LINES = [" ".join(WORDS[:n]) for n in (3, 1, 12, 7)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return encoder(tmp_path_factory.mktemp("t") / "teacher", "bert", hidden=16)


def test_vectors_are_means_of_token_states_of_length_one(teacher):
    tokenizer, model = load_tokenizer(teacher), load_encoder(teacher, 0.0).eval()
    got = sentence_vectors(teacher, LINES, longest=12, bf16=False)
    assert got.shape == (4, 16) and not got.requires_grad
    for line, vector in zip(LINES, got, strict=True):
        tokens = tokenizer(line, truncation=True, max_length=12, return_tensors="pt")
        mean = model(**tokens).last_hidden_state[0].mean(0)
        torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_vectors_are_computed_once(teacher, tmp_path, monkeypatch):
    views = [LINES[:3], LINES[1:]]
    first = kept_vectors(teacher, views, 12, False, tmp_path)
    assert first.shape == (6, 16) and torch.equal(first[1:3], first[3:5])
    monkeypatch.setattr(teaching, "sentence_vectors", None)
    assert torch.equal(kept_vectors(teacher, views, 12, False, tmp_path), first)


def test_word_vectors_are_principal_components(teacher):
    theirs = load_tokenizer(teacher)
    ours = load_tokenizer("random:1x16")
    table = load_encoder(teacher, 0.0).get_input_embeddings().weight
    got = word_vectors(teacher, ours, 16)  # all components: distances stay but for one factor
    assert got.shape == (len(ours), 16) and got.std().item() == pytest.approx(0.25)
    vocabulary = ours.get_vocab()
    rows = [vocabulary["array"], vocabulary["##s"], vocabulary["list"]]
    known = [theirs.get_vocab()[piece] for piece in ("array", "##s")]
    pieces = theirs("list", add_special_tokens=False)["input_ids"]
    wanted = torch.stack([*table[known], table[pieces].mean(0)])
    ratio = torch.pdist(got[rows]) / torch.pdist(wanted)
    torch.testing.assert_close(ratio, ratio[:1].expand(3), rtol=1e-3, atol=0)
    few = word_vectors(teacher, ours, 4)
    both = few[rows] @ few.T / (few.norm(dim=1) * few[rows].norm(dim=1)[:, None])
    assert both.isfinite().all()

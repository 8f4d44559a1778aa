"""Pre-training: what it reads, what it masks, and that growing keeps what was learned."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import WORDS, toy
from transformers import BertConfig, BertForMaskedLM

from leadkit.data.collections import load
from leadkit.data.tokens import Tokenised
from leadkit.models.encoders import grow
from leadkit.models.retrievers import build
from leadkit.models.tower import Tower
from leadkit.training import pretraining
from leadkit.training.objectives import OBJECTIVES
from leadkit.training.pretraining import Pretraining, texts
from leadkit.training.views import Draws, long_views, short_views
from leadkit.training.wordpiece import train_tokenizer


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return load(toy(tmp_path_factory.mktemp("c") / "toy"))


def bert(layers=3):
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).eval()


def test_texts_hold_every_passage_and_no_dev_or_test_query(collection):
    marked = {qid: f"{text} mark{qid}" for qid, text in collection.queries.items()}
    collection = type(collection)(
        collection.name, "0", collection.passages, marked, collection.qrels
    )
    lines = texts(collection)
    assert len(lines) == len(collection.passages)
    for line, passage in zip(lines, collection.passages.values(), strict=True):
        assert line.endswith(passage)
    together = "\n".join(lines)
    for split in ("dev", "test"):
        assert not [qid for qid in collection.qrels[split] if f"mark{qid}" in together.split()]
    seen = [qid for qid in collection.qrels["train"] if f"mark{qid}" in together.split()]
    assert len(seen) >= 0.7 * len(
        collection.qrels["train"]
    )  # of two queries with one passage, one stands before it


def numbered(texts):
    """Tokens of 2 views of each text, and their vectors; each view has its number as its token."""
    views = range(2 * texts)
    flat = np.array([[1, 10 + view, 2] for view in views], np.int32).ravel()
    return Tokenised(flat, 3 * np.arange(2 * texts + 1), 0), torch.randn(2 * texts, 5)


@pytest.mark.parametrize("taught", [True, False])
def test_draws_are_two_views_of_each_text_and_pairs_of_them(taught):
    torch.manual_seed(0)
    (short, q), (long, p) = numbered(20), numbered(20)
    draw = Draws(short, long, (q, p) if taught else None, batch=12, paired=4, others=2)
    P, n = (4, 3) if taught else (12, 1)
    views = set()
    for _ in range(30):
        seen = draw()
        first, second = (view.ids[:, 1] - 10 for view in (seen.short, seen.long))  # (12,)
        assert torch.equal(first % 20, second % 20) and len((first % 20).unique()) == 12
        left, right = (seen.pairs.ids[:, i].view(P, n) - 10 for i in (1, 3))  # (P, n)
        assert torch.equal(left, first[:P, None].expand(P, n)) and seen.n == n
        assert torch.equal(right[:, 0], second[:P])
        assert seen.pairs.kinds.tolist() == P * n * [[0, 0, 0, 1, 1]]
        views |= {*first.tolist(), *second.tolist()}
        if taught:
            torch.testing.assert_close(seen.taught, (q[first], p[second]))
            cosines = (q[first] @ p[second].T).fill_diagonal_(-torch.inf)  # (12, 12)
            assert torch.equal(right[:, 1], second[cosines[:P].argmax(1)])
    assert views == set(range(40))


def test_tokeniser_knows_the_words_of_its_text():
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, 600)
    assert tokenizer.tokenize("Sort A List") == ["sort", "a", "list"]
    ids = tokenizer("sort a list")["input_ids"]
    assert (ids[0], ids[-1]) == (
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    ) and tokenizer.pad_token_id == 0
    assert sorted(tokenizer.all_special_ids) == list(
        range(5)
    )  # ordinary tokens start right after them


def test_tokeniser_of_the_same_lines_is_the_same(collection):
    """Also where pairs are equally frequent.

    Or a pre-training that is continued would mean other words by its numbers.
    """
    made = [train_tokenizer(texts(collection), 120) for _ in range(3)]
    assert made[0].get_vocab() == made[1].get_vocab() == made[2].get_vocab() and len(made[0]) == 120
    assert made[0].backend_tokenizer.to_str() == made[1].backend_tokenizer.to_str()
    assert [word for word in made[0].get_vocab() if word.startswith("##")] and made[
        0
    ].all_special_ids == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("layers", [3, 5, 6, 12])
def test_grow_repeats_the_pile_and_keeps_the_rest(layers):
    small, grown = bert(), bert()
    grow(grown.bert, layers)
    assert grown.config.num_hidden_layers == len(grown.bert.encoder.layer) == layers
    for i, layer in enumerate(grown.bert.encoder.layer):
        for name, tensor in small.bert.encoder.layer[i % 3].state_dict().items():
            assert torch.equal(layer.state_dict()[name], tensor)
    for name, tensor in small.state_dict().items():
        if "encoder.layer" not in name:
            assert torch.equal(grown.state_dict()[name], tensor)
    assert (
        len({id(p) for p in grown.bert.encoder.layer.parameters()}) == layers * 16
    )  # copies, not the same tensors
    assert grown.get_output_embeddings().weight is grown.get_input_embeddings().weight  # still tied
    if layers == 3:
        ids = torch.arange(8)[None]
        torch.testing.assert_close(grown.eval()(ids).logits, small(ids).logits)


def test_views_are_parts_of_their_text_and_no_dev_or_test_query(collection):
    marked = {qid: f"{text} mark{qid}" for qid, text in collection.queries.items()}
    collection = replace(collection, queries=marked)
    short, long = short_views(collection, 0), long_views(collection, 0)
    train = {marked[qid] for qid in collection.qrels["train"]}
    passages = list(collection.passages.values())
    queries, spans = short
    assert long[0] == passages and len(train & {*queries}) >= 0.7 * len(train)
    for made, shortest, longest in ((spans, 4, 14), (long[1], 12, 60), (queries, 4, 14)):
        for view, text in zip(made, passages, strict=True):
            if view not in train:
                words = len(text.split())
                assert view in text and min(shortest, words) <= len(view.split()) <= longest
    seen = " ".join(view for views in (*short, *long) for view in views).split()
    for split in ("dev", "test"):
        assert not [qid for qid in collection.qrels[split] if f"mark{qid}" in seen]
    assert short_views(collection, 0) == short != short_views(collection, 1)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pretraining_leaves_encoders_that_load(objective, collection, tmp_path):
    small = Pretraining(
        objective,
        collection.name,
        vocabulary=300,
        hidden=64,
        teacher="random:2x64",
        layers=(3, 6),
        steps=(3, 2),
        batch=4,
        paired=2,
        others=1,
        long=24,
        learning_rate=(1e-3, 1e-3),
    )
    pretraining.pretrain(small, tmp_path)
    name = {
        "distilled": "bert-6x64",
        "contrastive": "bert-6x64-contrastive",
        "masked LM": "bert-6x64-masked-lm",
        "bottlenecked": "bert-6x64-bottlenecked",
    }[objective]
    assert {p.name for p in tmp_path.iterdir()} == {name, name.replace("6x", "3x")}
    folder = tmp_path / name
    model = build(Tower("DE", str(folder)))
    assert (model.layers, model.width) == (6, 64) and next(
        model.parameters()
    ).dtype == torch.float32
    assert model.encoder.config.hidden_dropout_prob == 0.1  # of the tower
    record = json.loads((folder / "record.json").read_text())
    assert record["fingerprint"] == collection.fingerprint and record["layers"] == 6
    assert record["config"]["steps"] == [3, 2] and record["config"]["objective"] == objective
    assert record["texts"] == len(collection.passages)


def test_unknown_objective():
    with pytest.raises(
        ValueError,
        match="objective 'mlm' is unknown: use one of distilled, contrastive, masked LM, ",
    ):
        Pretraining("mlm")


def test_more_pairs_than_texts():
    with pytest.raises(ValueError, match="paired is 8, others 9: that makes 80 pairs; .* the 64"):
        Pretraining(others=9)


def test_growth_can_stop_early():
    short = Pretraining("bottlenecked").up_to(6)
    assert (short.layers, short.steps, short.learning_rate) == (
        (3, 6),
        (1000, 4000),
        (2e-3, 1.5e-3),
    )
    assert short.objective == "bottlenecked" and Pretraining().up_to(12) == Pretraining()
    with pytest.raises(ValueError, match="layers is 5: use one of 3, 6, 12"):
        Pretraining().up_to(5)

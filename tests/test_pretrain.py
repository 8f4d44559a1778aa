"""Pre-training: what it reads, what it masks, and that growing keeps what was learned."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import WORDS, toy
from transformers import BertConfig, BertForMaskedLM

from leadkit import pretrain
from leadkit.collection import load
from leadkit.pretrain import Pretraining, Spans, grow, mask_tokens, span_loss, texts, train_tokenizer
from leadkit.retrievers import Tower, build, load_tokenizer


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return load(toy(tmp_path_factory.mktemp("c") / "toy"))


def bert(layers=3):
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=layers, num_attention_heads=2,
                                      intermediate_size=64, max_position_embeddings=64, hidden_dropout_prob=0.0,
                                      attention_probs_dropout_prob=0.0)).eval()


def test_texts_hold_every_passage_and_no_dev_or_test_query(collection):
    marked = {qid: f"{text} mark{qid}" for qid, text in collection.queries.items()}
    collection = type(collection)(collection.name, "0", collection.passages, marked, collection.qrels)
    lines = texts(collection)
    assert len(lines) == len(collection.passages)
    for line, passage in zip(lines, collection.passages.values(), strict=True):
        assert line.endswith(passage)
    together = "\n".join(lines)
    for split in ("dev", "test"):
        assert not [qid for qid in collection.qrels[split] if f"mark{qid}" in together.split()]
    seen = [qid for qid in collection.qrels["train"] if f"mark{qid}" in together.split()]
    assert len(seen) >= 0.7 * len(collection.qrels["train"])  # of two queries with one passage, one stands before it


def test_tokeniser_knows_the_words_of_its_text():
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, 600)
    assert tokenizer.tokenize("Sort A List") == ["sort", "a", "list"]
    ids = tokenizer("sort a list")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) and tokenizer.pad_token_id == 0
    assert sorted(tokenizer.all_special_ids) == list(range(5))  # ordinary tokens start right after them


@pytest.mark.parametrize("layers", [3, 5, 6, 12])
def test_grow_repeats_the_pile_and_keeps_the_rest(layers):
    small = bert()
    grown = grow(small, layers)
    assert grown.config.num_hidden_layers == layers and small.config.num_hidden_layers == 3
    for i, layer in enumerate(grown.bert.encoder.layer):
        for name, tensor in small.bert.encoder.layer[i % 3].state_dict().items():
            assert torch.equal(layer.state_dict()[name], tensor)
    for name, tensor in small.state_dict().items():
        if "encoder.layer" not in name:
            assert torch.equal(grown.state_dict()[name], tensor)
    first = {id(p) for p in small.parameters()}
    assert not first & {id(p) for p in grown.parameters()}  # copies, not the same tensors
    if layers == 3:
        ids = torch.arange(8)[None]
        torch.testing.assert_close(grown.eval()(ids).logits, small(ids).logits)


@pytest.fixture(scope="module")
def spans():
    tokenizer = load_tokenizer("random:2x32")
    lines = [" ".join(WORDS[:n]) for n in (1, 4, 9, 30, 80)] + ["".join(WORDS[:3])]
    return Spans(tokenizer, lines), [tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines], tokenizer


@given(seed=st.integers(0, 200), shortest=st.integers(1, 12), more=st.integers(3, 40))
def test_spans_stay_within_their_text(spans, seed, shortest, more):
    made, rows, tokenizer = spans
    torch.manual_seed(seed)
    drawn, longest = torch.randint(len(rows), (16,)), shortest + more
    ids, mask = made.draw(drawn, shortest, longest)
    assert ids.shape == mask.shape and ids.shape[1] <= longest
    for row, line, kept in zip(drawn.tolist(), ids, mask, strict=True):
        cls, *body, sep = line[kept].tolist()
        assert (cls, sep) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert line[~kept].eq(0).all() and kept.int().diff().le(0).all()
        text = rows[row]
        assert len(body) >= min(shortest, len(text)) and len(body) >= 1
        assert any(text[i : i + len(body)] == body for i in range(len(text)))


def test_every_start_of_a_span_is_drawn(spans):
    made, rows, _ = spans
    ids, _ = made.draw(torch.full((3000,), 3), 2, 6)
    starts = {rows[3].index(token) for token in ids[:, 1].tolist()}
    assert min(starts) == 0 and max(starts) >= len(rows[3]) - 4 and len(starts) >= len(rows[3]) - 4


def test_mask_rates():
    torch.manual_seed(0)
    ids = torch.randint(5, 1000, (400, 500))
    ids[:, 0], ids[:, -50:] = 2, 0  # [CLS], padding
    masked, chosen = mask_tokens(ids, 5, 4, 1000)
    ordinary = ids >= 5
    assert not chosen[~ordinary].any() and torch.equal(masked[~chosen], ids[~chosen])
    assert chosen[ordinary].float().mean().item() == pytest.approx(0.15, abs=0.005)
    after, before = masked[chosen], ids[chosen]
    assert after.eq(4).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert after.eq(before).float().mean().item() == pytest.approx(0.1, abs=0.01)
    other = after[after.ne(4) & after.ne(before)]
    assert len(other) / len(after) == pytest.approx(0.1, abs=0.01) and other.min() >= 5 and len(other.unique()) > 900


def test_span_loss_by_hand():
    model = bert(1)
    torch.manual_seed(3)
    spans = [(torch.randint(5, 60, (4, 9)), torch.ones(4, 9, dtype=torch.bool)) for _ in range(2)]
    torch.manual_seed(7)
    got = span_loss(model, spans, 5, 4)
    torch.manual_seed(7)
    cls, losses = [], []
    for ids, mask in spans:
        masked, chosen = mask_tokens(ids, 5, 4, 60)
        out = model(masked, attention_mask=mask.long(), labels=ids.masked_fill(~chosen, -100), output_hidden_states=True)
        losses.append(out.loss)
        cls.append(out.hidden_states[-1][:, 0])
    scores = cls[0] @ cls[1].T / 32**0.5
    both = [-(s.softmax(1).diagonal().log().mean()) for s in (scores, scores.T)]
    torch.testing.assert_close(got["masked_lm"], sum(losses) / 2)
    torch.testing.assert_close(got["contrastive"], sum(both) / 2)
    torch.testing.assert_close(got["total"], got["masked_lm"] + got["contrastive"])


def test_pretraining_leaves_encoders_that_load(collection, tmp_path):
    small = Pretraining(collection.name, vocabulary=300, hidden=64, layers=(3, 6), steps=(3, 2), batch=4, tokens=24,
                        learning_rate=(1e-3, 1e-3))
    pretrain.pretrain(small, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("bert-*"))[-1] == "bert-6x64"
    folder = tmp_path / "bert-6x64"
    model = build(Tower("DE", str(folder)))
    assert (model.layers, model.width) == (6, 64) and next(model.parameters()).dtype == torch.float32
    assert model.encoder.config.hidden_dropout_prob == 0.1  # of the tower
    record = json.loads((folder / "record.json").read_text())
    assert record["fingerprint"] == collection.fingerprint and record["layers"] == 6
    assert record["config"]["steps"] == [3, 2] and record["texts"] == len(collection.passages)

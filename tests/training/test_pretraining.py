"""Pre-training: what it reads, what it masks, and that growing keeps what was learned."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import WORDS, toy
from transformers import BertConfig, BertForMaskedLM

from leadkit.data.collections import load
from leadkit.models.encoders import grow
from leadkit.models.retrievers import build
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower
from leadkit.training import pretraining
from leadkit.training.objectives import OBJECTIVES, Spans, bottleneck_loss, mask_tokens, span_loss
from leadkit.training.pretraining import Pretraining, texts, train_tokenizer


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


@pytest.fixture(scope="module")
def spans():
    tokenizer = load_tokenizer("random:2x32")
    lines = [" ".join(WORDS[:n]) for n in (1, 4, 9, 30, 80)] + ["".join(WORDS[:3])]
    return (
        Spans(tokenizer, lines),
        [tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines],
        tokenizer,
    )


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
    assert (
        len(other) / len(after) == pytest.approx(0.1, abs=0.01)
        and other.min() >= 5
        and len(other.unique()) > 900
    )


def two_spans():
    torch.manual_seed(3)
    return [(torch.randint(5, 60, (4, 9)), torch.ones(4, 9, dtype=torch.bool)) for _ in range(2)]


def test_span_loss_by_hand():
    model, spans = bert(1), two_spans()
    torch.manual_seed(7)
    got = span_loss(model, spans, 5, 4)
    torch.manual_seed(7)
    cls, losses = [], []
    for ids, mask in spans:
        masked, chosen = mask_tokens(ids, 5, 4, 60)
        out = model(
            masked,
            attention_mask=mask.long(),
            labels=ids.masked_fill(~chosen, -100),
            output_hidden_states=True,
        )
        losses.append(out.loss)
        cls.append(out.hidden_states[-1][:, 0])
    scores = cls[0] @ cls[1].T / 32**0.5
    both = [-(s.softmax(1).diagonal().log().mean()) for s in (scores, scores.T)]
    torch.testing.assert_close(got["masked_lm"], sum(losses) / 2)
    torch.testing.assert_close(got["contrastive"], sum(both) / 2)
    torch.testing.assert_close(got["total"], got["masked_lm"] + got["contrastive"])
    torch.manual_seed(7)
    assert span_loss(model, spans, 5, 4, "masked LM") == {
        "total": got["masked_lm"],
        "masked_lm": got["masked_lm"],
    }


class Copy(torch.nn.Module):
    """A decoder that keeps what it was given."""

    def forward(self, states, src_key_padding_mask):
        self.states, self.padding = states, src_key_padding_mask
        return states


def test_bottleneck_loss_by_hand():
    model, ((ids, mask), _) = bert(1), two_spans()
    ids[2, 6:], mask[2, 6:] = 0, False
    model.decoder, cls = Copy(), torch.randn(4, 32)
    torch.manual_seed(7)
    got = bottleneck_loss(model, cls, ids, mask, 5, 4)
    torch.manual_seed(7)
    masked, chosen = mask_tokens(ids, 5, 4, 60, rate=0.5)
    torch.testing.assert_close(
        model.decoder.states[:, 0], cls
    )  # the bottleneck stands where [CLS] was
    torch.testing.assert_close(model.decoder.states[:, 1:], model.bert.embeddings(masked)[:, 1:])
    assert torch.equal(model.decoder.padding, ~mask)  # PyTorch's sign: True is left out
    nll = [
        -model.cls(model.decoder.states[b, t]).log_softmax(-1)[ids[b, t]]
        for b, t in chosen.nonzero().tolist()
    ]
    torch.testing.assert_close(got, sum(nll) / len(nll))
    assert chosen[mask].float().mean() > 0.3


def test_bottleneck_teaches_cls():
    model, spans = bert(1), two_spans()
    model.decoder = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    parts = span_loss(model, spans, 5, 4, "bottlenecked")
    torch.testing.assert_close(parts["total"], parts["masked_lm"] + parts["bottleneck"])
    parts["bottleneck"].backward()
    assert (
        model.bert.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0
    )  # which only [CLS] can have brought


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pretraining_leaves_encoders_that_load(objective, collection, tmp_path):
    small = Pretraining(
        objective,
        collection.name,
        vocabulary=300,
        hidden=64,
        layers=(3, 6),
        steps=(3, 2),
        batch=4,
        tokens=24,
        learning_rate=(1e-3, 1e-3),
    )
    pretraining.pretrain(small, tmp_path)
    name = {
        "contrastive": "bert-6x64",
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
        match="objective 'mlm' is unknown: use one of contrastive, masked LM, bottlenecked",
    ):
        Pretraining("mlm")


def test_growth_can_stop_early():
    short = Pretraining("bottlenecked").up_to(6)
    assert (short.layers, short.steps, short.learning_rate) == ((3, 6), (2500, 2000), (1e-3, 1e-3))
    assert short.objective == "bottlenecked" and Pretraining().up_to(12) == Pretraining()
    with pytest.raises(ValueError, match="layers is 5: use one of 3, 6, 12"):
        Pretraining().up_to(5)

"""Pre-training objectives: values by hand, and where their gradients go."""

import math

import pytest
import torch
from torch.nn.functional import normalize
from transformers import BertConfig, BertForMaskedLM

from leadkit import scores
from leadkit.models.batch import Tokens
from leadkit.training.objectives import (
    bottleneck_loss,
    contrastive_loss,
    mask_tokens,
    similarity_loss,
    step_loss,
    vector_loss,
)
from leadkit.training.views import Seen, hardest


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config).eval()
    model.to_teacher, model.match = torch.nn.Linear(32, 6), torch.nn.Linear(32, 1)
    return model


def tokens(rows, length, kinds=None):
    return Tokens(
        torch.randint(5, 60, (rows, length)), torch.ones(rows, length, dtype=torch.bool), kinds
    )


def seen(n=2):
    """Views of 4 texts, 3 of them paired n times, and a teacher's vectors."""
    torch.manual_seed(3)
    kinds = (torch.arange(15) >= 6).long().expand(3 * n, -1)
    taught = normalize(torch.randn(2, 4, 6), dim=2)
    return Seen(tokens(4, 6), tokens(4, 9), tokens(3 * n, 15, kinds), n, tuple(taught))


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


def test_contrastive_loss_by_hand():
    # rows: 1/2 and 1/4 for the positive; columns: 1/3 and 1/2
    table = torch.tensor([[2.0, 2.0], [4.0, 2.0]]).log()
    wanted = -(math.log(1 / 2 * 1 / 3) + math.log(1 / 3 * 1 / 2)) / 4
    assert contrastive_loss(table).item() == pytest.approx(wanted)


def test_similarity_loss_by_hand():
    cosines = 0.05 * torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()  # 3/4 and 1/4, both ways
    same = cosines / 0.05
    assert similarity_loss(same, cosines).item() == pytest.approx(0, abs=1e-6)
    # KL(3/4, 1/4 || 1/2, 1/2); from the teacher to the student
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert similarity_loss(torch.zeros(2, 2), cosines).item() == pytest.approx(wanted)


def test_vector_loss_by_hand():
    made = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    taught = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert vector_loss(made, taught).item() == pytest.approx(1 - (1 - 2**-0.5) / 2)


def test_hardest_are_the_most_similar_others():
    cosines = torch.tensor([[0.1, 0.9, 0.3, 0.5], [0.2, 0.9, 0.8, 0.1], [0.0, 0.0, 1.0, 0.0]])
    assert hardest(cosines, 2, 3).tolist() == [[0, 1, 3], [1, 2, 0]]
    assert hardest(cosines, 3, 1).tolist() == [[0], [1], [2]]


class Copy(torch.nn.Module):
    """A decoder that keeps what it was given."""

    def forward(self, states, src_key_padding_mask):
        self.states, self.padding = states, src_key_padding_mask
        return states


def test_bottleneck_loss_by_hand():
    model, long = bert(), seen().long
    ids, mask = long.ids, long.mask
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


def parts_of(objective, model, batch):
    torch.manual_seed(7)  # chooses the masked tokens
    return step_loss(model, batch, 5, 4, objective)


def test_step_loss_by_hand():
    model, batch = bert(), seen()
    got = parts_of("distilled", model, batch)
    torch.manual_seed(7)
    masked, chosen = mask_tokens(batch.pairs.ids, 5, 4, 60)
    out = model(
        masked,
        token_type_ids=batch.pairs.kinds,
        labels=batch.pairs.ids.masked_fill(~chosen, -100),
        output_hidden_states=True,
    )
    matches = model.match(out.hidden_states[-1][:, 0]).view(3, 2)
    short, long = (model.bert(view.ids).last_hidden_state for view in (batch.short, batch.long))
    dots = short[:, 0] @ long[:, 0].T / 32**0.5
    late = scores.maxsim(short[None], long[None], batch.long.mask)[0] * 3.84 / 32
    cosines = batch.taught[0] @ batch.taught[1].T
    made = model.to_teacher(torch.cat([short[:, 0], long[:, 0]]))
    wanted = {
        "masked_lm": out.loss,
        "contrastive": contrastive_loss(dots),
        "late": contrastive_loss(late),
        "similarity": similarity_loss(dots, cosines),
        "late_similarity": similarity_loss(late, cosines),
        "vectors": vector_loss(made, torch.cat(batch.taught)),
        "same_text": -matches.softmax(1)[:, 0].log().mean(),
    }
    assert got.keys() == {"total", *wanted}
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value)
    torch.testing.assert_close(got["total"], sum(wanted.values()))
    assert parts_of("masked LM", model, batch).keys() == {"total", "masked_lm"}
    assert parts_of("contrastive", model, batch).keys() >= {"masked_lm", "contrastive", "late"}


def test_gradient_reaches_positions_token_types_and_heads():
    model, batch = bert(), seen()
    parts_of("distilled", model, batch)["total"].backward()
    embeddings = model.bert.embeddings
    positions = embeddings.position_embeddings.weight.grad.abs().sum(1)  # (64,)
    assert (positions[:15] > 0).all() and not positions[15:].any()
    assert (embeddings.token_type_embeddings.weight.grad.abs().sum(1) > 0).all()
    assert all(p.grad.abs().sum() > 0 for p in (model.to_teacher.weight, model.match.weight))


def test_bottleneck_teaches_cls():
    model, batch = bert(), seen()
    model.decoder = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    parts = parts_of("bottlenecked", model, batch)
    torch.testing.assert_close(parts["total"], parts["masked_lm"] + parts["bottleneck"])
    parts["bottleneck"].backward()
    assert (
        model.bert.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0
    )  # which only [CLS] can have brought

"""The attention of bfloat16 on a CPU: the library's plain one bit for bit, by the equation too."""

import copy
from collections import Counter
from functools import partial
from itertools import product

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from leadkit import hardware
from leadkit.models.attention import _Attention, set_attention
from leadkit.models.batch import Tokens
from leadkit.models.retrievers import build
from leadkit.models.tower import Tower

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has its own attention")
LENGTHS, WIDTH = (9, 5, 7), 9
# Bit for bit with AVX512_BF16, AVX512 and AVX2. AMX, not tried, may add up in another order.
NEAR = (
    {"rtol": 2**-6, "atol": 2**-8}
    if hardware.cpu_capabilities().get("amx_bf16")
    else {"rtol": 0, "atol": 0}
)
SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "electra": ElectraConfig(**SIZES),
    "distilbert": DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    "modernbert": ModernBertConfig(
        **SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "mpnet": MPNetConfig(**SIZES),
}


def model(kind, dropout=0.0):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[kind])
    for field in (
        "attention_probs_dropout_prob",
        "hidden_dropout_prob",
        "attention_dropout",
        "dropout",
        "embedding_dropout",
    ):
        if hasattr(config, field):
            setattr(config, field, dropout)
    return AutoModel.from_config(config).train()


def step(model, padded=True):
    """The last states of a step in bfloat16, and the gradients of all parameters."""
    ids, mask = torch.arange(27).view(3, WIDTH) + 5, torch.ones(3, WIDTH, dtype=torch.bool)
    if padded:
        mask = torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        states = model(ids, attention_mask=mask).last_hidden_state.float()
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return states.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", CONFIGS)
def test_states_and_gradients_are_those_of_the_plain_attention(kind, subtests):
    usual = "eager" if kind in ("mpnet", "modernbert") else "lean"
    for padded, dropout in product((True, False), (0.0, 0.5)):
        with subtests.test(padded=padded, dropout=dropout):
            ours, plain = model(kind, dropout), model(kind, dropout)
            set_attention(ours, bf16=True)
            plain.set_attn_implementation("eager")
            got, want = step(ours, padded), step(plain, padded)
            assert ours.config._attn_implementation == usual and len(got[1]) > 10
            torch.testing.assert_close(got, want, **NEAR)


def test_of_the_maps_a_retriever_keeps_the_scores_alone_in_bfloat16():
    tokens, kept = (
        Tokens(
            torch.arange(27).view(3, WIDTH) + 5,
            torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None],
        ),
        {},
    )
    for name in ("lean", "eager"):
        retriever = build(Tower("CB", "random:2x32", dropout=0.0, bf16=True))
        assert retriever.encoder.config._attn_implementation == "lean"
        _set(retriever.encoder, name)
        kept[name] = Counter()
        with torch.autograd.graph.saved_tensors_hooks(partial(_count, kept[name]), lambda t: t):
            retriever.states(tokens, (1, 2))
    maps = 3 * 2 * WIDTH * WIDTH
    assert [kept["lean"][dtype, maps] for dtype in (torch.bfloat16, torch.float32)] == [2, 0]
    assert [kept["eager"][dtype, maps] for dtype in (torch.bfloat16, torch.float32)] == [2, 2]


def _count(kept, tensor):
    kept[tensor.dtype, tensor.numel()] += 1
    return tensor


def _set(model, name):
    model.set_attn_implementation(name)
    return model


def test_padding_changes_nothing():
    """Other words in the place of the padding: the same states before it."""
    found, attending = [], _set(model("bert").eval(), "lean")
    for words in (50, 60):
        ids = torch.where(torch.arange(WIDTH) < 5, torch.arange(WIDTH), words)[None]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found.append(
                attending(ids, attention_mask=(torch.arange(WIDTH) < 5)[None]).last_hidden_state[
                    :, :5
                ]
            )
    assert torch.equal(*found)


def test_gradient_is_that_of_the_equation():
    q, k, v = torch.randn(3, 2, 2, 5, 4, dtype=torch.double).unbind()
    hidden = torch.where(torch.rand(2, 1, 5, 5) < 0.3, -1e9, 0.0).double()
    for mask in (None, hidden.index_fill(-1, torch.tensor(0), 0.0)):  # each token sees the first
        products = 0.5 * torch.einsum("phxd,phyd->phxy", q, k) + (0 if mask is None else mask)
        attend = partial(_attend, mask)
        torch.testing.assert_close(attend(q, k, v), torch.softmax(products, -1) @ v)
        assert torch.autograd.gradcheck(attend, [t.clone().requires_grad_() for t in (q, k, v)])


def _attend(mask, q, k, v):
    return _Attention.apply(q, k, v, mask, 0.5)


def test_elsewhere_the_library_chooses():
    usual = model("bert")
    set_attention(usual, bf16=False)
    assert usual.config._attn_implementation == "sdpa"

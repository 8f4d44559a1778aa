"""Retrievers against slow loops over the blocks of a BERT, one text at a time."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from leadkit import losses, paths
from leadkit.data.tokens import pair, tokenise
from leadkit.models import names
from leadkit.models.batch import Batch, Tokens
from leadkit.models.encoders import load_encoder
from leadkit.models.retrievers import build, load
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower, depth

QUERIES = ["sort a list", "the shape of an array after it was transposed", "open file"]
PASSAGES = [
    "Return the elements in rising order.",
    "Axes are permuted; no data is copied, a view is returned whenever possible.",
    "file",
    "Open the file and return a stream.",
    "A path, or an integer: the descriptor of the file to wrap.",
    "mode r",
]
MINIATURE = paths.MODELS / names.TOKENISER
ARCHITECTURES = ("DE", "CB", "CE")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("random:2x32")


def retriever(architecture, seed=0, **tower):
    torch.manual_seed(seed)
    built = build(Tower(architecture, "random:3x32", **{"scale": 0.5} | tower)).eval()
    for parameter in built.parameters():  # an untrained BERT's blocks change little; these do
        if parameter.dim() == 2:
            parameter.data *= 4
    return built


def tokens(tokenizer, *texts):
    got = tokenizer(*texts, padding=True, return_tensors="pt")
    return Tokens(
        got["input_ids"],
        got["attention_mask"].bool(),
        got["token_type_ids"] if len(texts) == 2 else None,
    )


def batch(tokenizer, own=False, queries=QUERIES, passages=PASSAGES):
    B, n = len(queries), len(passages) // len(queries)
    pairs = tokens(tokenizer, [q for q in queries for _ in range(n)], passages)
    positive = torch.zeros(B, dtype=torch.long) if own else torch.arange(B) * n
    return Batch(tokens(tokenizer, queries), tokens(tokenizer, passages), positive, own, pairs)


@torch.no_grad()
def by_hand(model, tokenizer, *text):
    """[embeddings, layer 1, layer 2, ...] of one text or pair, unpadded, block by block: each (T, H)."""
    got = tokenizer(*text, return_tensors="pt")
    states = [
        model.encoder.embeddings(input_ids=got["input_ids"], token_type_ids=got["token_type_ids"])
    ]
    for block in model.encoder.encoder.layer:
        out = block(states[-1])
        states.append(out[0] if isinstance(out, tuple) else out)
    if model.linear:
        states.append(model.linear(states[-1]))
    return [s[0] for s in states]


def slow_score(model, tokenizer, layer, query, passage):
    if model.architecture == "CE":
        return model.tower.scale * float(
            by_hand(model, tokenizer, query, passage)[layer][0] @ model.projection.detach()
        )
    q, p = by_hand(model, tokenizer, query)[layer], by_hand(model, tokenizer, passage)[layer]
    if model.architecture == "DE":
        return model.tower.scale * float(q[0] @ p[0])
    return model.tower.scale * sum(max(float(x @ y) for y in p) for x in q)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_few_texts_at_once_give_the_gradients_of_all(architecture, tokenizer, monkeypatch):
    student, teacher, made, widths = (
        retriever("DE", 1),
        retriever(architecture),
        batch(tokenizer, architecture == "CE"),
        [],
    )

    def gradients(at_once):
        for model in (student, teacher):
            model.at_once = at_once
        widths.clear()
        (layers, final), (taught, taught_final) = student(made, (1, 3)), teacher(made, (2, 3))
        loss = losses.lead_loss(layers, taught, final, taught_final, made.positive)
        found = torch.autograd.grad(
            loss.total, [p for m in (student, teacher) for p in m.parameters()], allow_unused=True
        )
        return loss.total.item(), [g for g in found if g is not None]

    for model in (student, teacher):
        model.encoder.register_forward_pre_hook(lambda module, args: widths.append(len(args[0])))
    total, expected = gradients(None)
    assert max(widths) == len(PASSAGES)
    few, found = gradients(2)
    assert (
        max(widths) == 2
        and few == pytest.approx(total, abs=1e-6)
        and len(found) == len(expected) > 50
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


# --- layers


def test_layer_i_is_the_state_after_block_i(tokenizer):
    model = retriever("DE")
    for text in PASSAGES:
        hand = by_hand(model, tokenizer, text)
        with torch.no_grad():
            got = model.states(tokens(tokenizer, [text]), (1, 2, 3))
            hidden = model.encoder(
                **tokenizer(text, return_tensors="pt"), output_hidden_states=True
            ).hidden_states
        for layer in (1, 2, 3):
            torch.testing.assert_close(got[layer - 1][0], hand[layer], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(got[layer - 1], hidden[layer], atol=1e-5, rtol=1e-5)
        assert (got[0][0] - hand[0]).abs().max() > 0.1  # layer 1 is not the embeddings


def test_layers_come_in_the_order_that_was_asked_for(tokenizer):
    model, made = retriever("DE"), batch(tokenizer)
    with torch.no_grad():
        up, final = model(made, (1, 2, 3))
        down, _ = model(made, (3, 1))
    torch.testing.assert_close(down, up[[2, 0]])
    torch.testing.assert_close(final, up[2])
    assert model(made)[0].shape == (0, 3, 6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_linear_layer_is_the_one_after_the_last(architecture, tokenizer):
    width = 32 if architecture == "CE" else 7
    model = retriever(architecture, linear=width)
    assert (model.layers, model.width, depth(model.tower)) == (4, width, 4)
    made = batch(tokenizer, own=architecture == "CE")
    with torch.no_grad():
        layers, final = model(made, (3, 4))
    torch.testing.assert_close(layers[1], final)
    for layer, got in ((3, layers[0]), (4, layers[1])):
        assert got[1, 0].item() == pytest.approx(
            slow_score(
                model, tokenizer, layer, QUERIES[1], PASSAGES[2 if architecture == "CE" else 0]
            ),
            abs=1e-4,
        )


def test_depth_is_known_without_the_weights(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINIATURE / name, tmp_path)
    assert depth(Tower("DE", str(tmp_path))) == 6
    assert depth(Tower("DE", str(tmp_path), linear=8)) == 7


# --- scores


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_layer_scores_are_those_of_a_slow_loop(architecture, layer, tokenizer):
    model, made = retriever(architecture), batch(tokenizer, own=architecture == "CE")
    with torch.no_grad():
        got = model.layer_scores(made, (layer,))[0]
    for b, query in enumerate(QUERIES):
        mine = PASSAGES[2 * b : 2 * b + 2] if architecture == "CE" else PASSAGES
        want = [slow_score(model, tokenizer, layer, query, passage) for passage in mine]
        np.testing.assert_allclose(got[b], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_never_changes_a_score(architecture, tokenizer):
    model = retriever(architecture)
    with torch.no_grad():
        together = model(batch(tokenizer, own=True), (1, 2, 3))[0]
        for b, query in enumerate(QUERIES):
            for c, passage in enumerate(PASSAGES[2 * b : 2 * b + 2]):
                alone = model(batch(tokenizer, True, [query], [passage]), (1, 2, 3))[0]
                torch.testing.assert_close(together[:, b, c], alone[:, 0, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["DE", "CB"])
def test_own_candidates_are_the_blocks_of_the_full_matrix(architecture, tokenizer):
    model = retriever(architecture)
    with torch.no_grad():
        full, own = model(batch(tokenizer), (1, 3))[0], model(batch(tokenizer, own=True), (1, 3))[0]
    assert full.shape == (2, 3, 6) and own.shape == (2, 3, 2)
    for b in range(3):
        torch.testing.assert_close(own[:, b], full[:, b, 2 * b : 2 * b + 2])


def test_scale_multiplies_every_score(tokenizer):
    made = batch(tokenizer, own=True)
    for architecture in ARCHITECTURES:
        with torch.no_grad():
            one, half = (retriever(architecture, scale=s)(made, (1, 2))[0] for s in (1.0, 0.5))
        torch.testing.assert_close(one / 2, half)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_is_the_encoders_alone(architecture, tokenizer):
    """The encoder rounds; what follows it, gradients of its weights included, is float32 and close to the float32 tower's."""
    made = batch(tokenizer, own=True)
    half, full = (retriever(architecture, bf16=bf16, linear=32) for bf16 in (True, False))
    every, final = half(made, (1, 3, 4))
    want, _ = full(made, (1, 3, 4))
    assert every.dtype == final.dtype == torch.float32 and not torch.equal(every, want)
    torch.testing.assert_close(every, want, rtol=0.1, atol=0.05 * want.abs().max().item())
    final.sum().backward()
    assert all(
        p.dtype == torch.float32 and p.grad.isfinite().all()
        for p in half.parameters()
        if p.grad is not None
    )
    maps, _ = half.interactions(made, (1,))
    assert maps.dtype == torch.float32


def test_vectors_of_encode_give_the_final_scores(tokenizer):
    model, made = retriever("DE"), batch(tokenizer)
    with torch.no_grad():
        vectors = model.encode(made.queries) @ model.encode(made.passages).T
        torch.testing.assert_close(vectors * model.tower.scale, model(made)[1])


def test_released_colbert_normalises_the_last_layer_and_counts_every_position(tokenizer):
    model, made = retriever("CB", released=True, scale=1.0), batch(tokenizer)
    with torch.no_grad():
        q, p = (model.states(t, (1, 3)) for t in (made.queries, made.passages))
        got, _ = model(made, (1, 3))
    for k, unit in enumerate((False, True)):
        for b, c in ((0, 0), (1, 4)):
            x, y = q[k][b], p[k][c][made.passages.mask[c]]
            if unit:
                x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
            assert got[k, b, c].item() == pytest.approx(
                (x @ y.T).max(1).values.sum().item(), rel=1e-4
            )


# --- the maps of FD


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_interaction_rows_sum_to_one_over_passage_tokens(architecture, tokenizer):
    model, made = retriever(architecture), batch(tokenizer, own=True)
    with torch.no_grad():
        maps, final = model.interactions(made, (1, 3))
        torch.testing.assert_close(final, model(made)[1], atol=1e-5, rtol=1e-5)
    X, Y = made.queries.mask.shape[1], made.passages.mask.shape[1]
    assert maps.shape == (2, 3, 2, X, Y)
    p_mask = made.passages.mask.view(3, 2, 1, Y).expand(3, 2, X, Y).clone()
    p_mask[..., 0] = False  # a pair has no second [CLS]
    assert (maps[:, ~p_mask] == 0).all()
    sums, q_mask = maps.sum(-1), made.queries.mask[:, None].expand(3, 2, X)
    torch.testing.assert_close(sums[:, q_mask], torch.ones_like(sums[:, q_mask]))
    assert (sums[:, ~q_mask] == 0).all()


def test_cross_encoder_maps_are_its_attention_from_query_to_passage(tokenizer):
    model, made = retriever("CE"), batch(tokenizer, own=True)
    with torch.no_grad():
        maps, _ = model.interactions(made, (2,))
        model.encoder.set_attn_implementation("eager")
        for b, query in enumerate(QUERIES):
            for c, passage in enumerate(PASSAGES[2 * b : 2 * b + 2]):
                x, y = len(tokenizer(query)["input_ids"]), len(tokenizer(passage)["input_ids"]) - 1
                attention = model.encoder(
                    **tokenizer(query, passage, return_tensors="pt"), output_attentions=True
                ).attentions[1]
                block = attention[0].mean(0)[:x, x : x + y]  # (x, y)
                want = block / block.sum(1, keepdim=True)
                torch.testing.assert_close(maps[0, b, c, :x, 1 : y + 1], want, atol=1e-5, rtol=1e-5)


def test_appended_layer_of_a_cross_encoder_attends_as_its_last_block(tokenizer):
    model, made = retriever("CE", linear=32), batch(tokenizer, own=True)
    with torch.no_grad():
        maps, _ = model.interactions(made, (3, 4))
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=0)


def test_interactions_leave_the_attention_as_it_was(tokenizer):
    for bf16, usual in ((False, "sdpa"), (True, "sdpa" if torch.cuda.is_available() else "lean")):
        model = retriever("CE", bf16=bf16)
        model.interactions(batch(tokenizer, own=True), (1,))
        assert model.encoder.config._attn_implementation == usual


def test_every_block_of_a_stacked_cross_encoder_says_how_it_attends(tokenizer):
    """Blocks that were copied with a configuration of their own would go on with the fused attention, which returns no weights."""
    model = build(Tower("CE", "stacked:8:bert-6x128", dropout=0.0)).eval()
    with torch.no_grad():
        maps, final = model.interactions(made := batch(tokenizer, own=True), (1, 7, 8))
        torch.testing.assert_close(final, model(made)[1], atol=1e-5, rtol=1e-5)
    assert (maps.sum(-1) > 0.99).any() and not torch.equal(maps[1], maps[2])


def test_interactions_do_not_change_later_scores(tokenizer):
    model, made = retriever("CE"), batch(tokenizer, own=True)
    with torch.no_grad():
        before = model(made, (1,))[0]
        model.interactions(made, (1,))
        torch.testing.assert_close(model(made, (1,))[0], before, rtol=0, atol=0)


# --- saved and loaded


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("linear", [0, 32])
def test_saved_and_loaded_gives_identical_scores(architecture, linear, tokenizer, tmp_path):
    model, made = retriever(architecture, linear=linear), batch(tokenizer, own=architecture == "CE")
    model.save(tmp_path / "saved", tokenizer)
    again = load(str(tmp_path / "saved"))
    assert not again.training
    with torch.no_grad():
        for a, b in zip(model(made, (1, 3)), again(made, (1, 3)), strict=True):
            assert torch.equal(a, b)
    assert {p.suffix for p in (tmp_path / "saved").rglob("*") if p.is_file()} == {
        ".json",
        ".safetensors",
    }  # nothing pickled
    load_tokenizer(str(tmp_path / "saved"))


def test_a_head_that_is_lost_or_damaged_is_not_replaced_by_a_random_one(tokenizer, tmp_path):
    retriever("CE", linear=32).save(tmp_path, tokenizer)
    head = tmp_path / "head" / "head.safetensors"
    content = head.read_bytes()
    head.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"head.safetensors.*damaged"):
        load(tmp_path)
    head.unlink()
    with pytest.raises(FileNotFoundError, match="head.safetensors"):
        load(tmp_path)


def test_pairs_of_the_retriever_are_those_of_the_tokeniser(tokenizer, tmp_path):
    q = tokenise(dict(enumerate(QUERIES)), tokenizer, 32, tmp_path)
    p = tokenise(dict(enumerate(PASSAGES)), tokenizer, 32, tmp_path)
    got = pair(q, p, np.array([0, 1, 2]), np.array([4, 0, 5]))
    want = tokens(tokenizer, QUERIES, [PASSAGES[i] for i in (4, 0, 5)])
    for name in ("ids", "mask", "kinds"):
        assert torch.equal(getattr(got, name), getattr(want, name))


# --- bad input


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(MINIATURE, folder / "model"))


def test_unknown_architecture():
    with pytest.raises(
        ValueError, match=re.escape("architecture 'XE' is unknown: use one of DE, CB, CE")
    ):
        build(Tower("XE", "random:2x32"))


@pytest.mark.parametrize("layer", [0, -1, 4])
def test_layer_out_of_range(layer, tokenizer):
    with pytest.raises(
        ValueError, match=f"layer {layer} does not exist: this DE has layers 1 to 3"
    ):
        retriever("DE")(batch(tokenizer), (1, layer))


def test_cross_encoder_shares_one_projection_so_its_layers_have_one_width():
    with pytest.raises(ValueError, match="linear 16 differs from the hidden size 32"):
        build(Tower("CE", "random:2x32", linear=16))


def test_folder_without_weights(tmp_path):
    folder = copied(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{re.escape(str(folder))}.*holds no weights \(\*\.safetensors\)"
    ):
        load_encoder(str(folder), 0.0)


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(
        OSError, match=rf"encoder '{re.escape(str(tmp_path / 'nowhere'))}'.*neither a folder"
    ):
        load_encoder(str(tmp_path / "nowhere"), 0.0)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 100]
)
def test_damaged_weights(damage, tmp_path):
    weights = copied(tmp_path) / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ValueError, match=r"encoder .* damaged"):
        load_encoder(str(weights.parent), 0.0)


def test_stacked_encoder_repeats_the_pile(tokenizer, tmp_path):
    tower = Tower("DE", "stacked:14:bert-6x128", dropout=0.0)
    model, plain = build(tower).eval(), build(Tower("DE", "bert-6x128", dropout=0.0)).eval()
    assert model.layers == depth(tower) == model.encoder.config.num_hidden_layers == 14
    pile = plain.encoder.encoder.layer
    for i, layer in enumerate(model.encoder.encoder.layer):
        assert all(
            torch.equal(a, b)
            for a, b in zip(layer.parameters(), pile[i % 6].parameters(), strict=True)
        )
    made = batch(tokenizer)
    with torch.no_grad():  # the first six layers see what they saw
        torch.testing.assert_close(model.layer_scores(made, (6,)), plain.layer_scores(made, (6,)))
        model.save(tmp_path / "saved", tokenizer)
        assert torch.equal(load(tmp_path / "saved")(made)[1], model(made)[1])
    with pytest.raises(
        ValueError,
        match="'stacked:5:bert-6x128': it has 6 layers already, stacking takes none away",
    ):
        build(Tower("DE", "stacked:5:bert-6x128"))


@pytest.mark.parametrize("field, value", [("hidden_size", 64), ("num_hidden_layers", 8)])
def test_weights_of_another_model(field, value, tmp_path):
    config = copied(tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=r"encoder .* (another shape|lack)"):
        load_encoder(str(config.parent), 0.0)


def test_tokeniser_with_more_words_than_the_embedding_table(tmp_path):
    folder = copied(tmp_path)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens(["brandnewword"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        ValueError,
        match="tokeniser has 8193 words, its embedding table 8192 rows; they do not belong together",
    ):
        load_encoder(str(folder), 0.0)


def test_folder_without_a_tokeniser(tmp_path):
    folder = copied(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="tokeniser"):
        load_encoder(str(folder), 0.0)


def test_encoder_is_known_by_its_weights(tmp_path):
    folder = copied(tmp_path)
    known = names.encoder_digest(str(folder))
    assert known == names.encoder_digest(str(MINIATURE)) != names.encoder_digest("random:2x32")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert names.encoder_digest(str(folder)) != known

"""Retrievers against slow loops over the blocks of a BERT, one text at a time."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from leadkit import losses, paths
from leadkit.experiments.ready import ready_tower
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
    """[embeddings, layer 1, ...] of a text or pair, unpadded, block by block: each (T, H)."""
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
def test_layer_scores_are_those_of_a_slow_loop_whatever_the_padding(architecture, tokenizer):
    model, layers = retriever(architecture), (1, 2, 3)
    with torch.no_grad():
        own = model.layer_scores(batch(tokenizer, own=True), layers)  # (K, B, n)
        every = own if architecture == "CE" else model.layer_scores(batch(tokenizer), layers)
        double, _ = retriever(architecture, scale=1.0)(batch(tokenizer, own=True), layers)
    torch.testing.assert_close(double, 2 * own)
    assert own.shape == (3, 3, 2) and every.shape == (3, 3, 2 if architecture == "CE" else 6)
    for b, query in enumerate(QUERIES):
        mine = slice(2 * b, 2 * b + 2)
        if architecture != "CE":
            torch.testing.assert_close(own[:, b], every[:, b, mine])
        passages = PASSAGES[mine] if architecture == "CE" else PASSAGES
        for k, layer in enumerate(layers):
            want = [slow_score(model, tokenizer, layer, query, passage) for passage in passages]
            np.testing.assert_allclose(every[k, b], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_few_texts_at_once_give_the_gradients_of_all(architecture, tokenizer):
    student, teacher = retriever("DE", 1), retriever(architecture)
    made, widths = batch(tokenizer, architecture == "CE"), []

    def gradients(at_once):
        for model in (student, teacher):
            model.at_once = at_once
        widths.clear()
        (layers, final), (taught, taught_final) = student(made, (1, 3)), teacher(made, (2, 3))
        loss = losses.lead_loss(layers, taught, final, taught_final, made.positive)
        weights = [*student.parameters(), *teacher.parameters()]
        moved = torch.autograd.grad(loss.total, weights, allow_unused=True)
        return loss.total.item(), [g for g in moved if g is not None]

    for model in (student, teacher):
        model.encoder.register_forward_pre_hook(lambda module, args: widths.append(len(args[0])))
    total, expected = gradients(None)
    assert max(widths) == len(PASSAGES)
    few, found = gradients(2)
    assert max(widths) == 2 and few == pytest.approx(total, abs=1e-6)
    assert len(found) == len(expected) > 50
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_is_the_encoders_alone(architecture, tokenizer):
    """The encoder rounds. What follows it and the gradients are float32, near a float32 tower's."""
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


def test_maps_of_a_cross_encoder_leave_it_as_it_was(tokenizer):
    made, fused = batch(tokenizer, own=True), "sdpa" if torch.cuda.is_available() else "lean"
    for bf16, usual in ((False, "sdpa"), (True, fused)):
        model = retriever("CE", linear=32, bf16=bf16)
        with torch.no_grad():
            before, _ = model(made, (1,))
            maps, _ = model.interactions(made, (3, 4))
            assert torch.equal(model(made, (1,))[0], before)
        assert model.encoder.config._attn_implementation == usual
        assert torch.equal(maps[0], maps[1])  # an appended layer attends as the last block


def test_every_block_of_a_stacked_cross_encoder_says_how_it_attends(tokenizer):
    """Blocks with a configuration of their own would keep the fused attention, without weights."""
    model = build(Tower("CE", "stacked:8:bert-6x128", dropout=0.0)).eval()
    with torch.no_grad():
        maps, final = model.interactions(made := batch(tokenizer, own=True), (1, 7, 8))
        torch.testing.assert_close(final, model(made)[1], atol=1e-5, rtol=1e-5)
    assert (maps.sum(-1) > 0.99).any() and not torch.equal(maps[1], maps[2])


# --- saved and loaded


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_gives_identical_scores(architecture, tokenizer, tmp_path):
    made = batch(tokenizer, own=architecture == "CE")
    for linear in (0, 32):
        folder = tmp_path / str(linear)
        model = retriever(architecture, linear=linear)
        model.save(folder, tokenizer)
        again = load(str(folder))
        assert not again.training
        with torch.no_grad():
            for a, b in zip(model(made, (1, 3)), again(made, (1, 3)), strict=True):
                assert torch.equal(a, b)
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes == {".json", ".safetensors"}  # nothing pickled
        load_tokenizer(str(folder))


def test_a_saved_folder_is_not_taken_for_the_shipped_encoder_of_its_name(
    tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    retriever("DE").save(Path(MINIATURE.name), tokenizer)
    assert load(f"./{MINIATURE.name}").layers == 3 != depth(Tower("DE", MINIATURE.name))


@pytest.mark.parametrize("settings", ["{", "{}", '{"architecture": "DE", "wrong": 1}', "[]"])
def test_damaged_settings_are_named(settings, tokenizer, tmp_path):
    retriever("DE").save(tmp_path, tokenizer)
    (tmp_path / "retriever.json").write_text(settings)
    for read in (load, partial(ready_tower, dropout=0.0, bf16=False)):
        with pytest.raises(ValueError, match=r"retriever.json is damaged or of another leadkit"):
            read(str(tmp_path))


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


# --- bad input


def test_towers_and_layers_that_cannot_be(tokenizer, subtests):
    for tower, message in {
        ("XE", 0): "architecture 'XE' is unknown: use one of DE, CB, CE",
        ("CE", 16): "linear 16 differs from the hidden size 32",
    }.items():
        with subtests.test(str(tower)), pytest.raises(ValueError, match=message):
            build(Tower(tower[0], "random:2x32", linear=tower[1]))
    for layer in (0, -1, 4):
        message = f"layer {layer} does not exist: this DE has layers 1 to 3"
        with subtests.test(layer), pytest.raises(ValueError, match=message):
            retriever("DE")(batch(tokenizer), (1, layer))


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(MINIATURE, folder / "model", dirs_exist_ok=True))


def more_words(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens(["brandnewword"])
    tokenizer.save_pretrained(folder)


def test_folders_that_are_no_encoder(tmp_path, subtests):
    whole = (MINIATURE / "model.safetensors").read_bytes()
    config = json.loads((MINIATURE / "config.json").read_text())

    def weights(content):
        return lambda folder: (folder / "model.safetensors").write_bytes(content)

    def another(**fields):
        return lambda folder: (folder / "config.json").write_text(json.dumps(config | fields))

    for case, (damage, message) in {
        "no folder": (shutil.rmtree, "neither a folder"),
        "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights (*.safe"),
        "half": (weights(whole[: len(whole) // 2]), "damaged"),
        "empty": (weights(b""), "damaged"),
        "noise": (weights(b"\xff" * 100), "damaged"),
        "wider": (another(hidden_size=64), "another shape"),
        "deeper": (another(num_hidden_layers=8), "lack"),
        "no tokeniser": (lambda f: (f / "tokenizer.json").unlink(), "tokeniser"),
        "more words": (
            more_words,
            "tokeniser has 8193 words, its embedding table 8192 rows; they do not belong together",
        ),
    }.items():
        folder = copied(tmp_path)
        damage(folder)
        with subtests.test(str(case)), pytest.raises((ValueError, OSError)) as error:
            load_encoder(str(folder), 0.0)
        assert f"encoder {str(folder)!r}" in str(error.value), case
        assert message in str(error.value), case


def test_encoder_is_known_by_its_weights(tmp_path):
    folder = copied(tmp_path)
    known = names.encoder_digest(str(folder))
    assert known == names.encoder_digest(str(MINIATURE)) != names.encoder_digest("random:2x32")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert names.encoder_digest(str(folder)) != known

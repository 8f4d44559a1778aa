"""Checkpoints with heads, written by the real libraries, score here as they score there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import nn
from toys import WORDS, encoder
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from leadkit.data.tokens import pair, tokenise
from leadkit.models import checkpoints
from leadkit.models.batch import Batch
from leadkit.models.retrievers import build, load
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower, depth

QUERIES = [" ".join(WORDS[i : i + 3]) for i in range(4)]
PASSAGES = [" ".join(WORDS[i : i + 3 + i]) for i in range(6)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return {kind: encoder(folder / kind, kind) for kind in ("bert", "distilbert", "roberta")}


def transformer(folder: str) -> Transformer:
    kwargs = {} if "distilbert" in folder else {"add_pooling_layer": False}
    return Transformer(folder, model_kwargs=kwargs)


def scores_here(model, cache: Path, layers: tuple[int, ...] = ()) -> tuple[torch.Tensor, ...]:
    """Layer scores (K, 4, 6) and final scores (4, 6); a CE is given every pair."""
    tokenizer = load_tokenizer(model.tower.encoder)
    q = tokenise(dict(enumerate(QUERIES)), tokenizer, 64, cache)
    p = tokenise(dict(enumerate(PASSAGES)), tokenizer, 64, cache)
    if not model.pairs_only:
        positive = torch.zeros(len(q), dtype=torch.long)
        batch = Batch(q.rows(np.arange(len(q))), p.rows(np.arange(len(p))), positive)
        with torch.no_grad():
            return model(batch, layers)
    rows = np.repeat(np.arange(4), 6), np.tile(np.arange(6), 4)
    with torch.no_grad():
        every = model.score(pair(q, p, *rows), (*layers, model.layers)).unflatten(1, (4, 6))
    return every[:-1], every[-1]


def read(folder: Path) -> torch.nn.Module:
    return build(checkpoints.tower(str(folder), 0.0, False)).eval()


def single(folder: Path, start: str, pooling: str, *behind: nn.Module, **settings) -> Path:
    modules = [transformer(start), Pooling(32, pooling), *behind]
    SentenceTransformer(modules=modules, device="cpu", **settings).save_pretrained(str(folder))
    return folder


SINGLE = {
    "mean, dense, normalised": ("mean", [Dense(32, 16), Normalize()], "cosine"),
    "cls, cosine": ("cls", [], "cosine"),
    "mean, dot": ("mean", [], "dot"),
    "two dense": ("cls", [Dense(32, 24, False, nn.ReLU()), Dense(24, 8, True, None)], "dot"),
}


@pytest.mark.parametrize("form", SINGLE)
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_dual_encoder(form, kind, plain, tmp_path):
    torch.manual_seed(1)
    pooling, behind, similarity = SINGLE[form]
    folder = single(tmp_path / "st", plain[kind], pooling, *behind, similarity_fn_name=similarity)
    there = SentenceTransformer(str(folder), device="cpu")
    want = there.similarity(there.encode_query(QUERIES), there.encode_document(PASSAGES))
    here = read(folder)
    _, got = scores_here(here, tmp_path)
    torch.testing.assert_close(got / here.tower.scale, want, rtol=1e-5, atol=1e-5)
    assert (here.tower.scale == 20) == (similarity == "cosine") and want.std() > 1e-3


def multiple(folder: Path, start: str, linear: int, normalised: bool = True, **mask) -> Path:
    modules: list[nn.Module] = [transformer(start)]
    if linear:
        token = {"module_input_name": "token_embeddings"}
        modules.append(Dense(32, linear, bias=False, activation_function=None, **token))
    modules.append(MultiVectorMask(**mask))
    if normalised:
        modules.append(Normalize(module_input_name="token_embeddings"))
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("linear, normalised", [(16, True), (0, True), (16, False)])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_colbert(linear, normalised, kind, plain, tmp_path):
    folder = multiple(tmp_path / "mve", plain[kind], linear, normalised)
    there = MultiVectorEncoder(str(folder), device="cpu")
    want = there.similarity(there.encode_query(QUERIES), there.encode_document(PASSAGES))
    here = read(folder)
    _, got = scores_here(here, tmp_path)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert here.layers == depth(here.tower) == 3 + (linear > 0)  # the linear layer is one more


def test_pylate_folder(plain, tmp_path):
    """PyLate names its own class in modules.json; nothing of PyLate is imported."""
    folder = multiple(tmp_path / "pylate", plain["bert"], 16)
    listed = json.loads((folder / "modules.json").read_text())[:2]
    listed[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "config_sentence_transformers.json").unlink()
    there = MultiVectorEncoder(str(folder), device="cpu")
    want = there.similarity(there.encode_query(QUERIES), there.encode_document(PASSAGES))
    _, got = scores_here(read(folder), tmp_path)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def classifier(folder: Path, start: str, outputs: int = 1) -> Path:
    config = AutoConfig.from_pretrained(start, num_labels=outputs)
    torch.manual_seed(2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_cross_encoder(kind, plain, tmp_path):
    folder = classifier(tmp_path / "ce", plain[kind])
    there = CrossEncoder(str(folder), device="cpu", activation_fn=nn.Identity())
    pairs = [(query, passage) for query in QUERIES for passage in PASSAGES]
    want = torch.from_numpy(there.predict(pairs)).view(4, 6)
    _, got = scores_here(read(folder), tmp_path)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert want.std() > 1e-3


@pytest.mark.parametrize("kind", ["electra", "mpnet", "xlm-roberta", "camembert"])
def test_cross_encoder_of_a_relative(kind, plain, tmp_path):
    """The classifiers of BERT's and RoBERTa's relatives, with these two's tokenisers."""
    start = plain["bert" if kind in ("electra", "mpnet") else "roberta"]
    sizes = AutoConfig.from_pretrained(start).to_dict()
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    kept += ("intermediate_size", "max_position_embeddings", "initializer_range", "pad_token_id")
    small = {name: sizes[name] for name in kept}
    config = AutoConfig.for_model(kind, num_labels=1, **small)
    torch.manual_seed(3)
    folder = tmp_path / "ce"
    model = AutoModelForSequenceClassification.from_config(config)
    nn.init.normal_(model.classifier.dense.bias)  # a bias that is dropped shows
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    there = CrossEncoder(str(folder), device="cpu", activation_fn=nn.Identity())
    pairs = [(query, passage) for query in QUERIES for passage in PASSAGES]
    want = torch.from_numpy(there.predict(pairs)).view(4, 6)
    _, got = scores_here(read(folder), tmp_path)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert want.std() > 1e-3


def test_head_is_applied_to_every_layer(plain, tmp_path):
    """Layer i of a DE and of a CE scores as the checkpoint whose encoder ends behind block i."""
    for folder in (
        single(tmp_path / "de", plain["bert"], "mean", Dense(32, 16), Normalize()),
        classifier(tmp_path / "ce", plain["bert"]),
    ):
        layers, _ = scores_here(read(folder), tmp_path, (1, 2, 3))
        for layer in (1, 2, 3):
            kept = ",".join(map(str, range(1, layer + 1)))
            _, final = scores_here(read(f"layers:{kept}:{folder}"), tmp_path)
            torch.testing.assert_close(layers[layer - 1], final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["de", "cb", "ce"])
def test_saved_and_loaded(form, plain, tmp_path):
    """The head goes with `save`, and comes back from the saved file, not from the checkpoint."""
    make = {
        "de": lambda folder: single(folder, plain["bert"], "mean", Dense(32, 16), Normalize()),
        "cb": lambda folder: multiple(folder, plain["bert"], 16),
        "ce": lambda folder: classifier(folder, plain["bert"]),
    }
    folder = make[form](tmp_path / "came")
    model = read(folder)
    _, want = scores_here(model, tmp_path)
    model.save(tmp_path / "saved", load_tokenizer(str(folder)))
    shutil.rmtree(folder)
    _, got = scores_here(load(tmp_path / "saved"), tmp_path)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def prompted(folder: Path, start: str) -> None:
    single(folder, start, "mean", prompts={"query": "query: ", "document": ""})


def filled(folder: Path, start: str) -> None:
    reads = Transformer(
        start,
        model_kwargs={"add_pooling_layer": False},
        query_expansion={"strategy": "fixed", "length": 16},
    )
    modules = [reads, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(folder))


def pickled(folder: Path, start: str) -> None:
    single(folder, start, "mean", Dense(32, 16))
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")


def foreign(folder: Path, start: str) -> None:
    single(folder, start, "mean")
    listed = json.loads((folder / "modules.json").read_text())
    listed[1]["type"] = "json.JSONDecoder"
    listed.append({"idx": 2, "name": "2", "path": "1_Pooling", "type": "x.Pooling"})
    (folder / "modules.json").write_text(json.dumps(listed))


REFUSED = {
    "maximum": (lambda f, s: single(f, s, "max"), "its pooling is 'max'"),
    "distance": (
        lambda f, s: single(f, s, "cls", similarity_fn_name="euclidean"),
        "its similarity is 'euclidean'",
    ),
    "prompt": (prompted, "its prompt 'query' .'query: '. would be dropped"),
    "filled": (filled, "filled with .MASK. .query_expansion., which would be dropped"),
    "skipped": (
        lambda f, s: multiple(f, s, 16, skiplist_words=["array"]),
        "its mask skips 1 words of passages",
    ),
    "outputs": (lambda f, s: classifier(f, s, 3), "its classifier has 3 outputs"),
    "pickled": (pickled, "2_Dense/pytorch_model.bin is pickled and never read"),
    "foreign": (foreign, "its module 'json.JSONDecoder' is code of another package"),
    "alone": (lambda f, s: shutil.copytree(s, f), "is an encoder alone"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_known_is_refused_by_name(kind, plain, tmp_path):
    make, message = REFUSED[kind]
    make(tmp_path / kind, plain["bert"])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        checkpoints.tower(str(tmp_path / kind), 0.0, False)


def test_tower_of_another_head(plain, tmp_path):
    folder = single(tmp_path / "de", plain["bert"], "mean", Normalize())
    with pytest.raises(ValueError, match="has head 'normalize', the tower 'dense:8:tanh'"):
        build(Tower("DE", str(folder), pooling="mean", head="dense:8:tanh"))

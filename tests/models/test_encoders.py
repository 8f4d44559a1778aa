"""Any encoder by folder: three architectures with their tokenisers, against Hugging Face's model, one unpadded text at a time."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from toys import WORDS, data, isolate, scale
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    DistilBertTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from leadkit import paths
from leadkit.config import Schedule
from leadkit.data.tokens import pair, tokenise
from leadkit.experiments.distillation import TeacherAfter, WarmUp
from leadkit.experiments.pipeline import Pipeline
from leadkit.files import read_tensors
from leadkit.models.batch import Batch, Tokens
from leadkit.models.encoders import check, load_encoder
from leadkit.models.retrievers import build, load
from leadkit.models.tokenizers import load_tokenizer, separators
from leadkit.models.tower import Tower, check_lengths, depth

KINDS = ("bert", "distilbert", "roberta")
ARCHITECTURES = ("DE", "CB", "CE")
QUERIES = ["sort list", "the shape of array matrix", "file"]
PASSAGES = [
    "sequence order list item",
    "array index, shape and size: image matrix tensor",
    "file",
    "stream file",
    "path or integer number of the file object",
    "mode",
]


def encoder(
    folder: Path,
    kind: str,
    layers: int = 3,
    hidden: int = 32,
    positions: int = 96,
    **changes: object,
) -> str:
    """An untrained encoder and its tokeniser, as a folder: WordPiece for BERT and DistilBERT, byte-level BPE for RoBERTa.

    Its blocks change their input much more than at usual initialisation. [PAD] of the WordPieces is no. 3.
    """
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": positions,
        "initializer_range": 0.2,
    } | changes
    if kind == "roberta":
        trained = ByteLevelBPETokenizer()
        trained.train_from_iterator(
            WORDS,
            400,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            show_progress=False,
        )
        trained.save_model(str(folder.parent), folder.name)
        files = [
            str(folder.parent / f"{folder.name}-{name}") for name in ("vocab.json", "merges.txt")
        ]
        tokenizer = RobertaTokenizer(*files)
        config, model = RobertaConfig(vocab_size=len(tokenizer), **sizes), RobertaModel
    else:
        pieces = [
            *"abcdefghijklmnopqrstuvwxyz",
            *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
            *WORDS[::2],
        ]
        vocabulary = {
            word: i
            for i, word in enumerate(["[UNK]", "[MASK]", "[SEP]", "[PAD]", "[CLS]", *pieces])
        }
        tokenizer = {"bert": BertTokenizer, "distilbert": DistilBertTokenizer}[kind](vocabulary)
        kinds = {"bert": (BertConfig, BertModel), "distilbert": (DistilBertConfig, DistilBertModel)}
        config, model = (
            kinds[kind][0](vocab_size=len(tokenizer), pad_token_id=3, **sizes),
            kinds[kind][1],
        )
    torch.manual_seed(0)
    model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: encoder(folder / kind, kind) for kind in KINDS} | {
        "deep bert": encoder(folder / "deep", "bert", 12, 16)
    }


def retriever(architecture, folder, **tower):
    torch.manual_seed(1)
    return build(Tower(architecture, folder, **{"scale": 0.5, "dropout": 0.0} | tower)).eval()


def batch(folder, cache, own, n=2):
    q, p = (
        tokenise(dict(enumerate(texts)), load_tokenizer(folder), 48, cache)
        for texts in (QUERIES, PASSAGES)
    )
    queries, passages = np.arange(len(QUERIES)), np.arange(len(PASSAGES))
    positive = (
        torch.zeros(len(QUERIES), dtype=torch.long) if own else torch.arange(len(QUERIES)) * n
    )
    return Batch(
        q.rows(queries),
        p.rows(passages),
        positive,
        own,
        pair(q, p, np.repeat(queries, n), passages),
    )


class Plain:
    """Hugging Face's own tokeniser and model of a folder."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    @torch.no_grad()
    def __call__(self, *text):
        return self.model(
            **self.tokenizer(*text, return_tensors="pt"),
            output_hidden_states=True,
            output_attentions=True,
        )

    def score(self, architecture, layer, query, passage, w=None):
        if architecture == "CE":
            return self(query, passage).hidden_states[layer][0, 0] @ w
        q, p = (self(text).hidden_states[layer][0] for text in (query, passage))
        return q[0] @ p[0] if architecture == "DE" else (q @ p.T).max(1).values.sum()


# --- scores


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_padded_batches_are_those_of_single_texts(kind, architecture, folders, tmp_path):
    model, plain = retriever(architecture, folders[kind]), Plain(folders[kind])
    made = batch(folders[kind], tmp_path, own=True)
    assert (
        not made.queries.mask.all() and not made.passages.mask.all() and not made.pairs.mask.all()
    )
    with torch.no_grad():
        got, final = model(made, (1, 2, 3))  # (K, B, n)
    torch.testing.assert_close(final, got[-1], rtol=0, atol=0)
    w = model.projection.detach() if architecture == "CE" else None
    want = [
        [
            [plain.score(architecture, layer, query, PASSAGES[2 * b + c], w) for c in range(2)]
            for b, query in enumerate(QUERIES)
        ]
        for layer in (1, 2, 3)
    ]
    torch.testing.assert_close(got, 0.5 * torch.tensor(want), rtol=1e-4, atol=1e-4)
    assert got.std() > 0.1


def test_token_types_are_left_out_where_an_encoder_has_one(tmp_path):
    folder = encoder(tmp_path / "model", "bert", type_vocab_size=1)
    model, plain = retriever("CE", folder, scale=1.0), Plain(folder)
    made = batch(folder, tmp_path, own=True)
    with torch.no_grad():
        want = [
            plain.model(row[mask][None]).last_hidden_state[0, 0] @ model.projection
            for row, mask in zip(made.pairs.ids, made.pairs.mask, strict=True)
        ]
        torch.testing.assert_close(
            model(made)[1].flatten(), torch.stack(want), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_more_padding_changes_no_score(kind, architecture, folders, tmp_path):
    def wider(tokens):
        pad = load_tokenizer(folders[kind]).pad_token_id
        sides = [(tokens.ids, pad), (tokens.mask, False)] + (
            [] if tokens.kinds is None else [(tokens.kinds, 0)]
        )
        return Tokens(*(torch.nn.functional.pad(t, (0, 9), value=value) for t, value in sides))

    model, made = retriever(architecture, folders[kind]), batch(folders[kind], tmp_path, own=True)
    more = replace(
        made, queries=wider(made.queries), passages=wider(made.passages), pairs=wider(made.pairs)
    )
    with torch.no_grad():
        torch.testing.assert_close(
            model(more, (1, 2, 3))[0], model(made, (1, 2, 3))[0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_those_of_the_tokeniser(kind, folders, tmp_path):
    made, tokenizer = batch(folders[kind], tmp_path, own=True).pairs, load_tokenizer(folders[kind])
    queries = [query for query in QUERIES for _ in range(2)]
    want = tokenizer(
        queries, PASSAGES, padding=True, return_tensors="pt", return_token_type_ids=True
    )
    assert torch.equal(made.ids, want["input_ids"]) and torch.equal(
        made.mask, want["attention_mask"].bool()
    )
    assert torch.equal(made.kinds, want["token_type_ids"])
    assert separators(tokenizer)[0].tolist() == (
        [tokenizer.sep_token_id] if kind == "roberta" else []
    )


@pytest.mark.parametrize("kind", KINDS)
def test_cross_encoder_maps_are_its_attention_from_query_to_passage(kind, folders, tmp_path):
    model, plain = retriever("CE", folders[kind]), Plain(folders[kind])
    with torch.no_grad():
        maps, final = model.interactions(made := batch(folders[kind], tmp_path, own=True), (2,))
        torch.testing.assert_close(final, model(made)[1], rtol=1e-4, atol=1e-5)
    for b, query in enumerate(QUERIES):
        for c, passage in enumerate(PASSAGES[2 * b : 2 * b + 2]):
            x, words = (
                len(plain.tokenizer(query)["input_ids"]),
                plain.tokenizer(passage)["input_ids"][1:],
            )
            pair_ids = plain.tokenizer(query, passage)["input_ids"]
            first = next(
                i for i in range(x, len(pair_ids)) if pair_ids[i:] == words
            )  # where the passage stands in the pair
            block = plain(query, passage).attentions[1][0].mean(0)[:x, first:]
            want = block / block.sum(1, keepdim=True)
            torch.testing.assert_close(
                maps[0, b, c, :x, 1 : len(words) + 1], want, rtol=1e-4, atol=1e-5
            )
            assert maps[0, b, c, :, len(words) + 1 :].sum() == 0


# --- what a folder is asked for


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_the_towers(kind, folders, tmp_path):
    made = batch(folders[kind], tmp_path, own=True)
    for dropout in (0.0, 0.5):
        model = retriever("DE", folders[kind], dropout=dropout).train()
        assert torch.equal(model(made)[1], model(made)[1]) == (dropout == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_encoder_repeats_the_pile(kind, folders, tmp_path):
    tower, made = (
        Tower("DE", f"stacked:7:{folders[kind]}", dropout=0.0),
        batch(folders[kind], tmp_path, own=True),
    )
    model, plain = build(tower).eval(), retriever("DE", folders[kind], scale=1.0)
    assert model.layers == depth(tower) == 7
    with torch.no_grad():
        torch.testing.assert_close(model(made, (1, 2, 3))[0], plain(made, (1, 2, 3))[0])
        model.save(tmp_path / "saved", load_tokenizer(folders[kind]))
        torch.testing.assert_close(
            load(tmp_path / "saved")(made, (7,))[0], model(made, (7,))[0], rtol=0, atol=0
        )
    last = {name: value for name, value in model.encoder.state_dict().items() if ".6." in name}
    first = plain.encoder.state_dict()
    assert last and all(
        torch.equal(value, first[name.replace(".6.", ".0.")]) for name, value in last.items()
    )


# --- a distillation, end to end


@pytest.mark.parametrize(
    "teacher, student, architecture",
    [
        *(("deep bert", "roberta", architecture) for architecture in ARCHITECTURES),
        ("roberta", "distilbert", "CE"),
        ("distilbert", "bert", "CB"),
        ("roberta", "roberta", "CE"),
    ],
)
def test_lead_runs_end_to_end(teacher, student, architecture, folders, common):
    toy = scale(common, teacher_encoder=folders[teacher], student_encoder=folders[student])
    pipeline = Pipeline(toy, teacher=architecture)
    lead = pipeline.distil("LEAD")
    log = lead.log()
    assert len(log) == 3 and all(
        np.isfinite(list(row.values())).all() and row["layer"] > 0 for row in log
    )
    for saved, start in (
        ("retriever", lead.student),
        ("teacher", lead.teacher),
    ):  # both are trained, word embeddings included
        before = read_tensors(start.done() / "retriever" / "model.safetensors")
        after = read_tensors(lead.done() / saved / "model.safetensors")
        words = "embeddings.word_embeddings.weight"
        assert before.keys() == after.keys() and not torch.equal(before[words], after[words])
    for evaluation in (
        pipeline.evaluate(lead, "test"),
        pipeline.evaluate(TeacherAfter(lead.data, lead), "test", rerank=True),
    ):
        ranking = evaluation.ranking()
        assert ranking.rows.shape == (6, 20) and np.isfinite(ranking.scores).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_feature_distillation_of_byte_level_encoders(architecture, folders, common):
    toy = scale(common, teacher_encoder=folders["roberta"], student_encoder=folders["roberta"])
    assert all(
        np.isfinite(row["layer"]) for row in Pipeline(toy, teacher=architecture).distil("FD").log()
    )


# --- bad input, before any work


def refused(message, call):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value) and not paths.RUNS.exists()


def test_tokeniser_without_cls(name, folders, tmp_path):
    folder = encoder(tmp_path / "model", "roberta")
    rules = load_tokenizer(folder).backend_tokenizer
    PreTrainedTokenizerFast(
        tokenizer_object=rules, sep_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    refused(
        f"encoder {folder!r}: its tokeniser lacks [CLS] (or <s>); one like BERT's or RoBERTa's is needed",
        lambda: Pipeline(scale(name, student_encoder=folder)),
    )


def test_tokeniser_that_does_not_write_cls(name, tmp_path):
    folder = encoder(tmp_path / "model", "bert")
    rules = load_tokenizer(folder).backend_tokenizer
    rules.post_processor = None
    special = {f"{part}_token": f"[{part.upper()}]" for part in ("cls", "sep", "pad", "unk")}
    PreTrainedTokenizerFast(tokenizer_object=rules, **special).save_pretrained(folder)
    refused(
        f"encoder {folder!r}: its tokeniser makes 'a' of the text 'a'; [CLS] must stand before a text and [SEP] behind it",
        lambda: Pipeline(scale(name, teacher_encoder=folder)),
    )


def test_tokeniser_that_makes_other_pairs(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    tokenizer = load_tokenizer(encoder(tmp_path / "model", "bert"))
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A $B [SEP]", special
    )
    refused(
        "of the pair 'a', 'a': both must stand there as each stands alone",
        lambda: separators(tokenizer),
    )


@pytest.mark.parametrize("kind, room", [("bert", 20), ("distilbert", 20), ("roberta", 18)])
def test_texts_longer_than_the_position_table(kind, room, name, tmp_path):
    """`room` tokens are encoded, one more is refused; RoBERTa's first position is no. 2, and its pairs have a separator more."""
    folder, between = encoder(tmp_path / "model", kind, positions=20), int(kind == "roberta")
    schedule, text = Schedule(1), " ".join(["list"] * 40)
    tokens = tokenise({"t": text}, load_tokenizer(folder), room, tmp_path / "cache").rows(
        np.array([0])
    )
    assert tokens.ids.shape == (1, room) and retriever("DE", folder).encode(tokens).isfinite().all()
    longest = data(name, query_tokens=room, passage_tokens=room)
    for tower in (Tower("DE", folder), Tower("CB", folder)):
        WarmUp(longest, tower, schedule)
        for field in ("passage_tokens", "query_tokens"):
            refused(
                f"data.{field} is {room + 1}: the position table of encoder {folder!r} holds {room}, use at most that",
                lambda: WarmUp(replace(longest, **{field: room + 1}), tower, schedule),
            )  # noqa: B023
    query = 8
    passage = room - query + 1 - between
    WarmUp(data(name, query_tokens=query, passage_tokens=passage), Tower("CE", folder), schedule)
    q, p = (
        tokenise({"t": text}, load_tokenizer(folder), length, tmp_path / "cache")
        for length in (query, passage)
    )
    made = pair(q, p, np.array([0]), np.array([0]))
    assert (
        made.ids.shape == (1, room) and retriever("CE", folder).score(made, (3,)).isfinite().all()
    )
    refused(
        f"data.query_tokens 8 and data.passage_tokens {passage + 1} make pairs of {room + 1} tokens: the position table of "
        f"encoder {folder!r} holds {room}",
        lambda: WarmUp(
            data(name, query_tokens=query, passage_tokens=passage + 1),
            Tower("CE", folder),
            schedule,
        ),
    )


def test_untrained_encoder_has_a_position_table_too(name):
    refused(
        "data.passage_tokens is 513: the position table of encoder 'random:2x32' holds 512",
        lambda: WarmUp(data(name, passage_tokens=513), Tower("DE", "random:2x32"), Schedule(1)),
    )


def test_positions_that_are_counted_from_another_padding(name, tmp_path):
    folder = encoder(tmp_path / "model", "roberta", pad_token_id=0)
    refused(
        f"encoder {folder!r}: its tokeniser pads with id 1, its position table with 0; they do not belong together",
        lambda: check_lengths(Tower("DE", folder), 8, 16, pairs=False),
    )


def test_feature_distillation_needs_one_tokeniser(name, folders, tmp_path):
    pipeline = Pipeline(
        scale(name, teacher_encoder=folders["bert"], student_encoder=folders["roberta"])
    )
    refused(
        f"method 'FD' compares attention token by token: student {folders['roberta']!r} and teacher {folders['bert']!r} must "
        "have the same tokeniser",
        lambda: pipeline.distil("FD"),
    )
    copied = str(shutil.copytree(folders["bert"], tmp_path / "copy"))
    Pipeline(scale(name, teacher_encoder=folders["bert"], student_encoder=copied)).distil("FD")


def test_encoder_decoder(name, tmp_path):
    folder = encoder(tmp_path / "model", "roberta")
    BartConfig(d_model=32).save_pretrained(folder)
    refused(
        f"encoder {folder!r}: a bart is an encoder and a decoder; an encoder alone is needed",
        lambda: check(folder),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_of_a_folder_is_made_up(kind, folders):
    """What is loaded is what the folder holds, the pooling layer left out."""
    stored = read_tensors(Path(folders[kind]) / "model.safetensors")
    loaded = load_encoder(folders[kind], 0.0).state_dict()
    assert {name for name in stored if "pooler" not in name} == loaded.keys()
    assert all(torch.equal(stored[name], value) for name, value in loaded.items())

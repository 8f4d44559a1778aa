"""Any encoder by folder, against Hugging Face's model, one unpadded text at a time."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from toys import data, encoder, scale
from transformers import AutoModel, AutoTokenizer, BartConfig, PreTrainedTokenizerFast

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


def wider(tokens, pad):
    """The same tokens with nine columns of padding more."""
    sides = [(tokens.ids, pad), (tokens.mask, False)]
    sides += [] if tokens.kinds is None else [(tokens.kinds, 0)]
    return Tokens(*(torch.nn.functional.pad(t, (0, 9), value=value) for t, value in sides))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_padded_batches_are_those_of_single_texts(kind, folders, tmp_path, subtests):
    plain, made = Plain(folders[kind]), batch(folders[kind], tmp_path, own=True)
    assert not any(tokens.mask.all() for tokens in (made.queries, made.passages, made.pairs))
    pad = load_tokenizer(folders[kind]).pad_token_id
    parts = {part: wider(getattr(made, part), pad) for part in ("queries", "passages", "pairs")}
    for architecture in ARCHITECTURES:
        with subtests.test(architecture), torch.no_grad():
            model = retriever(architecture, folders[kind])
            got, final = model(made, (1, 2, 3))  # (K, B, n)
            more, _ = model(replace(made, **parts), (1, 2, 3))
            torch.testing.assert_close(final, got[-1], rtol=0, atol=0)
            w = model.projection if architecture == "CE" else None
            want = torch.empty(3, len(QUERIES), 2)
            for k, b, c in np.ndindex(want.shape):
                texts = QUERIES[b], PASSAGES[2 * b + c]
                want[k, b, c] = 0.5 * plain.score(architecture, k + 1, *texts, w)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(more, got, rtol=1e-5, atol=1e-5)
            assert got.std() > 0.1


def test_token_types_are_left_out_where_an_encoder_has_one(tmp_path):
    folder = encoder(tmp_path / "model", "bert", type_vocab_size=1)
    model, plain = retriever("CE", folder, scale=1.0), Plain(folder)
    made = batch(folder, tmp_path, own=True)
    with torch.no_grad():
        final = model(made)[1].flatten()
        for ids, mask, score in zip(made.pairs.ids, made.pairs.mask, final, strict=True):
            cls = plain.model(ids[mask][None]).last_hidden_state[0, 0]
            torch.testing.assert_close(score, cls @ model.projection, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_and_their_attention_are_those_of_the_library(kind, folders, tmp_path):
    model, plain = retriever("CE", folders[kind]), Plain(folders[kind])
    made, tokenizer = batch(folders[kind], tmp_path, own=True), plain.tokenizer
    asked = [query for query in QUERIES for _ in range(2)]
    how = {"padding": True, "return_tensors": "pt", "return_token_type_ids": True}
    pairs = tokenizer(asked, PASSAGES, **how)
    assert torch.equal(made.pairs.ids, pairs["input_ids"])
    assert torch.equal(made.pairs.mask, pairs["attention_mask"].bool())
    assert torch.equal(made.pairs.kinds, pairs["token_type_ids"])
    with torch.no_grad():
        maps, final = model.interactions(made, (2,))
        torch.testing.assert_close(final, model(made)[1], rtol=1e-4, atol=1e-5)
    for i, (query, passage) in enumerate(zip(asked, PASSAGES, strict=True)):
        b, c = divmod(i, 2)
        x = len(tokenizer(query)["input_ids"])
        words = tokenizer(passage)["input_ids"][1:]
        ids = tokenizer(query, passage)["input_ids"]
        first = next(at for at in range(x, len(ids)) if ids[at:] == words)  # of the passage
        block = plain(query, passage).attentions[1][0].mean(0)[:x, first:]  # (x, y)
        want = block / block.sum(1, keepdim=True)
        got = maps[0, b, c]
        torch.testing.assert_close(got[:x, 1 : len(words) + 1], want, rtol=1e-4, atol=1e-5)
        assert got[:, len(words) + 1 :].sum() == 0


# --- what a folder is asked for


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_the_towers_and_no_weight_is_made_up(kind, folders, tmp_path):
    """What is loaded is what the folder holds, the pooling layer left out."""
    made = batch(folders[kind], tmp_path, own=True)
    for dropout in (0.0, 0.5):
        model = retriever("DE", folders[kind], dropout=dropout).train()
        assert torch.equal(model(made)[1], model(made)[1]) == (dropout == 0)
    stored = read_tensors(Path(folders[kind]) / "model.safetensors")
    loaded = load_encoder(folders[kind], 0.0).state_dict()
    assert {name for name in stored if "pooler" not in name} == loaded.keys()
    assert all(torch.equal(stored[name], value) for name, value in loaded.items())


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_encoder_repeats_the_pile(kind, folders, tmp_path):
    tower = Tower("DE", f"stacked:7:{folders[kind]}", dropout=0.0)
    made = batch(folders[kind], tmp_path, own=True)
    model, plain = build(tower).eval(), retriever("DE", folders[kind], scale=1.0)
    assert model.layers == depth(tower) == model.encoder.config.num_hidden_layers == 7
    with torch.no_grad():  # the first layers see what they saw
        torch.testing.assert_close(model(made, (1, 2, 3))[0], plain(made, (1, 2, 3))[0])
        model.save(tmp_path / "saved", load_tokenizer(folders[kind]))
        again = load(tmp_path / "saved")
        assert torch.equal(again(made, (7,))[0], model(made, (7,))[0])
    pile = plain.encoder.state_dict()
    for block in range(7):
        mark = f".{block}."
        ours = {key: v for key, v in model.encoder.state_dict().items() if mark in key}
        assert ours
        for key, value in ours.items():
            assert torch.equal(value, pile[key.replace(mark, f".{block % 3}.")]), key
    with pytest.raises(ValueError, match="it has 3 layers already, stacking takes none away"):
        build(replace(tower, encoder=f"stacked:2:{folders[kind]}"))


# --- a distillation, end to end


@pytest.mark.parametrize(
    "teacher, student, architecture",
    [("deep bert", "roberta", "DE"), ("distilbert", "bert", "CB"), ("roberta", "distilbert", "CE")],
)
def test_lead_runs_end_to_end(teacher, student, architecture, folders, common):
    toy = scale(common, teacher_encoder=folders[teacher], student_encoder=folders[student])
    pipeline = Pipeline(toy, teacher=architecture)
    lead = pipeline.distil("LEAD")
    log = lead.log()
    assert len(log) == 3
    for row in log:
        assert np.isfinite(list(row.values())).all() and row["layer"] > 0
    # Both are trained, word embeddings included.
    for saved, start in (("retriever", lead.student), ("teacher", lead.teacher)):
        before = read_tensors(start.done() / "retriever" / "model.safetensors")
        after = read_tensors(lead.done() / saved / "model.safetensors")
        words = "embeddings.word_embeddings.weight"
        assert before.keys() == after.keys() and not torch.equal(before[words], after[words])
    trained = TeacherAfter(lead.data, lead)
    found = pipeline.evaluate(lead, "test"), pipeline.evaluate(trained, "test")
    for evaluation in found:
        ranking = evaluation.ranking()
        assert ranking.rows.shape == (6, 20) and np.isfinite(ranking.scores).all()


def test_feature_distillation_of_byte_level_encoders(folders, common, subtests):
    toy = scale(common, teacher_encoder=folders["roberta"], student_encoder=folders["roberta"])
    for architecture in ARCHITECTURES:
        with subtests.test(architecture):
            log = Pipeline(toy, teacher=architecture).distil("FD").log()
            assert len(log) == 3 and all(np.isfinite(row["layer"]) for row in log)


# --- bad input, before any work


def refused(message, call, *arguments, **named):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value) and not paths.RUNS.exists()


def test_tokenisers_of_another_kind(name, tmp_path):
    folder = encoder(tmp_path / "without", "roberta")
    rules = load_tokenizer(folder).backend_tokenizer
    lacking = PreTrainedTokenizerFast(tokenizer_object=rules, sep_token="</s>", pad_token="<pad>")
    lacking.save_pretrained(folder)
    refused(
        f"encoder {folder!r}: its tokeniser lacks [CLS] (or <s>); one like BERT's or RoBERTa's "
        "is needed",
        Pipeline,
        scale(name, student_encoder=folder),
    )
    folder = encoder(tmp_path / "unwritten", "bert")
    rules = load_tokenizer(folder).backend_tokenizer
    rules.post_processor = None
    special = {f"{part}_token": f"[{part.upper()}]" for part in ("cls", "sep", "pad", "unk")}
    PreTrainedTokenizerFast(tokenizer_object=rules, **special).save_pretrained(folder)
    refused(
        f"encoder {folder!r}: its tokeniser makes 'a' of the text 'a'; [CLS] must stand before a "
        "text and [SEP] behind it",
        Pipeline,
        scale(name, teacher_encoder=folder),
    )
    tokenizer = load_tokenizer(encoder(tmp_path / "pairs", "bert"))
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A $B [SEP]", ids
    )
    refused(
        "of the pair 'a', 'a': both must stand there as each stands alone", separators, tokenizer
    )


@pytest.mark.parametrize("kind, room", [("bert", 20), ("distilbert", 20), ("roberta", 18)])
def test_texts_longer_than_the_position_table(kind, room, name, tmp_path):
    """`room` tokens are encoded, one more is refused.

    RoBERTa's first position is no. 2, and its pairs have a separator more.
    """
    folder = encoder(tmp_path / "model", kind, positions=20)
    tokenizer, schedule = load_tokenizer(folder), Schedule(1)

    def tokens(length):
        return tokenise({"t": "list " * 40}, tokenizer, length, tmp_path / "cache")

    row = np.array([0])
    made = tokens(room).rows(row)
    assert made.ids.shape == (1, room)
    assert retriever("DE", folder).encode(made).isfinite().all()
    longest = data(name, query_tokens=room, passage_tokens=room)
    for architecture in ("DE", "CB"):
        tower = Tower(architecture, folder)
        WarmUp(longest, tower, schedule)
        for field in ("passage_tokens", "query_tokens"):
            refused(
                f"data.{field} is {room + 1}: the position table of encoder {folder!r} holds "
                f"{room}, use at most that",
                WarmUp,
                replace(longest, **{field: room + 1}),
                tower,
                schedule,
            )
    query = 8
    passage = room - query + 1 - (kind == "roberta")
    fits = data(name, query_tokens=query, passage_tokens=passage)
    WarmUp(fits, Tower("CE", folder), schedule)
    made = pair(tokens(query), tokens(passage), row, row)
    assert made.ids.shape == (1, room)
    assert retriever("CE", folder).score(made, (3,)).isfinite().all()
    refused(
        f"data.query_tokens 8 and data.passage_tokens {passage + 1} make pairs of {room + 1} "
        f"tokens: the position table of encoder {folder!r} holds {room}",
        WarmUp,
        replace(fits, passage_tokens=passage + 1),
        Tower("CE", folder),
        schedule,
    )


def test_folders_whose_parts_do_not_belong_together(name, tmp_path):
    refused(
        "data.passage_tokens is 513: the position table of encoder 'random:2x32' holds 512",
        WarmUp,
        data(name, passage_tokens=513),
        Tower("DE", "random:2x32"),
        Schedule(1),
    )
    folder = encoder(tmp_path / "model", "roberta", pad_token_id=0)
    refused(
        f"encoder {folder!r}: its tokeniser pads with id 1, its position table with 0; they do "
        "not belong together",
        check_lengths,
        Tower("DE", folder),
        8,
        16,
        pairs=False,
    )
    BartConfig(d_model=32).save_pretrained(folder)
    refused(
        f"encoder {folder!r}: a bart is an encoder and a decoder; an encoder alone is needed",
        check,
        folder,
    )


def test_an_encoder_that_changed_since_it_was_checked_is_checked_again(name, tmp_path):
    folder = encoder(tmp_path / "model", "bert")
    settings = data(name), Tower("DE", folder), Schedule(1)
    WarmUp(*settings)
    BartConfig(d_model=32).save_pretrained(folder)
    refused(
        f"encoder {folder!r}: a bart is an encoder and a decoder; an encoder alone is needed",
        WarmUp,
        *settings,
    )


def test_feature_distillation_needs_one_tokeniser(name, folders, tmp_path):
    teacher, student = folders["bert"], folders["roberta"]
    pipeline = Pipeline(scale(name, teacher_encoder=teacher, student_encoder=student))
    refused(
        f"method 'FD' compares attention token by token: student {student!r} and teacher "
        f"{teacher!r} must have the same tokeniser",
        pipeline.distil,
        "FD",
    )
    copied = str(shutil.copytree(teacher, tmp_path / "copy"))
    Pipeline(scale(name, teacher_encoder=teacher, student_encoder=copied)).distil("FD")

"""Search against brute force, re-ranking against slow loops, BM25 against its formula."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import write_beir

from leadkit.data.collections import load
from leadkit.data.sampling import Group
from leadkit.data.tokens import Tokenised, pair, tokenise
from leadkit.models.retrievers import build
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower
from leadkit.retrieval import dense as searching
from leadkit.retrieval import reranking
from leadkit.retrieval.bm25 import bm25
from leadkit.retrieval.dense import by_length, encode, search, torch_search
from leadkit.retrieval.negatives import hard_negatives
from leadkit.retrieval.reranking import rerank
from leadkit.retrieval.runs import Run, ranked, reciprocal_rank_fusion

QUERIES = ["sort a list", "the shape of an array", "open", "read every line of a text file"]
PASSAGES = [
    "Return the elements in rising order.",
    "Axes are permuted.",
    "file",
    "Open the file and return its lines.",
    "A path, or an integer: the descriptor of the file to wrap.",
    "mode r",
    "A tuple, a length for every axis.",
    "Lists are sorted in place, and nothing is returned.",
    "line by line",
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    tokenizer, cache = load_tokenizer("random:2x32"), tmp_path_factory.mktemp("tokens")
    return tokenise(dict(enumerate(QUERIES)), tokenizer, 16, cache), tokenise(
        dict(enumerate(PASSAGES)), tokenizer, 16, cache
    )


def retriever(architecture, **tower):
    torch.manual_seed(0)
    built = build(Tower(architecture, "random:2x32", **tower)).eval()
    for parameter in built.parameters():
        if parameter.dim() == 2:
            parameter.data *= 4
    return built


# --- exact search


@given(
    queries=st.integers(1, 9),
    passages=st.integers(1, 40),
    depth=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_faiss_is_torch_is_brute_force(queries, passages, depth, seed):
    draw = np.random.default_rng(seed)
    q, p = (draw.normal(size=(n, 16)).astype(np.float32) for n in (queries, passages))
    scores = q @ p.T
    want = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    for run in (search(q, p, depth), torch_search(q, p, min(depth, passages), torch.device("cpu"))):
        assert run.rows.shape == run.scores.shape == (queries, min(depth, passages))
        np.testing.assert_array_equal(run.rows, want)
        np.testing.assert_allclose(
            run.scores, np.take_along_axis(scores, want, 1), rtol=1e-5, atol=1e-5
        )


def test_torch_search_goes_on_after_its_first_chunk():
    draw = np.random.default_rng(0)
    q, p = (
        draw.normal(size=(1030, 4)).astype(np.float32),
        draw.normal(size=(5, 4)).astype(np.float32),
    )
    np.testing.assert_array_equal(
        torch_search(q, p, 3, torch.device("cpu")).rows, np.argsort(-(q @ p.T), 1)[:, :3]
    )


def test_encode_is_the_vector_of_each_text_alone(texts, monkeypatch):
    model, (_, passages) = retriever("DE"), texts
    monkeypatch.setattr(searching, "TOKENS_PER_BATCH", 30)  # several batches
    vectors = encode(model, passages)
    for i in range(len(passages)):
        with torch.no_grad():
            np.testing.assert_allclose(
                vectors[i], model.encode(passages.rows(np.array([i])))[0], atol=1e-5
            )


@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=200))
def test_batches_by_length_hold_every_row_once_within_the_budget(lengths):
    lengths = np.array(lengths)
    made = by_length(lengths)
    assert sorted(np.concatenate(made)) == list(range(len(lengths)))
    for rows in made:
        assert len(rows) * lengths[rows].max() <= searching.TOKENS_PER_BATCH
    assert (np.diff([lengths[rows].max() for rows in made]) <= 0).all()


# --- re-ranking


def slow_scores(model, texts, rows):
    """(Q, k): one query and one passage at a time, unpadded."""
    queries, passages = texts
    values = np.empty(rows.shape)
    with torch.no_grad():
        for i, row in enumerate(rows):
            for j, p in enumerate(row):
                q1, p1, last = (
                    queries.rows(np.array([i])),
                    passages.rows(np.array([p])),
                    (model.layers,),
                )
                if model.architecture == "CE":
                    values[i, j] = model.score(
                        pair(queries, passages, np.array([i]), np.array([p])), last
                    )
                else:
                    q, p = model.token_states(q1, last)[0][0], model.token_states(p1, last)[0][0]
                    values[i, j] = sum(max(float(x @ y) for y in p) for x in q)
    return values


@pytest.mark.parametrize("architecture", ["CB", "CE"])
def test_rerank_orders_by_slow_scores_and_keeps_the_tail(architecture, texts):
    model = retriever(architecture)
    rows = np.stack([np.random.default_rng(i).permutation(9)[:8] for i in range(4)])
    first = Run(rows, -np.arange(32, dtype=np.float32).reshape(4, 8))
    got = rerank(model, *texts, first, 6)
    want = slow_scores(model, texts, rows[:, :6])
    assert sorted(map(tuple, np.sort(got.rows, 1))) == sorted(map(tuple, np.sort(rows, 1)))
    np.testing.assert_array_equal(got.rows[:, 6:], rows[:, 6:])
    assert (np.diff(got.scores, axis=1) <= 0).all()
    for i in range(4):
        score = dict(zip(rows[i, :6], want[i], strict=True))
        in_order = [score[p] for p in got.rows[i, :6]]
        np.testing.assert_allclose(
            got.scores[i, :6], in_order, rtol=3e-3, atol=1e-3
        )  # a CB's passages are kept in float16
        assert all(a >= b - 3e-3 * abs(a) for a, b in zip(in_order, in_order[1:], strict=False))
    assert any(not np.array_equal(got.rows[i, :6], rows[i, :6]) for i in range(4))


def test_who_searches_must_not_re_rank(texts):
    first = Run(np.tile(np.arange(8), (4, 1)), np.zeros((4, 8), np.float32))
    with pytest.raises(ValueError, match="a DE searches the collection, so it must not re-rank"):
        rerank(retriever("DE"), *texts, first, 8)


def test_rerank_encodes_each_candidate_once_and_no_other_passage(texts, monkeypatch):
    encoded, real = [], reranking.for_each_batch
    monkeypatch.setattr(
        reranking,
        "for_each_batch",
        lambda model, some, *rest: encoded.append(len(some)) or real(model, some, *rest),
    )
    rerank(
        retriever("CB"),
        *texts,
        Run(np.tile([7, 2, 5], (4, 1)), np.zeros((4, 3), np.float32)),
        2,
    )
    assert encoded[-1] == 2


def test_passage_padding_never_wins_where_every_product_is_negative(texts):
    """Query states are negated, so that the product with padding, 0, would be the largest."""
    model, rows = retriever("CB"), np.tile(np.arange(9), (4, 1))
    plain = model.token_states
    with torch.no_grad():
        q, p = ([plain(t.rows(np.array([i])), (2,))[0][0] for i in range(len(t))] for t in texts)
    want = np.array([[(-x @ y.T).max(1).values.sum().item() for y in p] for x in q])
    assert want.max() < -1
    model.token_states = lambda tokens, layers: [
        -s if len(s) == len(q) else s for s in plain(tokens, layers)
    ]
    got = rerank(model, *texts, Run(rows, np.zeros(rows.shape, np.float32)), 9)
    np.testing.assert_allclose(got.scores, -np.sort(-want, 1), rtol=3e-3, atol=1e-2)


@pytest.mark.parametrize("depth", [8, 100])
def test_rerank_of_the_whole_run(depth, texts):
    rows = np.tile(np.arange(8), (4, 1))
    got = rerank(retriever("CE"), *texts, Run(rows, np.zeros((4, 8), np.float32)), depth)
    np.testing.assert_array_equal(
        got.rows, np.argsort(-slow_scores(retriever("CE"), texts, rows), 1, kind="stable")
    )


def test_ties_keep_their_order():
    run = ranked(np.array([[5, 3, 4, 1]]), np.array([[1.0, 2.0, 1.0, 2.0]]))
    assert run.rows.tolist() == [[3, 1, 5, 4]] and run.scores.tolist() == [[2, 2, 1, 1]]


# --- BM25


def test_bm25_by_hand(tmp_path):
    """Lucene's variant.

    Idf = ln(1 + (N - df + .5) / (df + .5)), tf / (tf + k1 (1 - b + b length / mean length)).
    """
    passages = {
        "a": "graph node graph",
        "b": "node edge",
        "c": "matrix vector tensor matrix matrix",
    }
    name = write_beir(tmp_path / "c", passages, {"q": "graph node"}, {"test": {"q": {"a": 1}}})
    run = bm25(load(name), "test", 10)

    def weight(tf, length, df):
        idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
        return idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * length / (10 / 3)))

    assert run.rows[0, :2].tolist() == [0, 1]
    np.testing.assert_allclose(
        run.scores[0], [weight(2, 3, 1) + weight(1, 3, 2), weight(1, 2, 2), 0], rtol=1e-5
    )


def test_bm25_stems_and_drops_stop_words(tmp_path):
    passages = {"a": "the and of it", "b": "sorting sorted lists", "c": "graphs"}
    name = write_beir(
        tmp_path / "c",
        passages,
        {"q": "to sort the list", "r": "the of"},
        {"test": {"q": {"b": 1}, "r": {"a": 1}}},
    )
    run = bm25(load(name), "test", 2)
    assert run.rows[0, 0] == 1 and run.scores[0, 0] > 0 and run.rows.shape == (2, 2)
    assert (run.scores[1] == 0).all()  # nothing but stop words


# --- hard negatives


@given(seed=st.integers(0, 99), depth=st.integers(1, 12))
def test_hard_negatives_are_the_best_that_are_not_relevant(seed, depth):
    draw = np.random.default_rng(seed)
    rows = np.stack([draw.permutation(20)[:12] for _ in range(5)])
    rows[draw.random(rows.shape) < 0.1] = -1
    made = [
        Group(q, tuple(sorted(draw.choice(20, 3, replace=False).tolist())), (7,)) for q in (0, 2, 4)
    ]
    mined = hard_negatives(Run(rows, np.zeros(rows.shape)), made, depth)
    for group, got in zip(made, mined, strict=True):
        assert (got.query, got.relevant) == (group.query, group.relevant)
        assert not set(got.negatives) & {*group.relevant, -1} and len(got.negatives) <= depth
        assert (
            list(got.negatives)
            == [p for p in rows[group.query] if p not in (*group.relevant, -1)][:depth]
        )


# --- TREC


def test_trec_format(tmp_path):
    run = Run(np.array([[2, 0, -1], [1, 2, 0]]), np.array([[1.5, 0.25, 0], [3, 2, 1]]))
    run.write_trec(tmp_path / "runs" / "toy.trec", ["q1", "q2"], ["a", "b", "c"], "toy")
    lines = (tmp_path / "runs" / "toy.trec").read_text().splitlines()
    assert lines == [
        "q1 Q0 c 1 1.500000 toy",
        "q1 Q0 a 2 0.250000 toy",
        "q2 Q0 b 1 3.000000 toy",
        "q2 Q0 c 2 2.000000 toy",
        "q2 Q0 a 3 1.000000 toy",
    ]
    assert all(re.fullmatch(r"\S+ Q0 \S+ \d+ -?[\d.]+ \S+", line) for line in lines)
    import ir_measures

    assert len(list(ir_measures.read_trec_run(str(tmp_path / "runs" / "toy.trec")))) == 5


def test_failing_disk_leaves_no_run(tmp_path):
    with pytest.raises(IndexError):
        Run(np.array([[9]]), np.array([[1.0]])).write_trec(
            tmp_path / "toy.trec", ["q"], ["a"], "toy"
        )
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_tokenised_subset_are_its_own():
    flat = np.arange(10, dtype=np.int32)
    made = Tokenised(flat, np.array([0, 3, 4, 10]), 0)
    assert [made.row(i).tolist() for i in range(3)] == [
        [0, 1, 2],
        [3],
        [4, 5, 6, 7, 8, 9],
    ] and made.lengths.tolist() == [3, 1, 6]


def test_reciprocal_rank_fusion_by_hand():
    """k = 1: ranks 1, 2, 3 earn 1/2, 1/3, 1/4."""
    runs = [
        Run(np.array([[7, 8, 9], [1, -1, -1]]), np.zeros((2, 3))),
        Run(np.array([[9, 7, 5], [2, 1, -1]]), np.zeros((2, 3))),
    ]
    merged = reciprocal_rank_fusion(runs, 5, 1.0)
    # 7: 1/2 + 1/3; 9: 1/4 + 1/2; 8: 1/3; 5: 1/4. Then 1: 1/2 + 1/3, 2: 1/2.
    assert merged.rows.tolist() == [[7, 9, 8, 5, -1], [1, 2, -1, -1, -1]]
    np.testing.assert_allclose(
        merged.scores, [[5 / 6, 3 / 4, 1 / 3, 1 / 4, 0], [5 / 6, 1 / 2, 0, 0, 0]], rtol=1e-6
    )
    assert reciprocal_rank_fusion(runs, 2, 1.0).rows.tolist() == [[7, 9], [1, 2]]
    # k decides between one good rank and two poor ones: 1/(k + 1) against 1/(k + 2) + 1/(k + 3)
    runs = [
        Run(np.array([[1, 2, 3]]), np.zeros((1, 3))),
        Run(np.array([[4, 5, 2]]), np.zeros((1, 3))),
    ]
    firsts = [reciprocal_rank_fusion(runs, 1, k).rows.item() for k in (-0.5, 60.0)]
    assert firsts == [1, 2]

"""Batches: what a step sees follows from seed and step; in-batch negatives are never false."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import WORDS, data, isolate, toy, write_beir

from leadkit import processes
from leadkit.config import Schedule
from leadkit.data import tokens
from leadkit.data.collections import load
from leadkit.data.sampling import Batches, Group, Sampler, groups
from leadkit.data.tokens import pad, pair, tokenise
from leadkit.experiments.distillation import Distil, Mine, WarmUp
from leadkit.experiments.paper_methods import RD
from leadkit.experiments.texts import passages_of, queries_of
from leadkit.models.batch import Batch
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("random:2x32")


def crowded(passages=120, queries=40, seed=0):
    """Groups that share relevant passages; their hard negatives are relevant to other queries."""
    draw = np.random.default_rng(seed)
    relevant = [
        set(draw.choice(60, draw.integers(1, 4), replace=False).tolist()) for _ in range(queries)
    ]
    pools = [
        [int(p) for p in draw.permutation(passages)[: draw.integers(0, 30)] if int(p) not in own]
        for own in relevant
    ]
    return [
        Group(i, tuple(sorted(own)), tuple(pool))
        for i, (own, pool) in enumerate(zip(relevant, pools, strict=True))
    ]


@given(seed=st.integers(0, 50), batch=st.integers(1, 12), per_query=st.integers(1, 6))
def test_no_passage_of_a_batch_is_relevant_to_a_query_but_as_its_positive(seed, batch, per_query):
    made = crowded(seed=seed)
    sampler = Sampler(made, 120, batch, per_query, seed)
    for step in range(2 * sampler.steps):
        queries, passages = sampler(step)
        assert passages.shape == (len(queries), per_query) and 1 <= len(queries) <= batch
        for b, query in enumerate(queries):
            assert passages[b, 0] in made[query].relevant
            others = np.delete(passages.ravel(), b * per_query)
            assert not set(others.tolist()) & set(made[query].relevant)
            assert len(set(passages[b].tolist())) == per_query


def test_negatives_are_the_mined_ones_while_there_are_enough():
    made = [Group(i, (i,), (20, 21, 22, 23)) for i in range(8)]
    sampler = Sampler(made, 100, 4, 4, 0)
    for step in range(6):
        assert set(sampler(step)[1][:, 1:].ravel().tolist()) <= {20, 21, 22, 23}
    few = Sampler([Group(i, (i,), (20, 21)) for i in range(8)], 100, 4, 4, 0)
    for step in range(6):
        for row in few(step)[1]:
            assert {20, 21} <= set(row.tolist())


def test_every_mined_negative_and_every_relevant_passage_is_drawn_at_times():
    sampler = Sampler([Group(0, (0, 1, 2), tuple(range(10, 20)))], 100, 1, 2, 0)
    drawn = np.concatenate([sampler(step)[1] for step in range(200)])
    assert set(drawn[:, 0]) == {0, 1, 2} and set(drawn[:, 1]) == set(range(10, 20))


def test_a_step_is_a_pure_function_of_seed_and_step():
    made = crowded()
    forward, backward = Sampler(made, 120, 4, 3, 7), Sampler(made, 120, 4, 3, 7)
    steps = [forward(step) for step in range(30)]
    for step in reversed(range(30)):
        for a, b in zip(steps[step], backward(step), strict=True):
            np.testing.assert_array_equal(a, b)
    other = Sampler(made, 120, 4, 3, 8)
    assert any(not np.array_equal(steps[step][0], other(step)[0]) for step in range(5))


def test_every_query_comes_once_per_epoch_in_another_order():
    sampler, orders = Sampler([Group(i, (i,)) for i in range(24)], 100, 4, 2, 0), []
    for epoch in range(3):
        seen = np.concatenate(
            [sampler(epoch * sampler.steps + at)[0] for at in range(sampler.steps)]
        )
        assert sorted(seen) == list(range(24))
        orders.append(tuple(seen))
    assert len(set(orders)) == 3


def test_queries_that_share_passages_come_at_most_once_per_epoch():
    sampler = Sampler(crowded(), 120, 4, 2, 0)
    for epoch in range(3):
        seen = np.concatenate(
            [sampler(epoch * sampler.steps + at)[0] for at in range(sampler.steps)]
        )
        assert len(set(seen)) == len(seen)
        assert (
            len(seen) >= 0.8 * 40
        )  # what cannot be placed beside the others waits for the next epoch


def test_sampler_says_what_does_not_fit():
    made = [Group(i, (i,)) for i in range(6)]
    with pytest.raises(
        ValueError, match="batch 4 of 3 passages needs more than 12 passages, not 12"
    ):
        Sampler(made, 12, 4, 3, 0)


def test_sampler_stops_where_every_passage_is_relevant():
    made = [Group(i, (3 * i, 3 * i + 1, 3 * i + 2)) for i in range(4)]
    with pytest.raises(ValueError, match="12 of the 12 passages are relevant"):
        Sampler(made, 12, 4, 2, 0)(0)


def faq(*counts: int) -> list[Group]:
    """Queries, of which counts[0] share the relevant passage 0, counts[1] passage 1, ..."""
    relevant = [answer for answer, count in enumerate(counts) for _ in range(count)]
    return [Group(i, (answer,)) for i, answer in enumerate(relevant)]


@pytest.mark.parametrize(
    "counts, batch, true, seen",
    [
        ((19, 18, 18), 8, 3, 54),  # many questions, few answers
        ((1,) * 20, 32, 20, 20),  # twenty training queries
        ((1,) * 20, 7, 7, 14),
        ((40, *(1,) * 15), 8, 8, 21),  # one answer to most questions
    ],
)
def test_every_batch_has_the_true_size_which_is_said(counts, batch, true, seen, capsys):
    sampler = Sampler(faq(*counts), 100, batch, 2, seed=len(counts))
    said = capsys.readouterr().err
    assert sampler.batch == true
    assert said == "" if true == batch else f"batch {batch} is lowered to {true}: " in said
    epochs = []
    for epoch in range(80):
        steps = range(epoch * sampler.steps, (epoch + 1) * sampler.steps)
        queries = [sampler(step)[0] for step in steps]
        assert {len(set(row.tolist())) for row in queries} == {true}
        epochs.append(set(np.concatenate(queries).tolist()))
    assert min(map(len, epochs)) == seen
    assert set.union(*epochs) == set(range(sum(counts)))  # no query is lost for good


@pytest.mark.parametrize("number", [0, 1])
def test_several_processes_share_a_lowered_batch(monkeypatch, tmp_path, tokenizer, number):
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "number", lambda: number)
    monkeypatch.setattr(processes, "main", lambda: True)
    sampler = Sampler(faq(19, 18, 18), 30, 8, 2, 0)
    assert sampler.batch == 2
    texts = tokenise({f"{i}": "return" for i in range(60)}, tokenizer, 8, tmp_path)
    batches = Batches(sampler, texts, texts)
    for step in range(2 * sampler.steps):
        assert len(batches(step).positive) == 1
    with pytest.raises(ValueError, match="batch is 8, with 2 processes: of the 5 training queries"):
        Sampler(faq(5), 30, 8, 2, 0)


def test_a_query_that_is_a_passage_is_never_its_own_candidate():
    """Nor is it the positive of another query of its batch."""
    made = [Group(i, (20 + i // 2,), (i, 30, 31), own=i) for i in range(8)]
    made += [Group(8 + i, (i,)) for i in range(8)]  # these ask for the first ones
    sampler = Sampler(made, 40, 4, 6, 0)
    for step in range(30):
        queries, passages = sampler(step)
        own = {made[query].own for query in queries}
        assert not own & set(passages.ravel().tolist())


# --- groups


def test_groups_hold_the_relevant_passages_and_no_other(tmp_path):
    collection = load(toy(tmp_path / "toy"))
    for split in ("train", "dev", "test"):
        ids, texts = list(collection.passages), list(collection.split(split))
        for group in groups(collection, split):
            assert {ids[p] for p in group.relevant} == set(
                collection.qrels[split][texts[group.query]]
            )
    mined = {qid: ["p0", "p1", "p40"] for qid in collection.qrels["train"]}
    for group in groups(collection, "train", mined):
        assert not set(group.relevant) & set(group.negatives)
        assert group.negatives == tuple(p for p in (0, 1, 40) if p not in group.relevant)


def test_grade_zero_is_not_relevant(tmp_path):
    name = write_beir(
        tmp_path / "c",
        {"a": "x", "b": "y"},
        {"1": "q", "2": "r"},
        {"train": {"1": {"a": 0}, "2": {"a": 0, "b": 2}}},
    )
    assert groups(load(name), "train") == [Group(0, (1,))]  # the first query has left the split


# --- tokens


TEXTS = {
    "a": "Return the shape of an array.",
    "b": "x",
    "c": " ".join(WORDS),
    "d": "Überraschung: naïve café \N{SNOWMAN}",
}


def test_tokens_are_those_of_the_tokeniser(tokenizer, tmp_path):
    made = tokenise(TEXTS, tokenizer, 24, tmp_path)
    want = tokenizer(
        list(TEXTS.values()), truncation=True, max_length=24, padding=True, return_tensors="pt"
    )
    got = made.rows(np.arange(4))
    assert torch.equal(got.ids, want["input_ids"]) and torch.equal(
        got.mask, want["attention_mask"].bool()
    )
    assert made.lengths.tolist() == want["attention_mask"].sum(1).tolist() and made.lengths[2] == 24
    few = made.rows(np.array([1, 0]))
    assert few.ids.shape[1] == made.lengths[0] and few.ids[0, 3:].eq(tokenizer.pad_token_id).all()


def test_some_texts_alone(tokenizer, tmp_path):
    every = tokenise({"a": "one", "b": "two three", "c": "four five six"}, tokenizer, 16, tmp_path)
    for rows in ([2, 0], []):
        some = every.take(rows)
        assert [some.row(i).tolist() for i in range(len(some))] == [
            every.row(row).tolist() for row in rows
        ]
        assert (some.pad, some.between.tolist(), some.kind) == (
            every.pad,
            every.between.tolist(),
            every.kind,
        )


def test_pad_and_own_candidates():
    two = pad([np.array([1, 2, 3]), np.array([4])], 9)
    assert two.ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert two.mask.tolist() == [[True, True, True], [True, False, False]]
    scores = torch.arange(2 * 2 * 6).view(2, 2, 6)  # (K, B, B * n)
    assert torch.equal(Batch(two, two, torch.zeros(2)).candidates(scores), scores)
    own = Batch(two, two, torch.zeros(2), own=True).candidates(scores)
    assert own.tolist() == [[[0, 1, 2], [9, 10, 11]], [[12, 13, 14], [21, 22, 23]]]


def test_pair_is_the_tokenisers_pair(tokenizer, tmp_path):
    made, texts = tokenise(TEXTS, tokenizer, 512, tmp_path), list(TEXTS.values())
    q, p = np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0])
    want = tokenizer(
        [texts[i] for i in q], [texts[i] for i in p], padding=True, return_tensors="pt"
    )
    got = pair(made, made, q, p)
    assert torch.equal(got.ids, want["input_ids"])
    assert torch.equal(got.mask, want["attention_mask"].bool()) and torch.equal(
        got.kinds, want["token_type_ids"]
    )


def test_text_is_tokenised_once(tokenizer, tmp_path, monkeypatch):
    first = tokenise(TEXTS, tokenizer, 16, tmp_path)
    monkeypatch.setattr(
        type(tokenizer), "__call__", lambda *a, **k: pytest.fail("tokenised a second time")
    )
    again = tokenise(TEXTS, tokenizer, 16, tmp_path)
    assert isinstance(again.flat.base if again.flat.base is not None else again.flat, np.memmap)
    np.testing.assert_array_equal(first.flat, again.flat)


def test_tokens_do_not_depend_on_how_many_texts_are_tokenised_at_once(
    tokenizer, tmp_path, monkeypatch
):
    want = tokenise(TEXTS, tokenizer, 16, tmp_path)
    for portion in (1, 3):
        monkeypatch.setattr(tokens, "PORTION", portion)
        got = tokenise(TEXTS, tokenizer, 16, tmp_path / str(portion))
        np.testing.assert_array_equal(got.flat, want.flat)
        np.testing.assert_array_equal(got.offsets, want.offsets)
    assert [len(some) for some in tokens._portions(["x"] * 4 + ["x" * 1500] * 5)] == [3, 3, 2, 1]


def test_two_bytes_a_token_while_they_hold_every_id_and_length(tokenizer, tmp_path):
    small, large = (tokenise(TEXTS, tokenizer, longest, tmp_path) for longest in (600, 70_000))
    assert small.flat.dtype == np.uint16 and large.flat.dtype == np.int32
    np.testing.assert_array_equal(small.flat, large.flat)
    assert len(tokenise({}, tokenizer, 16, tmp_path)) == 0


def test_another_length_text_or_tokeniser_is_another_file(tokenizer, tmp_path):
    changed = load_tokenizer("random:2x32")
    changed.add_tokens(["anewword"])
    for texts, which, longest in (
        (TEXTS, tokenizer, 16),
        (TEXTS, tokenizer, 17),
        (TEXTS | {"b": "y"}, tokenizer, 16),
        (TEXTS, changed, 16),
    ):
        tokenise(texts, which, longest, tmp_path)
    assert len(list((tmp_path / "tokens").glob("*.tokens"))) == 4


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_damaged_token_file_is_rebuilt(tokenizer, tmp_path, subtests):
    for suffix, damage in product(
        ["tokens", "sha256"], [flipped, lambda b: b[: len(b) // 2], lambda b: b""]
    ):
        with subtests.test(suffix):
            want = tokenise(TEXTS, tokenizer, 16, tmp_path).flat.copy()
            [file] = (tmp_path / "tokens").glob(f"*.{suffix}")
            content = file.read_bytes()
            file.write_bytes(damage(content))
            np.testing.assert_array_equal(tokenise(TEXTS, tokenizer, 16, tmp_path).flat, want)
            assert file.read_bytes() == content


# --- what training sees


def toy_stages(monkeypatch, tmp_path, teacher="CB"):
    isolate(monkeypatch, tmp_path)
    name = toy(tmp_path / "toy")
    made, steps = data(name, passages=3), Schedule(1, 1e-3)
    miner = WarmUp(made, Tower("DE", "random:1x32"), steps)
    negatives = Mine(made, miner)
    student, big = (
        WarmUp(made, Tower(a, "random:1x32"), steps, negatives) for a in ("DE", teacher)
    )
    return load(name), miner, student, Distil(made, RD(), student, big, negatives, steps)


def test_training_sees_training_queries_only(monkeypatch, tmp_path, tokenizer):
    collection, miner, student, distil = toy_stages(monkeypatch, tmp_path)

    def tokenised(texts, longest):
        cut = tokenizer(list(texts), truncation=True, max_length=longest)
        return {tuple(row) for row in cut["input_ids"]}

    train = tokenised(collection.split("train").values(), 8)
    relevant = set()
    for split in ("dev", "test"):
        assert not train & tokenised(collection.split(split).values(), 8)
        relevant |= {pid for row in collection.qrels[split].values() for pid in row}
    held_out = tokenised((collection.passages[pid] for pid in relevant), 16)
    for stage in (miner, student, distil):
        batches, seen = stage.batches(stage.tower) if stage is distil else stage.batches(), set()
        for step in range(2 * batches.sampler.steps):
            batch = batches(step)
            for ids, mask in zip(batch.queries.ids, batch.queries.mask, strict=True):
                seen.add(tuple(ids[mask].tolist()))
            for column in batch.positive:
                positive = batch.passages.ids[column][batch.passages.mask[column]]
                assert tuple(positive.tolist()) not in held_out
        assert seen == train


@pytest.mark.parametrize("teacher, own", [("DE", False), ("CB", False), ("CE", True)])
def test_teacher_and_student_see_the_same_queries_and_passages(teacher, own, monkeypatch, tmp_path):
    _, _, student, distil = toy_stages(monkeypatch, tmp_path, teacher)
    ours, theirs = (distil.batches(each.tower) for each in (distil.student, distil.teacher))
    alone, others = student.batches(), 0
    for step in range(8):
        a, b = ours(step), theirs(step)
        for name in ("queries", "passages"):
            assert torch.equal(getattr(a, name).ids, getattr(b, name).ids)
        assert torch.equal(a.positive, b.positive) and a.own == b.own == own
        assert (b.pairs is not None) == own and a.pairs is None
        B, n = len(a.positive), len(a.passages.ids) // len(a.positive)
        assert a.positive.tolist() == ([0] * B if own else [i * n for i in range(B)])
        others += alone(step).queries.ids.tolist() != a.queries.ids.tolist()
    assert others  # the warm-up saw other batches


def test_pairs_of_a_batch_are_its_queries_before_their_passages(monkeypatch, tmp_path, tokenizer):
    collection, *_ = toy_stages(monkeypatch, tmp_path)
    texts = list(collection.split("train").values()), list(collection.passages.values())
    tower, made = Tower("CE", "random:1x32"), data(collection.name)
    sampler = Sampler(groups(collection, "train"), len(texts[1]), 4, 3, 0)
    at = Batches(
        sampler,
        queries_of(tower, made, "train"),
        passages_of(tower, made),
        own=True,
        pairs=True,
    )
    for step in range(4):
        queries, passages = sampler(step)
        pairs = at(step).pairs
        for row, (b, c) in enumerate(np.ndindex(passages.shape)):
            q = tokenizer(texts[0][queries[b]], truncation=True, max_length=8)["input_ids"]
            p = tokenizer(texts[1][passages[b, c]], truncation=True, max_length=16)["input_ids"]
            assert pairs.ids[row][pairs.mask[row]].tolist() == q + p[1:]

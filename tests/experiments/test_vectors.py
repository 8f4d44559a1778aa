"""How passages lie: known shapes, and a student's own vectors."""

import re
from dataclasses import replace

import numpy as np
import pytest
from toys import scale

from leadkit.commands import vectors as command
from leadkit.config import SCALES
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.ready import as_it_came
from leadkit.experiments.texts import passages_of
from leadkit.experiments.vectors import checked, effective_rank, likeness, measured
from leadkit.retrieval.dense import encode


def test_effective_rank_counts_directions_of_equal_length(subtests):
    directions = np.eye(8)
    for used in (1, 3, 8):
        with subtests.test(used=used):
            vectors = np.concatenate([directions[:used], -directions[:used]])
            assert effective_rank(vectors) == pytest.approx(used)
            assert effective_rank(7 * vectors + 5) == pytest.approx(used)  # length and place


def test_effective_rank_of_unequal_directions_by_hand():
    # Singular values 3 sqrt(2) and sqrt(2): shares 3/4 and 1/4.
    vectors = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    by_hand = np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    assert effective_rank(vectors) == pytest.approx(by_hand)
    assert np.isnan(effective_rank(np.ones((4, 3))))


def test_likeness_by_hand_and_what_it_does_not_see():
    random = np.random.default_rng(0)
    vectors, others = random.normal(size=(50, 4)), random.normal(size=(50, 3))
    centre = np.eye(50) - 1 / 50
    a, b = (centre @ x @ x.T @ centre for x in (vectors, others))  # (P, P), by inner products
    by_hand = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert likeness(vectors, others) == pytest.approx(by_hand)
    turn, _ = np.linalg.qr(random.normal(size=(4, 4)))
    assert likeness(vectors, 3 * vectors @ turn + 7) == pytest.approx(1)
    assert likeness(vectors, vectors * [1, 1, 1, 9]) < 0.9  # not every linear map
    assert np.isnan(likeness(np.ones((4, 3)), np.eye(4)))


def test_what_is_measured_of_a_student_is_of_its_passages(common):
    student = Pipeline(scale(common)).student
    texts = passages_of(student.tower, student.data)
    encoder, vectors = (encode(x.model(), texts) for x in (as_it_came(student), student))
    found = measured(student, len(texts))
    assert found["effective rank"] == pytest.approx(effective_rank(vectors), rel=1e-4)
    assert found["likeness"] == pytest.approx(likeness(vectors, encoder), rel=1e-4)
    assert 0 < found["likeness"] < 0.9999
    assert measured(as_it_came(student), 9)["likeness"] == pytest.approx(1)
    assert 1 < measured(student, 5)["effective rank"] <= 4  # five points around their mean


def test_as_it_came_has_all_layers_and_no_training():
    chain = Pipeline(replace(SCALES["smoke"], student_encoder="layers:2,4:bert-6x128"))
    encoder = as_it_came(chain.distil("LEAD", k=2))
    assert (encoder.tower.encoder, encoder.inputs()) == ("bert-6x128", [])
    assert replace(encoder.tower, encoder=chain.student.tower.encoder) == chain.student.tower


def test_what_has_no_vectors_is_refused(name):
    chain = Pipeline(scale(name))
    for retriever, kind in ((None, "BM25"), (chain.teacher, "CB")):
        with pytest.raises(ValueError, match=f"^retriever is a {kind}: .* use a dual encoder$"):
            checked(retriever, 5)
    for number in (1, 10**6):
        with pytest.raises(ValueError, match=re.escape(f"passages is {number}: it must be from 2")):
            checked(chain.student, number)
    with pytest.raises(ValueError, match="^no row is named"):
        command(())
    with pytest.raises(ValueError, match="^row 'CB RDD' is unknown"):
        command(("CB RDD",), scale="smoke", seeds=1)
    with pytest.raises(ValueError, match="^retriever is a CB"):
        command(("student", "CB teacher"), scale="smoke", seeds=1)

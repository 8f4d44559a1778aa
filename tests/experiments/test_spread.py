"""How many directions vectors use: known shapes, and a student's own vectors."""

import re

import numpy as np
import pytest
from toys import scale

from leadkit.commands import spread
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.spread import checked, effective_rank, passage_spread
from leadkit.experiments.texts import passages_of
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


def test_the_spread_of_a_student_is_that_of_its_passages(common):
    student = Pipeline(scale(common)).student
    texts = passages_of(student.tower, student.data)
    vectors = encode(student.model(), texts)
    assert passage_spread(student, len(texts)) == pytest.approx(effective_rank(vectors), rel=1e-4)
    assert 1 < passage_spread(student, 5) <= 4  # five points around their mean span four


def test_what_has_no_vectors_is_refused(name):
    chain = Pipeline(scale(name))
    for retriever, kind in ((None, "BM25"), (chain.teacher, "CB")):
        with pytest.raises(ValueError, match=f"^retriever is a {kind}: .* use a dual encoder$"):
            checked(retriever, 5)
    for number in (1, 10**6):
        with pytest.raises(ValueError, match=re.escape(f"passages is {number}: it must be from 2")):
            checked(chain.student, number)
    with pytest.raises(ValueError, match="^no row is named"):
        spread(())
    with pytest.raises(ValueError, match="^row 'CB RDD' is unknown"):
        spread(("CB RDD",), scale="smoke", seeds=1)
    with pytest.raises(ValueError, match="^retriever is a CB"):
        spread(("student", "CB teacher"), scale="smoke", seeds=1)

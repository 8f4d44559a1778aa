"""The examples in the docstrings of the paper's modules print what they say."""

import doctest

import pytest

from leadkit import companion_losses, losses, scores, selection


@pytest.mark.parametrize("module", [scores, selection, losses, companion_losses])
def test_examples_of_the_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 5 and result.failed == 0

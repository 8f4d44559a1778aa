"""Generated numbers: pages say what the records say; a marker that cannot be filled is told."""

import re

import numpy as np
import pytest

from leadkit import paths
from leadkit.results import records
from leadkit.results.report import PAGES, fill
from leadkit.results.sources import Source

README = paths.ROOT / "README.md"


def undrawn(_):
    pytest.fail("a figure whose numbers are the committed ones was drawn again")


@pytest.fixture(scope="module")
def source():
    return Source({"main-table": undrawn})


def inline(marker: str, source: Source) -> str:
    """What the marker is filled with."""
    text = fill(f"Here <!--={marker}-->?<!--/--> it is.", README, source)
    return re.fullmatch(r"Here <!--=.*?-->(.*)<!--/--> it is\.", text)[1]


def test_running_it_changes_nothing(source):
    pages = [page for pattern in PAGES for page in sorted(paths.ROOT.glob(pattern))]
    markers = 0
    for page in pages:
        text = page.read_text()
        assert fill(text, page, source) == text, page
        markers += text.count("<!--/-->") + text.count("<!-- /report -->")
    assert markers > 50


def test_a_number_that_was_typed_is_written_anew(source):
    text = README.read_text()
    wrong, count = re.subn(r"(<!--=mean [^>]*-->)[\d.]+(?=<!--/-->)", r"\g<1>99.99", text)
    assert count and wrong != text and fill(wrong, README, source) == text


def test_numbers_are_those_of_the_records(source):
    """Against the records, by hand."""
    kept = records.read(paths.RESULTS / "classroom")

    def means(name):
        return np.array([100 * row["per_query"]["RR@10"].mean() for row in kept[name]])

    lead, rd = means("CB LEAD"), means("CB RD")
    assert inline("mean classroom: CB LEAD", source) == f"{lead.mean():.2f}"
    assert inline("mean classroom: CB LEAD, seed 3", source) == f"{lead[3]:.2f}"
    assert inline("sd classroom: CB LEAD", source) == f"{lead.std(ddof=1):.2f}"
    gained = (lead - rd).mean()
    assert inline("difference classroom: CB LEAD - CB RD", source) == f"{gained:+.2f}"
    assert inline("margin classroom: CB RD - CB LEAD", source) == f"{-gained:.2f}"
    assert inline("mean classroom: CB LEAD {.1f}", source) == f"{lead.mean():.1f}"
    assert inline("count classroom: queries", source) in ("2000", "2,000")


@pytest.mark.parametrize(
    "marker, message",
    [
        ("nothing classroom: CB LEAD", "nothing generates 'nothing': use one of "),
        ("mean schoolroom: CB LEAD", "scale 'schoolroom' has no records: there are classroom"),
        ("mean classroom: CB LED", "CB LED"),
        ("margin classroom: CB LEAD - CB RD", ""),  # it is negative: "above" would be false
    ],
)
def test_a_marker_that_cannot_be_filled_is_told_with_its_line(marker, message, source):
    text = f"One line.\n\nHere <!--={marker}-->?<!--/--> it is."
    with pytest.raises(ValueError, match=rf"README\.md, line 3: .*{re.escape(message)}"):
        fill(text, README, source)


def test_markers_in_code_are_left_alone(source):
    text = "Write `<!--=mean nowhere: x-->1<!--/-->`.\n\n```\n<!-- report: nothing -->\n```\n"
    assert fill(text, README, source) == text

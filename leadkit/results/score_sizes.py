"""What the teacher, LEAD and a smoothed label add to a student whose scores are multiplied."""

import pandas as pd

from leadkit.experiments.controls import TIMES
from leadkit.results.evidence import Evidence

# By how much the student's scores are multiplied -> what its rows are called behind their names.
SIZES = dict(sorted({1.0: "", **{times: label for label, times in TIMES.items()}}.items()))
# What is compared -> the experiments whose difference it is.
EFFECTS = {
    "RD - the control": ("CB RD", "student, as long"),
    "LEAD - RD": ("CB LEAD", "CB RD"),
    "smoothed label - the control": ("student + smooth label", "student, as long"),
}


def effects(evidence: Evidence) -> pd.DataFrame:
    """A line per effect and factor that was run, as `Evidence.differences` gives them."""
    compared = {
        (effect, times): (first + label, second + label)
        for effect, (first, second) in EFFECTS.items()
        for times, label in SIZES.items()
    }
    return evidence.differences(compared, ("effect", "times"))

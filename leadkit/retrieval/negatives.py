"""Hard negatives: what a run ranks high and nobody judged relevant (section 4.2.2)."""

from dataclasses import replace

from leadkit.data.sampling import Group
from leadkit.retrieval.runs import Run


def hard_negatives(run: Run, groups: list[Group], depth: int) -> list[Group]:
    """The groups with, as negatives, the `depth` best passages of their query not relevant."""
    mined = []
    for group in groups:
        ranking = run.rows[group.query].tolist()
        out = {-1, group.own, *group.relevant}
        rows = [row for row in ranking if row not in out]
        mined.append(replace(group, negatives=tuple(rows[:depth])))
    return mined

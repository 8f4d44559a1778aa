"""Lesson 07: the ledger of claims under filters."""

from functools import cache

import ipywidgets
import pandas as pd

from leadkit.lessons import figures
from leadkit.lessons.widgets.toolkit import Picture, png, show


def matching(
    ledger: pd.DataFrame, table: int | str | None = None, verdict: str | None = None, text: str = ""
) -> pd.DataFrame:
    """The claims of a `claims.ledger` with this table and verdict and this text.

    text: part of the id or the sentence, in upper or lower case.
    """
    words = ledger.index + " " + ledger["claim"]
    keep = words.str.contains(text.strip(), case=False, regex=False)
    for column, value in {"table": table, "verdict": verdict}.items():
        keep &= (ledger[column] == value) if value is not None else True
    return ledger[keep.to_numpy()]


def claims_ledger(ledger: pd.DataFrame) -> None:
    """Show a `claims.ledger` with filters for table, verdict and words.

    Without a kernel it is a figure, or a plain table.
    """
    options = {
        column: [("all", None), *((str(v), v) for v in ledger[column].unique())]
        for column in ("table", "verdict")
    }
    controls = {
        column: ipywidgets.Dropdown(options=found, description=column)
        for column, found in options.items()
    }
    controls["text"] = ipywidgets.Text(description="words", placeholder="RD, teacher, linear ...")
    lines, picture = ipywidgets.HTML(), Picture(format="png")

    @cache
    def drawn(*ids: str) -> bytes:
        return png(figures.verdicts(ledger.loc[list(ids)]))

    def refresh(_: object = None) -> None:
        shown = matching(ledger, **{name: control.value for name, control in controls.items()})
        lines.value = (
            shown.round(3).astype(object).where(shown.notna(), "").to_html(border=0, escape=True)
        )
        picture.value = drawn(*shown.index)

    for control in controls.values():
        control.observe(refresh, "value")
    refresh()
    show(
        ipywidgets.VBox(
            [
                ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}),
                lines,
                picture,
            ]
        ),
        picture.value,
        ledger.round(3).to_string(),
    )

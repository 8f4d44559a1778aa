"""The commands that show: claims, reports, pages and the state of the machine."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from leadkit.commands import app

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from leadkit.results.records import Records


@app.command
def claims(scale: str = "classroom", out: Path | None = None) -> None:
    """Judge the paper's claims by result records: verdicts, differences with intervals, p.

    Args:
        scale: the folder of records under data/results.
        out: a file that receives the ledger as CSV.
    """
    from leadkit import paths
    from leadkit.results import claims, records
    from leadkit.results.tables import p_text

    ledger = claims.ledger(records.read(paths.RESULTS / scale))
    if out:
        from leadkit import files  # and torch with it, which takes seconds

        files.write(out, partial(ledger.to_csv, float_format="%.4g", index_label="id"))
    ledger["p"] = ledger["p"].map(p_text, na_action="ignore")
    print(ledger.to_string(float_format="%.2f", na_rep=""))
    counts = ledger["verdict"].value_counts()
    print("\n" + ", ".join(f"{verdict}: {count}" for verdict, count in counts.items()))


@app.command
def report(scale: str = "") -> None:
    """Write the generated numbers, tables and figures of README, docs and results pages.

    Args:
        scale: a folder of records under data/results: print its main table as Markdown and draw it
            as main-table.png there instead.
    """
    from leadkit import paths
    from leadkit.lessons import figures
    from leadkit.results import report, sources, tables

    def draw(found: "Records") -> "Axes":
        figures.style()
        return figures.main_table(tables.main_table(found))

    if scale:
        source = sources.Source({"main-table": draw})
        print(tables.main_markdown(tables.main_table(source.folder(scale).records)))
        source.draw(scale, "main-table")
        return
    for page in report.write_pages({"main-table": draw}):
        print(f"written: {page.relative_to(paths.ROOT)}")


@app.command
def convert(folder: Positional[Path], remove: bool = False) -> None:
    """Make the table of a folder whose records are of the first edition, one JSON file each.

    Args:
        folder: where the records are, e.g. data/results/classroom.
        remove: remove the JSON files afterwards.
    """
    from leadkit.results import conversion

    number = conversion.convert(folder, remove)
    print(f"{number} records: {folder / 'records.jsonl'}")


@app.command
def site(out: Path = Path("build/site")) -> None:
    """Write the executed notebooks as pages that need neither a kernel nor a network.

    Args:
        out: folder that receives index.html and the pages.
    """
    from leadkit import paths
    from leadkit.lessons import site

    print(f"{len(site.write_pages(paths.NOTEBOOKS, out))} pages: {out / 'index.html'}")


@app.command
def doctor() -> None:
    """Look at packages, machine, models and caches; say what to do about each problem.

    Exit code 1: there is one.
    """
    from leadkit import doctor

    sys.exit(doctor.doctor())

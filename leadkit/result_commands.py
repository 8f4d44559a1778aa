"""The commands that show: claims, reports, pages and the state of the machine."""

import sys
from dataclasses import replace
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
    """Judge claims by result records: gates, then verdicts by family with intervals and p.

    Args:
        scale: the folder of records under data/results, or of your own runs.
        out: a file that receives the ledger as CSV.
    """
    from leadkit.results import claims, evidence, gates, records, tables

    place = records.folder_of(scale)
    folder = records.read(place)
    ledger = claims.ledger(folder)
    if out:
        from leadkit import files  # and torch with it, which takes seconds

        files.write(out, partial(ledger.to_csv, float_format="%.4g", index_label="id"))
    measured = gates.measure(evidence.Evidence(folder))
    print(f"records: {place}\n\ngates\n{tables.plain(tables.gate_texts(measured))}\n")
    print(tables.ledger_text(ledger))
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
    from leadkit.results import claims, evidence, report, score_sizes, sources, tables

    def main_table(found: "Records") -> "Axes":
        figures.style()
        return figures.main_table(tables.main_table(found))

    def primary(found: "Records") -> "Axes":
        figures.style()
        return figures.primary(claims.ledger(found))

    def sizes(found: "Records") -> "Axes":
        figures.style()
        return figures.score_sizes({"": score_sizes.effects(evidence.Evidence(found))})[0]

    drawings = {"main-table": main_table, "primary": primary, "score-sizes": sizes}
    if scale:
        source = sources.Source(drawings)
        print(tables.main_markdown(tables.main_table(source.folder(scale).records)))
        source.draw(scale, "main-table")
        return
    for page in report.write_pages(drawings):
        print(f"written: {page.relative_to(paths.ROOT)}")


@app.command
def gradients(
    scale: str = "classroom",
    teacher: str = "CB",
    seed: int = 0,
    batches: int = 8,
    out: Path | None = None,
) -> None:
    """Compare the gradients of LEAD's loss parts in each block of the warmed-up student.

    Runs the warm-ups that are missing. Prints the cosine, its standard deviation over the batches
    and the ratio of the gradients' lengths.

    Args:
        scale: smoke, classroom, evening or gpu.
        teacher: DE, CB or CE.
        seed: random seed of the warm-ups.
        batches: the first so many of the distillation.
        out: a file that receives the numbers, one line of JSON each.
    """
    import pandas as pd

    from leadkit import config, files
    from leadkit.experiments.agreement import gradient_cosines
    from leadkit.experiments.pipeline import Pipeline

    lead = Pipeline(config.scale(scale), seed, teacher).distil("LEAD")
    lines = gradient_cosines(lead, batches)
    table = pd.DataFrame(lines).set_index(["first", "second", "block"])
    print(table.to_string(float_format="%.3f"))
    if out:
        files.write_lines(out, lines)


@app.command
def layers(
    scale: str = "classroom",
    teacher: str = "CB",
    seed: int = 0,
    batches: int = 8,
    collection: str = "",
    even_spread: bool = False,
    out: Path | None = None,
) -> None:
    """Show what the layers of the warmed-up models say, and how sure the student is.

    Runs the warm-ups that are missing. The first table has the entropy of the layer features, the
    second the effective number of layers heard of K by tau_l. The third multiplies the student's
    final scores: its nll is lowest where the student is as sure as it is right.

    Args:
        scale: smoke, classroom, evening or gpu.
        teacher: DE, CB or CE.
        seed: random seed of the warm-ups.
        batches: the first so many of the distillation.
        collection: another than the scale's: beir:PATH or irds:NAME.
        even_spread: with LEAD's setting of this name.
        out: a file that receives the numbers, one line of JSON each.
    """
    import pandas as pd

    from leadkit import config, files
    from leadkit.experiments.features import (
        answers,
        heard_by_temperature,
        layer_features,
        sureness,
    )
    from leadkit.experiments.pipeline import Pipeline

    chosen = config.scale(scale)
    if collection:
        chosen = replace(chosen, data=replace(chosen.data, collection=collection))
    every = answers(
        Pipeline(chosen, seed, teacher).distil("LEAD", even_spread=even_spread), batches
    )
    features = layer_features(every, chosen.lead.tau_d)
    heard = heard_by_temperature(every)
    print(pd.DataFrame(features).set_index(["model", "layer"]).to_string(float_format="%.3f"))
    print("\nlayers heard of K")
    print(
        pd.DataFrame(heard).pivot(index="tau_l", columns="k", values="heard").round(2).to_string()
    )
    sure = sureness(every)
    print("\nthe student's scores, multiplied")
    print(pd.DataFrame(sure).set_index("times").round(2).to_string())
    if out:
        files.write_lines(out, [*features, *heard, *sure])


@app.command
def world(seeds: int = 20, out: Path | None = None) -> None:
    """Train students in the made worlds and show which parts of LEAD pay there.

    Args:
        seeds: number of seeds, 0 to seeds - 1; each takes about ten seconds of one core.
        out: a file that receives the record as JSON, e.g. data/results/world/students.json.
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}: a t-test needs at least 2")
    from leadkit import files
    from leadkit.lessons.world import record
    from leadkit.results import worlds

    learnt = record.record(range(seeds))
    print(worlds.texts(worlds.table(worlds.students(learnt))).round(2).to_string())
    if out:
        files.write_json(out, learnt)


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
def merge(folders: Positional[tuple[Path, ...]], out: Path) -> None:
    """Add the records of folders, those of several machines for one, to a folder's table.

    Args:
        folders: where the records are.
        out: the folder that receives them. What it has already stays, but of one experiment and
            seed the record of the last folder named.
    """
    from leadkit.results import records

    if not folders:
        raise ValueError("no folder is named: name those whose records are to be merged")
    found = [row for folder in folders for rows in records.read(folder).values() for row in rows]
    records.merge(found, out)
    print(f"{len(found)} records read, {len(records.lines(out))} in {out / records.LINES}")


@app.command
def site(out: Path = Path("build/site"), repository: str = "") -> None:
    """Write the executed notebooks as pages that need neither a kernel nor a network.

    Args:
        out: folder that receives index.html and the pages.
        repository: OWNER/NAME on GitHub: the pages link to their notebooks there, to be downloaded
            or opened in a hosted notebook.
    """
    from leadkit import paths
    from leadkit.lessons import site

    pages = site.write_pages(paths.NOTEBOOKS, out, repository)
    print(f"{len(pages)} pages: {out / 'index.html'}")


@app.command
def doctor() -> None:
    """Look at packages, machine, models and caches; say what to do about each problem.

    Exit code 1: there is one.
    """
    from leadkit import doctor

    sys.exit(doctor.doctor())

"""The main table, then the numbered notebooks and their pages, several stages at a time."""

import shutil
import sys
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

from leadkit.config import RUNS, Scale
from leadkit.experiments import sweep
from leadkit.experiments.pipeline import Pipeline, main_table
from leadkit.experiments.store import Stage, collection
from leadkit.files import digest, fingerprint, write
from leadkit.lessons import site

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"


@dataclass(frozen=True)
class Lesson(Stage):
    """A notebook, executed when the main table stands, and anew where the notebook, the package or a parameter changed."""

    kind = "lesson"
    scale: Scale
    seed: int
    notebook: str
    content: str  # digest of whatever it depends on

    @cached_property
    def rows(self) -> list[Stage]:
        return [*Pipeline(self.scale, self.seed).rows().values()]

    def inputs(self) -> list[Stage]:
        return self.rows  # asked for every second, and a key takes reading weights

    def run(self) -> None:
        out, parameters = self.folder / self.notebook, {"SCALE": self.scale.name, "SEED": self.seed}
        try:
            papermill.execute_notebook(
                NOTEBOOKS / self.notebook,
                out,
                parameters,
                kernel_name="python3",
                cwd=str(NOTEBOOKS),
            )
        except PapermillExecutionError as error:
            raise RuntimeError(
                f"its cell {error.exec_count} ends in {error.ename}: {error.evalue}; read {out}"
            ) from error


def lessons(scale: Scale, seed: int, only: str = "") -> list[Lesson]:
    """The numbered notebooks in order; only those whose name contains `only`. ValueError where none does."""
    found = sorted(path for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb") if only in path.name)
    if not found:
        raise ValueError(f"only {only!r}: no notebook in {NOTEBOOKS.name}/ has that in its name")
    package = [digest(path) for path in sorted((ROOT / "leadkit").rglob("*.py"))]
    needed = [stage.key for stage in Pipeline(scale, seed).rows().values()]
    return [
        Lesson(scale.data, scale, seed, path.name, fingerprint([digest(path), package, needed]))
        for path in found
    ]


def reproduce(scale: Scale, seed: int = 0, only: str = "") -> None:
    """Everything that `make reproduce` shows. only: run just the notebooks whose name contains this."""
    found = collection(scale.data.collection)
    print(
        f"collection {found.name}, fingerprint {found.fingerprint}: {len(found.passages):,} passages, "
        + ", ".join(f"{len(qrels):,} {split}" for split, qrels in sorted(found.qrels.items()))
        + " queries",
        flush=True,
    )
    pipeline, executed = (
        Pipeline(scale, seed),
        {lesson.notebook: lesson for lesson in lessons(scale, seed, only)},
    )
    # One thread per process, as for the committed records: their digits.
    jobs = min(4, sweep.jobs_by_default())  # a lesson takes memory
    if sweep.finish(f"main table, scale {scale.name}, seed {seed}", {seed: pipeline.rows()}, jobs):
        sys.exit(1)
    print(
        f"\nMain table, 12CB -> 6DE, scale {scale.name}, seed {seed}, test queries; p: paired t-test against RD\n"
    )
    print(main_table([pipeline]).round(2).to_string(na_rep="") + "\n", flush=True)
    if sweep.finish(f"lessons, scale {scale.name}, seed {seed}", {seed: executed}, jobs):
        sys.exit(1)
    folder = RUNS / f"notebooks-{scale.name}"
    for name, lesson in executed.items():
        write(folder / name, partial(shutil.copyfile, lesson.done() / name))
    print(f"notebooks and their pages: {site.build(folder, folder)[-1]}")

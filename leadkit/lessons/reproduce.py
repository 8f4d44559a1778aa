"""The main table, then the numbered notebooks and their pages, several stages at a time."""

import shutil
import sys
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

from leadkit import paths
from leadkit.config import Scale
from leadkit.experiments import sweep
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.store import Stage
from leadkit.experiments.texts import collection
from leadkit.files import digest, fingerprint, write
from leadkit.lessons import site
from leadkit.results.expected import expected_and_got, log_line
from leadkit.results.tables import run_main_table
from leadkit.training.loop import Operation

STARTS = 3  # of a kernel, at most
NOT_STARTED = "Kernel died before replying"


@dataclass(frozen=True)
class Lesson(Stage):
    """A notebook, executed when the main table stands.

    And executed anew where the notebook, the package or a parameter changed.
    """

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

    def run(self, operation: Operation) -> None:
        out = self.folder / self.notebook
        try:
            self._execute(out)
        except PapermillExecutionError as error:
            raise RuntimeError(
                f"its cell {error.exec_count} ends in {error.ename}: {error.evalue}; read {out}"
            ) from error

    def _execute(self, out: Path) -> None:
        """Execute the notebook; start its kernel anew where another process took one of its ports.

        A kernel's ports are chosen a moment before it binds them.
        """
        for left in reversed(range(STARTS)):
            try:
                papermill.execute_notebook(
                    paths.NOTEBOOKS / self.notebook,
                    out,
                    {"SCALE": self.scale.name, "SEED": self.seed},
                    kernel_name="python3",
                    cwd=str(paths.NOTEBOOKS),
                )
                return
            except RuntimeError as error:
                if not left or NOT_STARTED not in str(error):
                    raise


def lessons(scale: Scale, seed: int, only: str = "") -> list[Lesson]:
    """The numbered notebooks in order; only those whose name contains `only`.

    ValueError where none does.
    """
    numbered = site.numbered_notebooks(paths.NOTEBOOKS)
    chosen = [path for path in numbered if only in path.name]
    if not chosen:
        raise ValueError(
            f"only {only!r}: no notebook in {paths.NOTEBOOKS.name}/ has that in its name"
        )
    package = [digest(path) for path in sorted((paths.ROOT / "leadkit").rglob("*.py"))]
    needed = [stage.key for stage in Pipeline(scale, seed).rows().values()]
    return [
        Lesson(scale.data, scale, seed, path.name, fingerprint([digest(path), package, needed]))
        for path in chosen
    ]


def reproduce(scale: Scale, seed: int = 0, only: str = "") -> None:
    """Everything that `make reproduce` shows. only: the notebooks whose name contains this."""
    texts = collection(scale.data.collection)
    splits = ", ".join(f"{len(qrels):,} {split}" for split, qrels in sorted(texts.qrels.items()))
    print(
        f"collection {texts.name}, fingerprint {texts.fingerprint}: {len(texts.passages):,} "
        f"passages, {splits} queries",
        flush=True,
    )
    pipeline = Pipeline(scale, seed)
    executed = {lesson.notebook: lesson for lesson in lessons(scale, seed, only)}
    # One thread per process, as for the committed records: their digits.
    jobs = min(4, sweep.jobs_by_default())  # a lesson takes memory
    label = f"scale {scale.name}, seed {seed}"
    if sweep.finish(f"main table, {label}", {seed: pipeline.rows()}, jobs):
        sys.exit(1)
    print(f"\nMain table, 12CB -> 6DE, {label}, test queries; p: paired t-test against RD\n")
    print(run_main_table([pipeline]).round(2).to_string(na_rep="") + "\n", flush=True)
    records = {row: evaluation.record() for row, evaluation in pipeline.rows().items()}
    _compare(records, scale, seed)
    if sweep.finish(f"lessons, {label}", {seed: executed}, jobs):
        sys.exit(1)
    folder = paths.RUNS / f"notebooks-{scale.name}"
    for name, lesson in executed.items():
        write(folder / name, partial(shutil.copyfile, lesson.done() / name))
    print(f"notebooks and their pages: {site.write_pages(folder, folder)[-1]}")


def _compare(rows: dict[str, dict], scale: Scale, seed: int) -> None:
    """Print this run beside the committed records, and the line for docs/reproductions.md."""
    table = expected_and_got(rows, scale.name)
    if table.empty:
        print(f"Nothing is committed for scale {scale.name}, so there is nothing to compare.\n")
        return
    print("Expected and got, MRR@10. Inside: where one more seed is expected with 95%.\n")
    print(table.round(2).to_string(na_rep="") + "\n")
    line = log_line(table, rows["LEAD"], scale.name, seed)
    print(f"A line for docs/reproductions.md:\n{line}\n", flush=True)

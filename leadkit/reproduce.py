"""Train and evaluate the main table, execute the numbered notebooks in order, write them as pages, print the table."""

import json
import sys
from pathlib import Path

import nbformat
import papermill

from leadkit import site, sweep
from leadkit.config import RUNS, Scale
from leadkit.files import alone, digest, fingerprint
from leadkit.recipes import Pipeline, main_table
from leadkit.stages import collection

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"


def _sources() -> list[str]:
    return [digest(path) for path in sorted((ROOT / "leadkit").rglob("*.py"))]


def notebooks(only: str = "") -> list[Path]:
    """The numbered notebooks in order; only those whose name contains `only`. ValueError where none does."""
    found = sorted(path for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb") if only in path.name)
    if not found:
        raise ValueError(f"only {only!r}: no notebook in {NOTEBOOKS.name}/ has that in its name")
    return found


def execute(notebook: Path, out: Path, parameters: dict[str, object]) -> bool:
    """Execute a notebook into `out` unless that was done with the same notebook, package and parameters; say whether it ran."""
    key = fingerprint([digest(notebook), _sources(), parameters])
    with alone(out.with_suffix(".lock"), out):
        try:
            if json.loads(out.read_text(encoding="utf-8"))["metadata"]["leadkit"] == key:
                return False
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not what was written
            pass
        partial = out.with_name(f"unfinished-{out.name}")
        papermill.execute_notebook(notebook, partial, parameters, kernel_name="python3", cwd=str(notebook.parent))
        done = nbformat.read(partial, as_version=4)
        done.metadata["leadkit"] = key
        nbformat.write(done, partial)
        partial.replace(out)
    return True


def reproduce(scale: Scale, seed: int = 0, only: str = "") -> None:
    """Everything that `make reproduce` shows. only: run just the notebooks whose name contains this."""
    lessons, found = notebooks(only), collection(scale.data.collection)
    print(f"collection {found.name}, fingerprint {found.fingerprint}: {len(found.passages):,} passages, "
          + ", ".join(f"{len(qrels):,} {split}" for split, qrels in sorted(found.qrels.items())) + " queries", flush=True)
    pipeline, folder = Pipeline(scale, seed), RUNS / f"notebooks-{scale.name}"
    # One thread per process, as for the committed records: their digits, and less time than with all cores for one process.
    if sweep.finish(f"main table, scale {scale.name}, seed {seed}", [pipeline.rows()], sweep.jobs_by_default()):
        sys.exit(1)
    for notebook in lessons:
        out = folder / notebook.name
        ran = execute(notebook, out, {"SCALE": scale.name, "SEED": seed})
        print(f"{notebook.name}: {'executed' if ran else 'stands from before'}", flush=True)
    print(f"\nMain table, 12CB -> 6DE, scale {scale.name}, seed {seed}, test queries; p: paired t-test against RD\n")
    print(main_table([pipeline]).round(2).to_string(na_rep=""))
    print(f"\nnotebooks and their pages: {site.build(folder, folder)[-1]}")

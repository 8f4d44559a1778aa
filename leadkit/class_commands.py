"""The commands for a class: lessons to hand out, answers to grade, LEAD on one page."""

from collections import Counter
from pathlib import Path

from tyro.conf import Positional

from leadkit.commands import app


@app.command
def handout(out: Path = Path("build/handout")) -> None:
    """Write the lessons for a class: without outputs, without solutions.

    Args:
        out: new folder that receives the lessons and the glossary.
    """
    from leadkit.lessons import handouts

    print(f"{len(handouts.write_handout(out))} files: {out}")


@app.command
def grade(folder: Positional[Path], out: Path = Path("marks.csv"), seconds: float = 120.0) -> None:
    """Grade students' notebooks. THIS RUNS THE STUDENTS' CODE with your rights on this machine.

    Every lesson is executed as it was handed out. Then each answer cell runs in a process of its
    own, and the checker judges it anew; what a notebook printed counts for nothing. The process
    and the limit keep accidents apart. They do not stop an attack: grade on a machine, in a
    container or as a user that has nothing to lose. Needs Linux or macOS.

    Args:
        folder: holds the notebooks, in folders or not. A file's name must contain the lesson's,
            e.g. anna/03_random_selection.ipynb or anna_03_random_selection.ipynb.
        out: file that receives one line of CSV for each exercise of each notebook.
        seconds: limit for one answer, its check included.
    """
    from leadkit.lessons import grading

    marks = grading.grade_folder(folder, seconds)
    grading.write_marks(marks, out)
    counts = Counter(mark.result for mark in marks)
    print(", ".join(f"{result}: {count}" for result, count in sorted(counts.items())) + f": {out}")


@app.command
def napkin(out: Path = Path("docs/napkin.png")) -> None:
    """Draw LEAD on one page, to be shown or printed.

    Args:
        out: PNG, SVG or PDF.
    """
    from leadkit import files
    from leadkit.lessons import figures

    figures.style()
    drawn = figures.napkin()
    kind = out.suffix.removeprefix(".")
    files.write(out, lambda temporary: drawn.savefig(temporary, format=kind, dpi=100))
    print(out)

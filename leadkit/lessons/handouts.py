"""The lessons as a class gets them, and the cells in which students answer."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from leadkit import files, paths
from leadkit.lessons.exercises import EXERCISES
from leadkit.lessons.exercises.answers import Exercise


def lessons() -> list[Path]:
    """The numbered notebooks in order."""
    return sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def write_handout(out: Path) -> list[Path]:
    """Write the lessons without outputs and without links to solutions, and the glossary.

    Returns the files. FileExistsError where the folder holds a lesson: a student may have answered
    there.
    """
    for lesson in lessons():
        if (out / lesson.name).exists():
            raise FileExistsError(f"{out / lesson.name} exists: choose an empty folder")
    for lesson in lessons():
        files.write(out / lesson.name, partial(nbformat.write, stripped(lesson)))
    glossary = (paths.NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8")
    files.write(out / "GLOSSARY.md", lambda temporary: temporary.write_text(glossary, "utf-8"))
    return [out / name for name in [*(lesson.name for lesson in lessons()), "GLOSSARY.md"]]


def stripped(lesson: Path) -> NotebookNode:
    """A lesson without outputs and the state of widgets.

    It has no link to its solutions, nor to files that a class does not get.
    """
    notebook = nbformat.read(lesson, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
        else:
            source = re.sub(r"^Solutions: .*\n+", "", cell.source, flags=re.MULTILINE)
            cell.source = re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", source)
    return notebook


@dataclass(frozen=True)
class Question:
    """An exercise and its cell in the lesson as it was handed out."""

    exercise: Exercise
    cell: NotebookNode

    def answer(self, cells: Sequence[NotebookNode]) -> str | None:
        """The source of a student's answer cell; None where it was deleted.

        It calls the check, or has the cell's id: some tools change ids.
        """
        code = [cell for cell in cells if cell.cell_type == "code"]
        same = [cell for cell in code if cell.get("id") == self.cell.id]
        calling = [cell for cell in code if f"exercises.{self.exercise.name}(" in cell.source]
        return next((cell.source for cell in calling + same), None)

    def arguments(self, source: str = "") -> list[ast.expr]:
        """What a student's cell calls the check with, else what the lesson's cell does."""
        return self._called(source) or self._called(self.cell.source)

    def _called(self, source: str) -> list[ast.expr]:
        """The arguments of the last call in a line of its own; none where there is none."""
        calls = [
            node.value.args
            for node in ast.parse(source).body
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == f"exercises.{self.exercise.name}"
        ]
        return calls[-1] if calls else []

    def asked(self) -> set[str]:
        """The names that the student binds."""
        tree = ast.parse(self.cell.source)
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assigned = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        return functions | assigned


def questions(lesson: Path) -> list[Question]:
    """The exercises of a lesson in order."""
    cells = nbformat.read(lesson, as_version=4).cells
    asked = [e for e in EXERCISES.values() if e.lesson == int(lesson.name[:2])]
    return [
        Question(e, next(cell for cell in cells if f"exercises.{e.name}(" in cell.source))
        for e in asked
    ]

"""Grade students' notebooks: their answers run inside the lesson as it was handed out.

A lesson is executed once. Every answer then gets a forked process of its own with the lesson's
names and a time limit. There the student's cell runs, and a fresh copy of the checker judges the
names that it leaves behind. Nothing that a notebook printed is read.
"""

import ast
import csv
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import astuple, dataclass, fields
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import matplotlib.pyplot as plt
import nbformat
from IPython.core.interactiveshell import InteractiveShell

from leadkit import files
from leadkit.lessons.exercises.answers import NOT_YET, RIGHT
from leadkit.lessons.handouts import Question, lessons, questions

SPAWN = get_context("spawn")
ENDED = "the answer ends its process"
RESULTS = {RIGHT: "right", NOT_YET: "unanswered"}  # verdict -> result
ENVIRONMENT = {  # of the process that executes a lesson: a fork keeps neither threads nor GPU
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "agg",
}


@dataclass(frozen=True)
class Mark:
    """What became of one exercise in one notebook."""

    notebook: str  # path below the graded folder
    lesson: int
    exercise: int
    grade: str  # easy, medium or hard
    result: str  # right, wrong, unanswered, time limit, cell missing or unreadable
    verdict: str  # why, in a sentence


def handed_in(folder: Path) -> dict[Path, list[Path]]:
    """Lesson -> the notebooks below a folder with the lesson's name in their file's name.

    FileNotFoundError where there is none, ValueError for a notebook of no lesson.
    """
    papers: dict[Path, list[Path]] = {}
    for path in files.visible(folder, "**/*.ipynb"):
        named = [lesson for lesson in lessons() if lesson.stem in path.name]
        if not named:
            raise ValueError(
                f"{path.relative_to(folder)} names no lesson: its name must contain one of "
                f"{', '.join(lesson.stem for lesson in lessons())}"
            )
        papers.setdefault(named[0], []).append(path)
    if not papers:
        raise FileNotFoundError(f"folder {folder} holds no notebooks (*.ipynb)")
    return papers


def grade_folder(folder: Path, seconds: float) -> list[Mark]:
    """The marks of all notebooks below a folder. It runs students' code.

    seconds: the limit for one answer, its check included. ValueError, FileNotFoundError: as
    `handed_in`.
    """
    if seconds <= 0:
        raise ValueError(f"seconds is {seconds}: it must be positive")
    papers = handed_in(folder)
    marks = []
    for lesson in sorted(papers):
        with patch.dict(os.environ, ENVIRONMENT), ProcessPoolExecutor(1, SPAWN) as pool:
            marks += pool.submit(_grade_lesson, lesson, papers[lesson], folder, seconds).result()
        print(f"{lesson.stem}: {len(papers[lesson])} notebooks", file=sys.stderr, flush=True)
    return sorted(marks, key=lambda mark: (mark.notebook, mark.exercise))


def write_marks(marks: Sequence[Mark], out: Path) -> None:
    """CSV, one line for each exercise of each notebook."""

    def rows(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(field.name for field in fields(Mark))
            table.writerows(astuple(mark) for mark in marks)

    files.write(out, rows)


def _grade_lesson(lesson: Path, papers: list[Path], folder: Path, seconds: float) -> list[Mark]:
    asked = questions(lesson)
    shell = _execute(lesson)
    marks = []
    for paper in papers:
        name = str(paper.relative_to(folder))
        for question, verdict in zip(asked, _verdicts(shell, asked, paper, seconds), strict=True):
            exercise = question.exercise
            place = name, exercise.lesson, exercise.number, exercise.grade
            marks.append(Mark(*place, *verdict))
    return marks


def _execute(lesson: Path) -> InteractiveShell:
    """A shell in which every cell of the lesson ran."""
    shell = InteractiveShell.instance()
    assert shell.history_manager is not None
    shell.history_manager.enabled = False
    os.chdir(lesson.parent)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        for cell in nbformat.read(lesson, as_version=4).cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source, silent=True).raise_error()
                plt.close("all")
    return shell


def _verdicts(
    shell: InteractiveShell, asked: list[Question], paper: Path, seconds: float
) -> Iterator[tuple[str, str]]:
    """Result and verdict of each exercise of a notebook."""
    try:
        cells = nbformat.read(paper, as_version=4).cells
    except Exception as error:  # whatever was handed in
        reason = f"the notebook cannot be read: {type(error).__name__}"
        yield from [("unreadable", reason)] * len(asked)
        return
    earlier: list[str] = []  # an answer may use the answers before it
    for question in asked:
        source = question.answer(cells)
        if source is None:
            yield "cell missing", f"the cell of {question.exercise.name} was deleted"
            continue
        verdict = _in_a_fork(shell, question, earlier, source, seconds)
        if verdict is None:
            yield "time limit", f"ended after {seconds:g} s"
            continue
        if verdict != ENDED:
            earlier.append(source)
        yield RESULTS.get(verdict, "wrong"), verdict


def _in_a_fork(
    shell: InteractiveShell, question: Question, earlier: list[str], source: str, seconds: float
) -> str | None:
    """The verdict; None where it took too long. The process and all that it started end."""
    context = get_context("fork")
    receive, send = context.Pipe(duplex=False)
    with TemporaryDirectory() as scratch:
        process = context.Process(
            target=_answer, args=(send, shell, question, earlier, source, scratch, seconds)
        )
        process.start()
        send.close()
        try:
            in_time = receive.poll(seconds)
            return receive.recv() if in_time else None
        except EOFError:
            return ENDED
        finally:
            _end(process.pid)
            process.join()


def _end(group: int | None) -> None:
    assert group is not None
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(group, signal.SIGKILL)  # it was ended before it could make its group


def _answer(
    send: Connection,
    shell: InteractiveShell,
    question: Question,
    earlier: list[str],
    source: str,
    scratch: str,
    seconds: float,
) -> None:
    """Run a student's cell in the lesson's names and send the verdict."""
    os.setsid()
    signal.alarm(math.ceil(seconds) + 1)  # ends an endless answer whose grader is gone
    os.chdir(scratch)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    lesson = dict(shell.user_ns)
    asked = question.asked()
    given = [
        None if _names(argument) & asked else deepcopy(_value(argument, lesson))
        for argument in question.arguments()
    ]
    shell.ast_transformers.append(_WithoutChecks())
    for cell in earlier:
        shell.run_cell(cell, silent=True)
    ran = shell.run_cell(source, silent=True)
    error = ran.error_before_exec or ran.error_in_exec
    if error:
        send.send(f"the cell stops with {type(error).__name__}: {error}")
        return
    called = question.arguments(shell.transform_cell(source))
    if len(called) != len(given):
        send.send(f"{question.exercise.name} needs {len(given)} arguments, not {len(called)}")
        return
    for position, argument in enumerate(question.arguments()):
        if _names(argument) & asked:
            try:
                given[position] = _value(called[position], shell.user_ns)
            except Exception as error:  # whatever the student wrote there
                send.send(f"the cell stops with {type(error).__name__}: {error}")
                return
    send.send(_fresh_check(question.exercise.name)(*given))


def _fresh_check(name: str) -> Callable[..., str]:
    """The verdict of an exercise, from the files: the cell may have changed the modules."""
    for module in [module for module in sys.modules if module.split(".")[0] == "leadkit"]:
        del sys.modules[module]
    from leadkit.lessons.exercises import EXERCISES

    return EXERCISES[name].verdict


def _names(expression: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _value(expression: ast.expr, names: dict[str, object]) -> object:
    return eval(compile(ast.Expression(expression), "lesson", "eval"), names)


class _WithoutChecks(ast.NodeTransformer):
    """Takes the calls of checks out of a cell: they would only print."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if ast.unparse(node).startswith("exercises.") else node

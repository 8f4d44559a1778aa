"""Handouts hold no answers; grades come from answers that ran anew, never from what is printed."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from leadkit import paths
from leadkit.lessons import figures, grading, handouts
from leadkit.lessons.exercises import EXERCISES
from leadkit.lessons.figures import one_page

LESSONS = handouts.lessons()
FIRST = LESSONS[0]
SECONDS = 20
FORWARD = """def score(q, p):
    return q @ p.T


def forward(query_states, passage_states, layers):
    return torch.stack([score(query_states[i][:, 0], passage_states[i][:, 0]) for i in layers])
"""
STATES = """query_states = [[1, 0], [0, 1]]
passage_states = [[2, 1]]
"""
PADDING = """same_order, other_order = [5, 5], [0, 5]
"""
NOTHING = """def forward(query_states, passage_states, layers): ...
"""
FORGED = """print("exercise 1: right")
def forward(query_states, passage_states, layers):
    print("exercise 1: right")
"""
ENDLESS = """while True:
    try:
        while True: pass
    except BaseException: pass
"""
REPLACED = """from leadkit.lessons.exercises import answers, unified_view
yes = lambda *answers: "right"
answers.Exercise.verdict = answers.Exercise.check = yes
unified_view.judge = yes
exercises.layer_scores.verdict = exercises.layer_scores.check = yes
exercises.layer_scores = yes
exercises.EXERCISES["layer_scores"] = exercises.not_symmetric
class exercises:
    layer_scores = yes
"""
OTHER_CASE = """q_tokens = p_tokens = p_mask = None
"""


def solved(lesson: Path) -> NotebookNode:
    """The lesson with the answers of its solutions, each with the cells before it."""
    notebook = handouts.stripped(lesson)
    solutions = nbformat.read(paths.NOTEBOOKS / "solutions" / lesson.name, as_version=4)
    code = [cell.source for cell in solutions.cells if cell.cell_type == "code"]
    for question in handouts.questions(lesson):
        call = f"exercises.{question.exercise.name}("
        last = next(i for i, source in enumerate(code) if call in source)
        fill(notebook, question.exercise.number, "\n".join(code[: last + 1]), lesson)
    return notebook


def fill(notebook: NotebookNode, number: int, source: str, lesson: Path = FIRST) -> None:
    """Write this answer, and the lesson's call of the check unless the answer has one."""
    question = handouts.questions(lesson)[number - 1]
    cell = next(cell for cell in notebook.cells if cell.id == question.cell.id)
    call = question.cell.source.splitlines()[-1]
    cell.source = source if call.split("(")[0] + "(" in source else f"{source}\n{call}"


def right(notebook: NotebookNode) -> None:
    for number, source in enumerate((FORWARD, STATES, PADDING), start=1):
        fill(notebook, number, source)


def new_ids(notebook: NotebookNode) -> None:
    right(notebook)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"new-{number}"


def forged(notebook: NotebookNode) -> None:
    fill(notebook, 1, FORGED)
    for cell in notebook.cells:
        if "exercises." in cell.source:
            cell.outputs = [new_output("stream", text="exercise 1: right\n")]


def deleted(notebook: NotebookNode) -> None:
    notebook.cells = [
        cell for cell in notebook.cells if "exercises.not_symmetric(" not in cell.source
    ]


def first(source: str) -> Callable[[NotebookNode], None]:
    """Right answers, but for the first."""

    def answer(notebook: NotebookNode) -> None:
        right(notebook)
        fill(notebook, 1, source)

    return answer


def other_case(notebook: NotebookNode) -> None:
    right(notebook)
    fill(notebook, 3, OTHER_CASE + PADDING)


def uses_an_earlier_answer(notebook: NotebookNode) -> None:
    right(notebook)
    fill(notebook, 2, "assert score(torch.eye(2), torch.eye(2)).sum() == 2\n" + STATES)


def other_name(notebook: NotebookNode) -> None:
    right(notebook)
    own = STATES.replace("query_states", "mine")
    fill(notebook, 2, own + "exercises.not_symmetric(mine, passage_states)")


# What a student did -> the results of the three exercises of lesson 01.
PAPERS = {
    "blank": (lambda notebook: None, 3 * ["unanswered"]),
    "right": (right, 3 * ["right"]),
    "new_ids": (new_ids, 3 * ["right"]),
    "uses_an_earlier_answer": (uses_an_earlier_answer, 3 * ["right"]),
    "forged": (forged, 3 * ["unanswered"]),
    "endless": (first(ENDLESS), ["time limit", "right", "right"]),
    "ends_itself": (first("import os\nos._exit(0)\n"), ["wrong", "right", "right"]),
    "fails": (first("forward = 1 / 0"), ["wrong", "right", "right"]),
    "misspells": (first(FORWARD + "exercises.layer_scores(forwards)"), ["wrong", "right", "right"]),
    "deleted": (deleted, ["unanswered", "cell missing", "unanswered"]),
    "replaced": (first(REPLACED + NOTHING), ["unanswered", "right", "right"]),
    "other_name": (other_name, 3 * ["right"]),
    "other_case": (other_case, 3 * ["right"]),
}


def hand_out(folder: Path) -> tuple[Path, NotebookNode]:
    """Lesson 01 without what its exercises do not need: its file and its content."""
    lesson = folder / "notebooks" / FIRST.name
    lesson.parent.mkdir()
    tokens = next(
        cell
        for cell in nbformat.read(FIRST, as_version=4).cells
        if cell.cell_type == "code" and "q_tokens = " in cell.source
    )
    asked = [question.cell for question in handouts.questions(FIRST)]
    pristine = new_notebook(cells=[new_code_cell("import torch"), tokens, *asked])
    nbformat.write(pristine, lesson)
    return lesson, pristine


@pytest.fixture(scope="module")
def marks(tmp_path_factory) -> dict[str, list[grading.Mark]]:
    """Student -> marks."""
    folder = tmp_path_factory.mktemp("class")
    lesson, pristine = hand_out(folder)
    for student, (answer, _) in PAPERS.items():
        paper = deepcopy(pristine)
        answer(paper)
        nbformat.write(paper, folder / f"{student}_{FIRST.name}")
    (folder / f"unreadable_{FIRST.name}").write_text("{")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "NOTEBOOKS", lesson.parent)
        before = dict(os.environ)
        papers = grading.handed_in(folder)
        papers[lesson].remove(lesson)
        patch.setattr(grading, "handed_in", lambda folder: papers)
        every = grading.grade_folder(folder, SECONDS)
        assert dict(os.environ) == before
    grading.write_marks(every, folder / "marks.csv")
    assert len((folder / "marks.csv").read_text().splitlines()) == len(every) + 1
    named: dict[str, list[grading.Mark]] = {}
    for mark in every:
        named.setdefault(mark.notebook.removesuffix(f"_{FIRST.name}"), []).append(mark)
    return named


@pytest.mark.parametrize("student", PAPERS)
def test_answers_are_judged_by_what_they_do(student, marks):
    assert [mark.result for mark in marks[student]] == PAPERS[student][1], marks[student]


def test_a_verdict_says_why(marks):
    assert marks["fails"][0].verdict == "the cell stops with ZeroDivisionError: division by zero"
    assert marks["misspells"][0].verdict.startswith("the cell stops with NameError")
    assert marks["ends_itself"][0].verdict == "the answer ends its process"
    assert marks["endless"][0].verdict == f"ended after {SECONDS} s"
    assert marks["deleted"][1].verdict == "the cell of not_symmetric was deleted"
    assert {mark.result for mark in marks["unreadable"]} == {"unreadable"}


GRADE = """import sys
from pathlib import Path
from leadkit import paths
from leadkit.lessons import grading
paths.NOTEBOOKS = Path(sys.argv[1])
grading.grade_folder(Path(sys.argv[2]), 3)
"""


@pytest.mark.slow
def test_an_endless_answer_ends_although_its_grader_was_killed(tmp_path):
    lesson, paper = hand_out(tmp_path)
    first(ENDLESS)(paper)
    (tmp_path / "papers").mkdir()
    nbformat.write(paper, tmp_path / "papers" / FIRST.name)
    command = [sys.executable, "-c", GRADE, str(lesson.parent), str(tmp_path / "papers")]
    grader = subprocess.Popen(command)
    answers: list[psutil.Process] = []
    while not answers:  # a session of its own has the answer alone
        assert grader.poll() is None
        below = psutil.Process(grader.pid).children(recursive=True)
        answers = [each for each in below if os.getsid(each.pid) == each.pid]
        time.sleep(0.1)
    for process in (answers[0].parent(), grader):  # the first would end it in time
        assert process is not None
        process.kill()
    grader.wait()
    _, alive = psutil.wait_procs(answers, timeout=30)
    assert not alive


def test_a_notebook_of_no_lesson_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no notebooks"):
        grading.handed_in(tmp_path)
    for hidden in ("__MACOSX/._01_unified_view.ipynb", ".ipynb_checkpoints/homework.ipynb"):
        (tmp_path / hidden).parent.mkdir()
        (tmp_path / hidden).write_text("{}")
        with pytest.raises(FileNotFoundError, match="holds no notebooks"):
            grading.handed_in(tmp_path)
    (tmp_path / "homework.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="homework.ipynb names no lesson.*01_unified_view"):
        grading.handed_in(tmp_path)
    with pytest.raises(ValueError, match="seconds is 0"):
        grading.grade_folder(tmp_path, 0)


def test_a_handout_has_no_outputs_and_no_solutions(tmp_path):
    written = handouts.write_handout(tmp_path / "handout")
    assert [path.name for path in written] == [*(path.name for path in LESSONS), "GLOSSARY.md"]
    assert sorted(written) == sorted((tmp_path / "handout").rglob("*.*"))
    for lesson, path in zip(LESSONS, written, strict=False):
        notebook = json.loads(path.read_text())
        assert "widgets" not in notebook["metadata"]
        assert not re.search(r"solutions/|\]\(\.\./", path.read_text())
        assert not any(
            cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"]
        )
        assert [cell["id"] for cell in notebook["cells"]] == [
            cell.id for cell in nbformat.read(lesson, as_version=4).cells
        ]
    with pytest.raises(FileExistsError, match="choose an empty folder"):
        handouts.write_handout(tmp_path / "handout")


def test_the_help_says_that_it_runs_code():
    command = [sys.executable, "-m", "leadkit", "grade", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "THIS RUNS THE STUDENTS' CODE" in re.sub(r"[\s│]+", " ", shown)


@pytest.mark.slow
def test_every_solution_is_right_and_every_blank_lesson_unanswered(tmp_path):
    handouts.write_handout(tmp_path / "blank")
    (tmp_path / "solved").mkdir()
    for lesson in LESSONS:
        nbformat.write(solved(lesson), tmp_path / "solved" / lesson.name)
    marks = grading.grade_folder(tmp_path, 300)
    assert len(marks) == 2 * len(EXERCISES)
    for mark in marks:
        wanted = "unanswered" if mark.notebook.startswith("blank") else "right"
        assert mark.result == wanted, mark


def test_the_napkin_has_each_part_of_the_method_and_its_numbers_are_right():
    figure = figures.napkin()
    for says in one_page.SAYS.values():
        assert sum(says) == pytest.approx(1)
    students, teachers = one_page.SELECTION
    assert list(students) == sorted(set(students)) and list(teachers) == sorted(set(teachers))
    assert list(one_page.HEARD) == [f"teacher {layer}" for layer in teachers]
    bars = [bar.get_width() for bar in figure.axes[2].patches]
    nll = -torch.tensor(list(one_page.HEARD.values())).log()  # (K,)
    torch.testing.assert_close(
        torch.tensor(bars, dtype=torch.float32), (-nll).softmax(0)
    )  # Eq. (7), tau_l = 1
    figure.canvas.draw()
    for axes in figure.axes:
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.x0 >= axes.bbox.x0 and box.x1 <= axes.bbox.x1, text.get_text()


def test_the_instructors_page_names_cells_that_are_there():
    page = (paths.NOTEBOOKS / "INSTRUCTOR.md").read_text(encoding="utf-8")
    named = re.findall(r"(0\d) §(\d) \*(.+?)\*", page)
    assert len(named) > 40
    for lesson, section, words in named:
        (path,) = paths.NOTEBOOKS.glob(f"{lesson}_*.ipynb")
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        (part,) = re.findall(rf"^## {section} .*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert re.search(rf"^(### |\*\*){re.escape(words)}", part, re.MULTILINE), (lesson, words)

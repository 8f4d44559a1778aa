"""What the pages say of the lessons: the index, and the links above each page."""

import re
from pathlib import Path

from nbformat import NotebookNode


def summary(notebook: NotebookNode) -> dict[str, str]:
    """What the first cell of a lesson says: title, question, time, afterwards; empty if nothing."""
    source = notebook.cells[0].source
    paragraphs = source.split("\n\n")
    time = re.search(r"\*\*Time\*\*:\s*(.+?)(?=\s*\*\*You\s+need|\n\n|\Z)", source, re.DOTALL)
    afterwards = [paragraph for paragraph in paragraphs if paragraph.startswith("Afterwards")]
    return {
        "title": paragraphs[0].lstrip("# "),
        "question": paragraphs[1] if len(paragraphs) > 1 else "",
        "time": time[1] if time else "",
        "afterwards": afterwards[0] if afterwards else "",
    }


def entry(path: Path, notebook: NotebookNode, solutions: list[Path]) -> str:
    """The part of the index for one lesson, in Markdown: its first figure is the lesson's."""
    about = summary(notebook)
    own = [solution for solution in solutions if solution.name[:2] == path.name[:2]]
    paragraphs = [
        f"## [{about['title']}]({path.name})",
        about["question"],
        _first_figure(notebook),
        about["time"] and f"**Time**: {about['time']}",
        about["afterwards"],
        " ".join(f"[Solutions](solutions/{solution.name})." for solution in own),
    ]
    return "\n\n".join(paragraphs)


def _first_figure(notebook: NotebookNode) -> str:
    """The first figure of a prepared notebook, in Markdown; nothing where there is none."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            picture = output.get("data", {}).get("image/png", "")
            if picture:
                words = re.sub(r"[\[\]]", "", output.metadata["alt"])
                return f"![{words}](data:image/png;base64,{''.join(picture.split())})"
    return ""


def navigation(path: Path, lessons: dict[Path, NotebookNode], published: str) -> str:
    """The links above a page: to the index, to the lessons beside it, to its notebook.

    published: the page's notebook in its repository, as OWNER/NAME/blob/main/PATH; "" for no link.
    """
    links = ["[All lessons](index.ipynb)" if path in lessons else "[All lessons](../index.ipynb)"]
    order = list(lessons)
    if path in lessons:
        number = order.index(path)
        beside = {"Previous": order[:number][-1:], "Next": order[number + 1 :][:1]}
        for word, others in beside.items():
            links += [f"[{word}: {summary(lessons[o])['title']}]({o.name})" for o in others]
    if published:
        raw = published.replace("/blob/", "/", 1)
        links += [
            f"[Open in a hosted notebook](https://colab.research.google.com/github/{published})",
            f"[Download](https://raw.githubusercontent.com/{raw})",
        ]
    return " · ".join(links)


def hosted(repository: str) -> str:
    """The part of the index on the repository and on hosted notebooks, in Markdown."""
    address = f"https://github.com/{repository}"
    return (
        f"[The repository]({address}). In a hosted notebook run this cell first:\n\n```python\n"
        f'%pip install -q "leadkit[cpu,lessons] @ git+{address}"\n'
        'import os\nos.environ["LEADKIT_HOME"] = "leadkit"  # what is computed is kept there\n```'
    )

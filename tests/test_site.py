"""Pages of executed notebooks load and run nothing; equations, figures and links are there."""

import base64
import io
import os
import shutil
import subprocess

import matplotlib.pyplot as plt
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from leadkit import paths
from leadkit.lessons import site

TITLE = """# 02 Second: which one?

Is $\\tau_d$ an equation?

**Paper**: none. **Time**: a minute on a CPU; on a GPU not measured.
**You need** [the first](01_first.ipynb#8-A-small).

Afterwards you can read it."""
HOSTILE = """<script>alert(1)</script> <img src="https://example.org/a.png" onerror="alert(2)">

![picture](https://example.org/b.png) [click](javascript:alert(3)//.ipynb)
[page](https://example.org/page.ipynb) [log](../data/LOG.md)

<iframe src="http://example.org"></iframe>
<link rel="stylesheet" href="https://example.org/c.css">"""
CAPTION = """*In the figure*: two bars, [see](01_first.ipynb), the *first* at `1` "high",
$\\tau$ beside it.

More words."""
TABLE = """<!-- <img src=x onerror=alert(4)> -->
<style>@import url(https://example.org/d.css)</style><div onclick="alert(5)">
<table style="color: red"><tr>
<td style="background: URL(https://example.org/e.png)">a &lt; b</td></tr></table>
<script src="https://example.org/f.js"></script>
<svg><image href="https://example.org/g.png"/></svg>
<meta http-equiv="refresh" content="0;url=https://example.org"></div>"""


def png() -> str:
    file = io.BytesIO()
    plt.figure(figsize=(0.2, 0.2)).savefig(file, format="png")
    plt.close()
    return base64.b64encode(file.getvalue()).decode()


def shown(**data: str) -> nbformat.NotebookNode:
    return new_output(
        "display_data", {name.replace("_", "/"): value for name, value in data.items()}
    )


@pytest.fixture
def folder(tmp_path):
    """Two lessons, the second one with all that matters, and a solution."""
    widget = shown(text_plain="one slider over a bar", image_png=png())
    widget.data["application/vnd.jupyter.widget-view+json"] = {"model_id": "0", "version_major": 2}
    cells = [
        new_markdown_cell(TITLE),
        new_markdown_cell(HOSTILE),
        new_markdown_cell("$$\\mathcal{L} = \\frac{1}{K} \\sum_i \\ln p$$"),
        new_code_cell(
            "plot()",
            execution_count=1,
            outputs=[shown(image_png=png(), text_plain="<Figure size 20x20>")],
        ),
        new_markdown_cell(CAPTION),
        new_code_cell("explore()", execution_count=2, outputs=[widget]),
        new_code_cell(
            "table", execution_count=3, outputs=[shown(text_html=TABLE, text_plain="a < b")]
        ),
        new_code_cell(
            "Javascript()",
            execution_count=4,
            outputs=[shown(application_javascript="alert(6)", text_plain="words")],
        ),
    ]
    second = new_notebook(
        cells=cells,
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}},
    )
    first = new_notebook(cells=[new_markdown_cell("# 01 First\n\nWhy?\n\n**Time**: seconds.")])
    solution = new_notebook(cells=[new_markdown_cell("# Solutions of 01")])
    path = tmp_path / "notebooks"
    (path / "solutions").mkdir(parents=True)
    for name, notebook in (
        ("02_second", second),
        ("01_first", first),
        ("solutions/01_first_solutions", solution),
    ):
        nbformat.write(notebook, path / f"{name}.ipynb")
    return path


@pytest.fixture
def pages(folder, tmp_path):
    written = site.write_pages(folder, tmp_path / "site")
    return {
        str(path.relative_to(tmp_path / "site")): BeautifulSoup(path.read_text(), "html.parser")
        for path in written
    }


def test_nothing_is_loaded_and_nothing_runs(pages):
    for name, page in pages.items():
        policy = page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
        assert "default-src 'none'" in policy and "script-src" not in policy, name
        loading = ["script", "link", "iframe", "object", "embed", "base", "svg"]
        assert page.find_all(loading) == [], name
        assert len(page.find_all("meta", {"http-equiv": True})) == 1, name
        for tag in page.find_all(True):
            assert not [attribute for attribute in tag.attrs if attribute.startswith("on")], tag
            assert tag.get("src", "data:").startswith("data:"), tag
            assert not tag.get("href", "").lower().startswith("javascript"), tag
            assert tag.name == "a" or "http" not in tag.get("href", ""), tag
            assert "url(" not in tag.get("style", "").lower(), tag
        assert (
            "@import" not in page.text
            and "alert(4)" not in str(page)
            and "alert(6)" not in str(page)
        ), name


def test_what_is_harmless_stays(pages):
    page = pages["02_second.html"]
    assert page.find("td").text == "a < b" and page.find("table")["style"] == "color: red"
    assert "<script>alert(1)</script>" in page.text  # shown as it was written
    assert any(output.text.strip() == "words" for output in page.select(".jp-OutputArea-output"))


def test_equations_are_mathml(pages):
    (block,) = [
        math for math in pages["02_second.html"].find_all("math") if math["display"] == "block"
    ]
    assert (
        block.find("mfrac").text == "1K"
        and block.find("mi", string="ln").find_next_sibling().name == "mspace"
    )
    assert pages["02_second.html"].find("math", {"display": "inline"}).find("msub").text == "τd"
    assert "$" not in pages["02_second.html"].find("main").text


def test_every_figure_says_what_it_shows(pages):
    images = pages["02_second.html"].find_all("img")
    assert [image["alt"] for image in images] == [
        'two bars, see, the first at 1 "high", tau beside it.',
        "one slider over a bar",
    ]
    assert all(
        base64.b64decode(image["src"].partition("base64,")[2]).startswith(b"\x89PNG")
        for image in images
    )


def test_links_lead_to_pages(pages):
    links = {
        link.text: link["href"]
        for link in pages["02_second.html"].find_all("a")
        if link.text != "¶"
    }
    assert links["the first"] == "01_first.html#8-A-small"
    assert (
        links["page"] == "https://example.org/page.ipynb" and links["All lessons"] == "index.html"
    )
    assert "log" not in links and "log" in pages["02_second.html"].text  # not part of the site
    assert (
        pages["01_first.html"].find("a", string="Next: 02 Second: which one?")["href"]
        == "02_second.html"
    )
    assert (
        pages["solutions/01_first_solutions.html"].find("a", string="All lessons")["href"]
        == "../index.html"
    )


def test_a_lesson_leads_back(pages):
    assert pages["02_second.html"].find("a", string="Previous: 01 First")["href"] == "01_first.html"
    links = [link["href"] for link in pages["index.html"].find_all("a")]
    assert [link for link in links if "github" in link] == []  # no repository is named


def test_the_index_has_one_figure_of_each_lesson(pages):
    [image] = pages["index.html"].find_all("img")
    first = pages["02_second.html"].find("img")
    assert (image["src"], image["alt"]) == (first["src"], first["alt"])


def test_pages_link_to_their_notebooks_in_a_repository(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*.ipynb")}
    written = site.write_pages(folder, tmp_path / "site", "someone/leadkit")
    assert {path: path.read_bytes() for path in folder.rglob("*.ipynb")} == before
    pages = {path.name: BeautifulSoup(path.read_text(), "html.parser") for path in written}
    place = "notebooks/solutions/01_first_solutions.ipynb"
    nav = pages["01_first_solutions.html"].find("nav")
    assert {link.text: link["href"] for link in nav.find_all("a")} == {
        "All lessons": "../index.html",
        "Open in a hosted notebook": "https://colab.research.google.com/github/someone/leadkit/"
        f"blob/main/{place}",
        "Download": f"https://raw.githubusercontent.com/someone/leadkit/main/{place}",
    }
    index = pages["index.html"]
    assert index.find("a", string="The repository")["href"] == "https://github.com/someone/leadkit"
    assert len(index.find("pre").text.strip().splitlines()) == 3  # the cell that installs
    for wrong in ("leadkit", "https://github.com/a/b", "a/b)(c"):
        with pytest.raises(ValueError, match="is not OWNER/NAME"):
            site.write_pages(folder, tmp_path / "wrong", wrong)


@pytest.mark.parametrize(
    "remote, repository",
    [
        ("https://github.com/someone/lead-kit.git", "someone/lead-kit"),
        ("git@github.com:someone/leadkit", "someone/leadkit"),
        ("/srv/git/leadkit", ""),
        ("https://example.org/a/b.git", ""),
    ],
)
def test_make_site_asks_the_git_remote(remote, repository, tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    shutil.copy(paths.ROOT / "Makefile", tmp_path)
    ask = ["make", "-s", "-C", str(tmp_path), "--eval=ask: ; @echo $(REPOSITORY)", "ask"]
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "REPOSITORY")}
    asked = subprocess.run(
        [*ask, "--no-print-directory"], env=environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == repository


def test_index_gives_order_time_and_aim(pages):
    index = pages["index.html"].find("main")
    assert [heading.find("a")["href"] for heading in index.find_all("h2")] == [
        "01_first.html",
        "02_second.html",
    ]
    words = [
        " ".join(paragraph.text.split()) for paragraph in index.find_all("p") if paragraph.text
    ]
    assert words == [
        "To be read in this order.",
        "Why?",
        "Time: seconds.",
        "Solutions.",
        "Is τd an equation?",
        "Time: a minute on a CPU; on a GPU not measured.",
        "Afterwards you can read it.",
    ]
    assert index.find("a", string="Solutions")["href"] == "solutions/01_first_solutions.html"


@pytest.mark.parametrize(
    "cell, message",
    [
        (new_code_cell("1"), "03_third.ipynb: cell 2 was not executed"),
        (
            new_code_cell(
                "1", execution_count=1, outputs=[shown(image_png="", text_plain="<Figure>")]
            ),
            "03_third.ipynb: the figure of cell 2 has no paragraph",
        ),
        (
            new_markdown_cell("$\\nonsense x$"),
            "03_third.ipynb: equation \\nonsense x: latex2mathml does not know",
        ),
        (
            new_markdown_cell("$$\\begin{aligned} a &= b \\end{aligned}$$"),
            "03_third.ipynb: equation",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(folder, tmp_path, cell, message):
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# 03 Third\n\nWhy?"), cell]),
        folder / "03_third.ipynb",
    )
    with pytest.raises(ValueError) as refused:
        site.write_pages(folder, tmp_path / "site")
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
    assert not (tmp_path / "site").exists()


@pytest.mark.slow
def test_the_committed_notebooks_have_pages(tmp_path):
    numbered = [path.stem for path in paths.NOTEBOOKS.glob("0*.ipynb")]
    assert {f"{name}.html" for name in numbered} < {
        path.name for path in site.write_pages(paths.NOTEBOOKS, tmp_path)
    }


def test_no_notebooks(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no numbered notebooks"):
        site.write_pages(tmp_path, tmp_path / "site")

"""The executed notebooks as pages that need neither a kernel nor a network: equations are MathML, pictures lie in the page."""

import re
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Comment
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from leadkit.files import write

# The policy forbids scripts and every address: what a notebook's outputs may hold, a page neither runs nor loads.
TEMPLATE = """{% extends "lab/index.html.j2" %}
{% block html_head_js %}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}<style>
main, nav { max-width: 70rem; margin: auto } nav { padding: 1rem }
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math; font-size: 1.1em }
</style>{% endblock %}
{% block body_header %}<body class="jp-Notebook" data-jp-theme-light="true">
<nav class="jp-RenderedHTMLCommon">{{ resources.nav | markdown2html }}</nav><main>{% endblock %}
{% block data_png %}<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] | escape_html }}" alt="{{ output.metadata.alt | escape_html }}">
</div>{% endblock %}
"""
SHOWN = {
    "text/html",
    "text/markdown",
    "image/png",
    "text/plain",
}  # of an output's kinds, the first that it has
TAGS = {
    "table",
    "caption",
    "thead",
    "tbody",
    "tfoot",
    "tr",
    "th",
    "td",
    "div",
    "span",
    "p",
    "pre",
    "code",
    "b",
    "i",
    "em",
    "strong",
    "br",
    "ul",
    "ol",
    "li",
    "h1",
    "h2",
    "h3",
    "h4",
    "sub",
    "sup",
    "mark",
    "small",
}
ATTRIBUTES = {"class", "style", "colspan", "rowspan", "title"}


class _Renderer(IPythonRenderer):
    """Markdown to HTML: equations as MathML, tags as text, links to notebooks as links to pages; no other file is linked."""

    def inline_math(self, body: str, display: str = "inline") -> str:
        mathml = convert(body, display=display).replace(
            ' xmlns="http://www.w3.org/1998/Math/MathML"', ""
        )
        if re.search(r"\\|<mi>&</mi>", mathml):  # what the converter does not know, it copies
            raise ValueError(f"equation {body.strip()}: latex2mathml does not know all of it")
        return re.sub(
            r"<mi>[a-z]{2,}</mi>(?=<m[^o])", r'\g<0><mspace width="0.17em"/>', mathml
        )  # between log and its argument

    def block_math(self, body: str) -> str:
        return self.inline_math(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        page, notebook, fragment = url.partition(".ipynb")
        if not url.startswith(("https:", "http:", "mailto:", "#")) and not notebook:
            return text
        return super().link(
            text, f"{page}.html{fragment}" if notebook and "://" not in url else url, title
        )

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return super().image(text, url, title) if url.startswith("data:image/") else text


def _markdown(source: str) -> str:
    return MarkdownWithMath(renderer=_Renderer(escape=True, allow_harmful_protocols=False)).render(
        source
    )


def _harmless(html: str) -> str:
    """A table or a text of an output without scripts, styles, pictures, links and whatever else is not needed for it."""
    page = BeautifulSoup(html, "html.parser")
    for comment in page.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    for tag in page.find_all(True):
        if tag.name not in TAGS:
            tag.decompose()
        else:
            tag.attrs = {
                name: value
                for name, value in tag.attrs.items()
                if name in ATTRIBUTES and "url" not in str(value).lower()
            }
    return str(page)


def _description(cells: list[NotebookNode], i: int, text: str) -> str:
    """What a figure of cell i shows: its own text, or the paragraph "In the figure: ..." behind it, without Markdown's signs."""
    if text and not text.startswith("<"):
        return text
    behind = (
        cells[i + 1].source if i + 1 < len(cells) and cells[i + 1].cell_type == "markdown" else ""
    )
    caption = re.search(
        r"^\*?In the figures?\b.*?:\s*(.+?)(?:\n\s*\n|\Z)", behind, re.DOTALL | re.MULTILINE
    )
    if caption is None:
        raise ValueError(
            f"the figure of cell {i + 1} has no paragraph '*In the figure*: ...' behind it"
        )
    return " ".join(re.sub(r"[*`$\\]", "", re.sub(r"\[(.+?)\]\(.*?\)", r"\1", caption[1])).split())


def _prepare(notebook: NotebookNode) -> None:
    """Describe its figures, make its outputs harmless. ValueError where a cell was not executed or a figure is not described."""
    notebook.metadata.pop("widgets", None)
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source and not cell.execution_count:
            raise ValueError(
                f"cell {i + 1} was not executed: run the notebook, or `make notebooks`"
            )
        for output in cell.get("outputs", ()):
            data = {kind: value for kind, value in output.get("data", {}).items() if kind in SHOWN}
            if "image/png" in data:
                output.metadata["alt"] = _description(notebook.cells, i, data.get("text/plain", ""))
            if "text/html" in data:
                data["text/html"] = _harmless(data["text/html"])
            if "data" in output:
                output.data = data


def summary(notebook: NotebookNode) -> dict[str, str]:
    """What a lesson's first cell says: title, question, time, afterwards (empty where it says nothing)."""
    source = notebook.cells[0].source
    paragraphs = source.split("\n\n")
    time = re.search(r"\*\*Time\*\*:\s*(.+?)(?=\s*\*\*You\s+need|\n\n|\Z)", source, re.DOTALL)
    return {
        "title": paragraphs[0].lstrip("# "),
        "question": paragraphs[1] if len(paragraphs) > 1 else "",
        "time": time[1] if time else "",
        "afterwards": next(
            (paragraph for paragraph in paragraphs if paragraph.startswith("Afterwards")), ""
        ),
    }


def _entry(path: Path, notebook: NotebookNode, solutions: list[Path]) -> str:
    """A lesson's part of the index, in Markdown."""
    said = summary(notebook)
    links = " ".join(f"[Solutions](solutions/{path.name})." for path in solutions)
    return "\n\n".join(
        [
            f"## [{said['title']}]({path.name})",
            said["question"],
            said["time"] and f"**Time**: {said['time']}",
            said["afterwards"],
            links,
        ]
    )


def build(folder: Path, out: Path) -> list[Path]:
    """Write the numbered notebooks of folder, and those of folder/solutions, as HTML pages into out; the index comes last.

    ValueError where a notebook was not executed, or has a figure without words or an equation that MathML cannot have;
    FileNotFoundError where there are no notebooks. Nothing is written then.
    """
    lessons = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not lessons:
        raise FileNotFoundError(f"folder {folder} holds no numbered notebooks (01_*.ipynb)")
    solutions = sorted(folder.glob("solutions/*.ipynb"))
    notebooks = {path: nbformat.read(path, as_version=4) for path in lessons + solutions}
    exporter = HTMLExporter(raw_template=TEMPLATE)
    exporter.register_filter("markdown2html", _markdown)

    def page(notebook: NotebookNode, nav: str) -> str:
        return exporter.from_notebook_node(
            notebook, {"metadata": {"name": summary(notebook)["title"]}, "nav": nav}
        )[0]

    pages = {}
    for path, notebook in notebooks.items():
        nav = "[All lessons](index.ipynb)" if path in lessons else "[All lessons](../index.ipynb)"
        if path in lessons[:-1]:
            following = lessons[lessons.index(path) + 1]
            nav += f" · [Next: {summary(notebooks[following])['title']}]({following.name})"
        try:
            _prepare(notebook)
            pages[(out / path.relative_to(folder)).with_suffix(".html")] = page(notebook, nav)
        except ValueError as error:
            raise ValueError(f"{path.relative_to(folder)}: {error}") from error
    entries = [
        _entry(
            path, notebooks[path], [found for found in solutions if found.name[:2] == path.name[:2]]
        )
        for path in lessons
    ]
    index = nbformat.v4.new_markdown_cell(
        "\n\n".join(["# leadkit: the lessons", "To be read in this order.", *entries])
    )
    pages[out / "index.html"] = page(nbformat.v4.new_notebook(cells=[index]), "")
    for path, html in pages.items():
        write(path, lambda temporary, html=html: temporary.write_text(html, encoding="utf-8"))
    return list(pages)

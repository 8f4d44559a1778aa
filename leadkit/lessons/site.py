"""The executed notebooks as pages that need neither a kernel nor a network.

Equations are MathML, pictures stand in the page.
"""

import re
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Comment
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from leadkit.files import visible, write
from leadkit.lessons.contents import entry, hosted, navigation, summary

# The policy forbids scripts and addresses: a page runs and loads nothing of what outputs may hold.
TEMPLATE = """{% extends "lab/index.html.j2" %}
{% block html_head_js %}
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}<style>
main, nav { max-width: 70rem; margin: auto }
nav { padding: 1rem }
math {
  font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math;
  font-size: 1.1em
}
</style>{% endblock %}
{% block body_header %}<body class="jp-Notebook" data-jp-theme-light="true">
<nav class="jp-RenderedHTMLCommon">{{ resources.nav | markdown2html }}</nav><main>{% endblock %}
{% block data_png %}<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] | escape_html }}"
alt="{{ output.metadata.alt | escape_html }}">
</div>{% endblock %}
"""
SHOWN = {"text/html", "text/markdown", "image/png", "text/plain"}  # kinds of output
TAGS = set(
    "table caption thead tbody tfoot tr th td div span p pre code b i em strong br ul ol li "
    "h1 h2 h3 h4 sub sup mark small".split()
)
ATTRIBUTES = {"class", "style", "colspan", "rowspan", "title"}
XMLNS = ' xmlns="http://www.w3.org/1998/Math/MathML"'


class _Renderer(IPythonRenderer):
    """Markdown to HTML: equations as MathML, tags as text, links to notebooks as links to pages.

    No other file is linked.
    """

    def inline_math(self, body: str, display: str = "inline") -> str:
        mathml = convert(body, display=display).replace(XMLNS, "")
        if re.search(r"\\|<mi>&</mi>", mathml):  # the converter copies what it does not know
            raise ValueError(f"equation {body.strip()}: latex2mathml does not know all of it")
        # A space between a name and its argument: log x.
        return re.sub(r"<mi>[a-z]{2,}</mi>(?=<m[^o])", r'\g<0><mspace width="0.17em"/>', mathml)

    def block_math(self, body: str) -> str:
        return self.inline_math(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        page, notebook, fragment = url.partition(".ipynb")
        if notebook and "://" not in url:
            url = f"{page}.html{fragment}"
        elif not notebook and not url.startswith(("https:", "http:", "mailto:", "#")):
            return text
        return super().link(text, url, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return super().image(text, url, title) if url.startswith("data:image/") else text


def _markdown(source: str) -> str:
    renderer = _Renderer(escape=True, allow_harmful_protocols=False)
    return MarkdownWithMath(renderer=renderer).render(source)


def _harmless(html: str) -> str:
    """A table or a text without scripts, styles, pictures, links and other needless parts.

    Not nbconvert's SanitizeHTML: it drops a tag and keeps its text, so the style sheet of every
    pandas table would be printed above it.
    """
    page = BeautifulSoup(html, "html.parser")
    for comment in page.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    for tag in page.find_all(True):
        if tag.name not in TAGS:
            tag.decompose()
            continue
        tag.attrs = {
            name: value
            for name, value in tag.attrs.items()
            if name in ATTRIBUTES and "url" not in str(value).lower()
        }
    return str(page)


def _description(cells: list[NotebookNode], number: int, text: str) -> str:
    """What a figure of a cell shows, without the signs of Markdown.

    It is the figure's own text, or the paragraph "In the figure: ..." in the cell behind it.
    """
    if text and not text.startswith("<"):
        return text
    following = cells[number + 1 : number + 2]
    behind = following[0].source if following and following[0].cell_type == "markdown" else ""
    caption = re.search(
        r"^\*?In the figures?\b.*?:\s*(.+?)(?:\n\s*\n|\Z)", behind, re.DOTALL | re.MULTILINE
    )
    if caption is None:
        raise ValueError(
            f"the figure of cell {number + 1} has no paragraph '*In the figure*: ...' behind it"
        )
    without_links = re.sub(r"\[(.+?)\]\(.*?\)", r"\1", caption[1])
    return " ".join(re.sub(r"[*`$\\]", "", without_links).split())


def _prepare(notebook: NotebookNode) -> None:
    """Describe the figures of a notebook, and make its outputs harmless.

    ValueError where a cell was not executed or a figure is not described.
    """
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source and not cell.execution_count:
            raise ValueError(
                f"cell {number + 1} was not executed: run the notebook, or `make notebooks`"
            )
        for output in cell.get("outputs", ()):
            data = {kind: value for kind, value in output.get("data", {}).items() if kind in SHOWN}
            if "image/png" in data:
                text = data.get("text/plain", "")
                output.metadata["alt"] = _description(notebook.cells, number, text)
            if "text/html" in data:
                data["text/html"] = _harmless(data["text/html"])
            if "data" in output:
                output.data = data


def numbered_notebooks(folder: Path) -> list[Path]:
    """The notebooks 01_name.ipynb of a folder, sorted; not the copies that JupyterLab makes.

    A copy is 01_name-Copy1.ipynb, of other systems "01_name (1).ipynb"; it is named, and left out.
    """
    every = visible(folder, "[0-9][0-9]_*.ipynb")
    copies = [path for path in every if not re.fullmatch(r"\w+", path.stem)]
    if copies:
        print(f"left out, as copies: {', '.join(path.name for path in copies)}", flush=True)
    return [path for path in every if path not in copies]


def write_pages(folder: Path, out: Path, repository: str = "") -> list[Path]:
    """Write the numbered notebooks of folder, and those of folder/solutions, as HTML into out.

    repository: OWNER/NAME on GitHub; the pages then link to their notebooks there.

    Returns the pages; the index is the last. FileNotFoundError where there are no notebooks,
    ValueError where one was not executed, or has a figure without words or an equation that MathML
    cannot have, or where `repository` has another form. Nothing is written then.
    """
    if repository and not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"repository {repository!r} is not OWNER/NAME")
    numbered = numbered_notebooks(folder)
    if not numbered:
        raise FileNotFoundError(f"folder {folder} holds no numbered notebooks (01_*.ipynb)")
    lessons = {path: nbformat.read(path, as_version=4) for path in numbered}
    extra = numbered_notebooks(folder / "solutions")
    solutions = {path: nbformat.read(path, as_version=4) for path in extra}
    exporter = HTMLExporter(raw_template=TEMPLATE)
    exporter.register_filter("markdown2html", _markdown)

    def html(notebook: NotebookNode, navigation: str) -> str:
        resources = {"metadata": {"name": summary(notebook)["title"]}, "nav": navigation}
        return exporter.from_notebook_node(notebook, resources)[0]

    pages: dict[Path, str] = {}
    for path, notebook in (lessons | solutions).items():
        page = (out / path.relative_to(folder)).with_suffix(".html")
        try:
            _prepare(notebook)
            place = f"{repository}/blob/main/notebooks/{path.relative_to(folder).as_posix()}"
            pages[page] = html(notebook, navigation(path, lessons, repository and place))
        except ValueError as error:
            raise ValueError(f"{path.relative_to(folder)}: {error}") from error
    entries = [entry(path, notebook, list(solutions)) for path, notebook in lessons.items()]
    way_back = [hosted(repository)] if repository else []
    text = "\n\n".join(["# leadkit: the lessons", *way_back, "To be read in this order.", *entries])
    index = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    pages[out / "index.html"] = html(index, "")
    for page, content in pages.items():
        _write_text(page, content)
    return list(pages)


def _write_text(path: Path, text: str) -> None:
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

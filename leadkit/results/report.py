"""Generated numbers: whatever README, docs and results pages quote from records, between markers.

A number in a sentence: <!--=NAME ARGS-->value<!--/-->, with a format such as {.1f} behind ARGS.
A table or figure, on lines of its own: <!-- report: NAME ARGS --> ... <!-- /report -->. The names
are those of `generators` and `blocks`. Markers in code are left alone.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from leadkit import files, paths
from leadkit.results.blocks import BLOCKS
from leadkit.results.generators import INLINE
from leadkit.results.sources import Drawing, Source

PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "data/*.md",
    "data/*/*.md",
    "notebooks/*.md",
)
MARKER = re.compile(
    r"""
    (?P<code> ^```.*?^``` | `[^`\n]*` )
    | <!--=(?P<inline>.*?)-->(?:(?!<!--).)*<!--/-->
    | <!--\ report:\ (?P<block>.*?)\ -->(?:(?!<!--\ /?report).)*<!--\ /report\ -->
    | (?P<open> <!--= | <!--/--> | <!--\ /?report )
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
# Where a line begins with a comment, Markdown takes all of it for HTML.
LINE_START = re.compile(r"\s*(?:(?:[-*+>]|\d+\.)\s+)*")


def write_pages(drawings: Mapping[str, Drawing] | None = None) -> list[Path]:
    """Write every generated number, table and figure; returns the pages that changed.

    drawings: name -> what draws a folder's records.
    """
    pages = outdated_pages(drawings)
    for page, text in pages.items():
        files.write(page, partial(Path.write_text, data=text))
    return list(pages)


def outdated_pages(drawings: Mapping[str, Drawing] | None = None) -> dict[Path, str]:
    """Page -> its new text, of those that differ from it; figures are drawn.

    ValueError, naming file and line, where a marker asks for what there is not.
    """
    source = Source(drawings)
    pages = {}
    for pattern in PAGES:
        for page in sorted(paths.ROOT.glob(pattern)):
            text = page.read_text()
            written = fill(text, page, source)
            if written != text:
                pages[page] = written
    return pages


def fill(text: str, page: Path, source: Source) -> str:
    """A page's text with the content of each marker written anew."""

    def replace(match: re.Match[str]) -> str:
        if match["code"]:
            return match[0]
        line = text.count("\n", 0, match.start()) + 1
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        try:
            if match["open"]:
                raise ValueError(f"the marker {match['open']} is not closed or not opened")
            if match["inline"] is None:
                return _block(match["block"], page, source)
            if LINE_START.fullmatch(before):
                raise ValueError(
                    "a line begins with a marker, so Markdown takes it for HTML: put a word before"
                )
            return _inline(match["inline"], source)
        except (ValueError, OSError) as error:
            raise ValueError(f"{page.relative_to(paths.ROOT)}, line {line}: {error}") from error

    return MARKER.sub(replace, text)


def _block(text: str, page: Path, source: Source) -> str:
    name, _, what = text.partition(" ")
    written = _generator(name, BLOCKS)(source, what, page)
    return f"<!-- report: {text} -->\n\n{written}\n\n<!-- /report -->"


def _inline(text: str, source: Source) -> str:
    asked = re.fullmatch(r"(?P<name>\S+)\ ?(?P<what>.*?)(?:\ \{(?P<form>.*)\})?", text)
    if asked is None:
        raise ValueError(f"the marker {text!r} names nothing")
    written = _generator(asked["name"], INLINE)(source, asked["what"], asked["form"] or "")
    return f"<!--={text}-->{written}<!--/-->"


def _generator(name: str, known: Mapping[str, Callable[..., str]]) -> Callable[..., str]:
    if name not in known:
        raise ValueError(f"nothing generates {name!r}: use one of {', '.join(known)}")
    return known[name]

"""Queries and passages from docstrings: parsed with `ast`, never imported.

The first paragraph of a docstring is the query, the rest is its relevant passage.
data/README.md explains every filter and gives its count.
"""

import ast
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datasketch import MinHash
from tqdm.auto import tqdm

SIGNATURE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?$", re.DOTALL)
PERMUTATIONS = 64  # of a MinHash
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A Python file, its dotted module name, and the distribution that it is part of."""

    path: Path
    module: str
    distribution: str


@dataclass(frozen=True)
class Docstring:
    """One that passed the filters."""

    name: str  # of what it documents
    query: str
    passage: str
    distribution: str


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def query_and_passage(docstring: str) -> tuple[str, str] | str:
    """(query, passage) of one docstring, or the name of the filter that removes it."""
    docstring = docstring.encode("utf-8", "ignore").decode()  # a file holds no lone surrogate
    blocks = re.split(r"\n\s*\n", docstring.strip())
    paragraphs = [" ".join(block.split()) for block in blocks if block.strip()]
    if paragraphs and SIGNATURE.match(paragraphs[0]):
        paragraphs = paragraphs[1:]
    if len(paragraphs) < 2:
        return "one paragraph"
    query = paragraphs[0]
    passage = " ".join(paragraphs[1:])
    if not 4 <= len(words(query)) <= 40:
        return "query under 4 or over 40 words"
    if len(set(words(passage))) < 12:
        return "passage under 12 different words"
    if " ".join(words(query)) in " ".join(words(passage)):
        return "query stands in its passage"
    return query, passage


def extract(sources: Iterable[Source]) -> tuple[list[Docstring], Counter[str]]:
    """The docstrings that pass the filters, and how many each filter removed."""
    kept: list[Docstring] = []
    filtered: Counter[str] = Counter()
    for source in tqdm(sources, "reading docstrings", unit="file"):
        try:
            tree = ast.parse(source.path.read_bytes())
        except (SyntaxError, ValueError):
            filtered["file does not parse"] += 1
            continue
        for name, docstring in _docstrings(tree, source.module):
            pair = query_and_passage(docstring)
            if isinstance(pair, str):
                filtered[pair] += 1
            else:
                kept.append(Docstring(name, *pair, source.distribution))
    return kept, filtered


def sketch(passage: str) -> MinHash:
    """MinHash of the passage's 5-word shingles."""
    tokens = words(passage)
    starts = range(max(1, len(tokens) - 4))
    result = MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)
    result.update_batch({" ".join(tokens[i : i + 5]).encode() for i in starts})
    return result


def _docstrings(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of module, classes and functions, in the order of the file."""
    stack: list[tuple[ast.AST, str]] = [(tree, module)]
    while stack:
        node, name = stack.pop()
        if isinstance(node, Documented):
            text = ast.get_docstring(node)
            if text:
                yield name, text
        for child in reversed(list(ast.iter_child_nodes(node))):
            part = getattr(child, "name", None)
            stack.append((child, f"{name}.{part}" if part else name))

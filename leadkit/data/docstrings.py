"""Queries and passages from docstrings: parsed with `ast`, never imported.

The first paragraph of a docstring is the query, the rest is its relevant passage.
data/README.md explains every filter and gives its count.
"""

import ast
import multiprocessing
import os
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from datasketch import MinHash
from tqdm.auto import tqdm

SIGNATURE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?$", re.DOTALL)
PERMUTATIONS = 64  # of a MinHash
CHUNKS = 64  # the files are read in so many parts
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Docstring:
    """One that passed the filters. sketch: MinHash of the passage."""

    name: str
    query: str
    passage: str
    sketch: MinHash


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


def extract(files: list[tuple[str, str]]) -> tuple[list[Docstring], Counter[str]]:
    """The docstrings of (path, dotted module name) files, and how many each filter removed."""
    kept: list[Docstring] = []
    filtered: Counter[str] = Counter()
    for path, module in files:
        try:
            tree = ast.parse(Path(path).read_bytes())
        except (SyntaxError, ValueError):
            filtered["file does not parse"] += 1
            continue
        for name, docstring in _docstrings(tree, module):
            pair = query_and_passage(docstring)
            if isinstance(pair, str):
                filtered[pair] += 1
            else:
                query, passage = pair
                kept.append(Docstring(name, query, passage, _sketch(passage)))
    return kept, filtered


def extract_all(files: list[tuple[str, str]]) -> tuple[list[Docstring], Counter[str]]:
    """As `extract`, in several processes."""
    chunks = [files[i::CHUNKS] for i in range(CHUNKS)]
    kept: list[Docstring] = []
    filtered: Counter[str] = Counter()
    others = set(multiprocessing.active_children())
    try:
        with ProcessPoolExecutor(initializer=_end_with_parent) as pool:
            parts = pool.map(extract, chunks)
            for part, counts in tqdm(parts, "reading docstrings", CHUNKS, unit="chunk"):
                kept += part
                filtered += counts
    except RuntimeError as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        # ctrl-C before the pool had started: the pool cannot be shut down either.
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
            worker.join()
        raise error.__context__ from None
    return kept, filtered


def _end_with_parent() -> None:
    """In a worker: end as soon as the process that started it ends, which may have been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


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


def _sketch(passage: str) -> MinHash:
    """MinHash of the passage's 5-word shingles."""
    tokens = words(passage)
    starts = range(max(1, len(tokens) - 4))
    sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)
    sketch.update_batch({" ".join(tokens[i : i + 5]).encode() for i in starts})
    return sketch

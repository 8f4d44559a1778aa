"""Passages on disk: as many as the disk holds, none of them in memory.

A folder in BEIR layout has three memory-mapped arrays beside corpus.jsonl, for P passages:
ids.npy (P,), the passage ids in the order of the lines; order.npy (P,), the rows sorted by id;
starts.npy (P,), the byte at which each line starts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from pathlib import Path

import numpy as np

CHUNK = 65_536  # ids that are Python strings while a corpus is written
LONGEST_ID = 1000  # characters; every id of an array has the room of the longest


def check_id(key: object, where: str) -> None:
    """ValueError, which begins with `where`, for an id that no line of qrels or a run can hold."""
    text = key if isinstance(key, str) else ""
    if 0 < len(text) <= LONGEST_ID and text.isprintable() and text == text.strip():
        return
    raise ValueError(
        f"{where}: _id {key!r:.80} must be a non-empty string without control characters, tabs, or "
        f"blanks at its ends, of at most {LONGEST_ID:,} characters"
    )


class Rows(Mapping[str, int]):
    """Passage id -> row, by binary search."""

    def __init__(self, ids: np.ndarray, order: np.ndarray):
        self.ids = ids
        self.order = order

    def __getitem__(self, pid: str) -> int:
        position = np.searchsorted(self.ids, pid, sorter=self.order)
        if position == len(self.ids):
            raise KeyError(pid)
        row = self.order[position]
        if self.ids[row] != pid:
            raise KeyError(pid)
        return int(row)

    def __iter__(self) -> Iterator[str]:
        return map(str, self.ids)

    def __len__(self) -> int:
        return len(self.ids)


class Passages(Mapping[str, str]):
    """Passage id -> text, read from corpus.jsonl when asked.

    digest: the SHA-256 of corpus.jsonl, which names the content.
    """

    def __init__(self, folder: Path, digest: str):
        self.path = folder / "corpus.jsonl"
        self.digest = digest
        self.starts = np.load(folder / "starts.npy", mmap_mode="r")
        ids = np.load(folder / "ids.npy", mmap_mode="r")
        order = np.load(folder / "order.npy", mmap_mode="r")
        self.rows = Rows(ids, order)

    def __getitem__(self, pid: str) -> str:
        with open(self.path, "rb") as lines:
            lines.seek(self.starts[self.rows[pid]])
            return _text(lines.readline())

    def __contains__(self, pid: object) -> bool:
        return pid in self.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def values(self) -> ValuesView[str]:
        return _Texts(self)


class _Texts(ValuesView[str]):
    """The texts in the order of their rows, read from end to end, one line in memory at a time."""

    _mapping: Passages

    def __iter__(self) -> Iterator[str]:
        with open(self._mapping.path, "rb") as lines:
            yield from map(_text, lines)


def _text(line: bytes) -> str:
    return json.loads(line)["text"]


def write_passages(folder: Path, passages: Iterable[tuple[str, str]], name: str) -> int:
    """Write the (id, text) of each passage, once where it comes again word for word.

    Returns the number of passages that came again. ValueError, which begins with `name`: an id is
    not valid or comes with another text, a text is not Unicode, or there is no passage.
    """
    corpus = folder / "corpus.jsonl"
    ids, starts = _write_corpus(corpus, passages, name)
    order = np.argsort(ids, kind="stable")  # (P,)
    ordered = ids[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    if len(repeats):
        _check_repeats(corpus, ids, starts, order, repeats, name)
        kept = np.ones(len(ids), bool)  # (P,)
        kept[order[repeats]] = False
        starts = _keep_lines(corpus, kept)
        ids = ids[kept]
        order = np.argsort(ids, kind="stable")
    _save(folder / "ids.npy", ids)
    _save(folder / "order.npy", order)
    _save(folder / "starts.npy", starts)
    return len(repeats)


def _check_repeats(
    corpus: Path,
    ids: np.ndarray,
    starts: np.ndarray,
    order: np.ndarray,
    repeats: np.ndarray,
    name: str,
) -> None:
    """ValueError where a passage that comes again has another text."""
    with open(corpus, "rb") as lines:

        def line(row: int) -> bytes:
            lines.seek(starts[row])
            return lines.readline()

        for position in repeats:
            row = order[position]
            if line(row) != line(order[position - 1]):
                raise ValueError(
                    f"{name}: passage id {str(ids[row])!r} stands there a second time; ids must "
                    "be unique, but for passages that say the same"
                )


def _keep_lines(corpus: Path, kept: np.ndarray) -> np.ndarray:
    """Leave only these lines in a file; return the byte at which each starts."""
    shorter = corpus.with_suffix(".shorter")
    sizes = []
    with open(corpus, "rb") as lines, open(shorter, "wb") as out:
        for line, is_kept in zip(lines, kept, strict=True):
            if is_kept:
                sizes.append(out.write(line))
    shorter.replace(corpus)
    return np.cumsum(sizes) - sizes


def _write_corpus(
    path: Path, passages: Iterable[tuple[str, str]], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Write a line for each passage; return the ids and the byte where each line starts."""
    ids: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    chunk: list[str] = []
    bytes_of_lines: list[int] = []

    def flush() -> None:
        ids.append(np.array(chunk))
        lengths.append(np.array(bytes_of_lines, np.int64))
        chunk.clear()
        bytes_of_lines.clear()

    with open(path, "wb") as out:
        for pid, text in passages:
            check_id(pid, name)
            chunk.append(pid)
            bytes_of_lines.append(out.write(_line(pid, text, name)))
            if len(chunk) == CHUNK:
                flush()
    if chunk:
        flush()
    if not ids:
        raise ValueError(f"{name} holds no passage; at least one is needed")
    sizes = np.concatenate(lengths)  # (P,)
    starts = np.cumsum(sizes) - sizes  # (P,)
    return np.concatenate(ids), starts


def _line(pid: str, text: str, name: str) -> bytes:
    try:
        return json.dumps({"_id": pid, "text": text}, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: the text of {pid!r} cannot be written in UTF-8 ({error.reason})"
        ) from None


def _save(path: Path, array: np.ndarray) -> None:
    """Write as np.save, which does not notice a disk that is full by the last few KB only."""
    with open(path, "wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(array))
        out.write(array.data)

"""Passages on disk: as many as the disk holds, none of them in memory.

A folder in BEIR layout with three memory-mapped arrays beside corpus.jsonl: ids.npy (P,), the passage ids in the order of the
lines; order.npy (P,), the rows in the order of the ids; starts.npy (P,), the byte where each line starts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from pathlib import Path

import numpy as np

FLUSH = 65_536  # ids that are Python strings while a corpus is written
LONGEST_ID = 1000  # characters; every id of an array has the room of the longest


def check_id(key: object, where: str) -> None:
    """ValueError, which begins with `where`, for what cannot be an id: it must stand in a line of qrels or of a run."""
    if (
        not isinstance(key, str)
        or not key.isprintable()
        or " " in key
        or not 0 < len(key) <= LONGEST_ID
    ):
        raise ValueError(
            f"{where}: _id {key!r:.80} must be a non-empty string without white space or control characters, of at "
            f"most {LONGEST_ID:,} characters"
        )


class Rows(Mapping[str, int]):
    """Passage id -> row, by binary search."""

    def __init__(self, ids: np.ndarray, order: np.ndarray):
        self.ids, self.order = ids, order

    def __getitem__(self, pid: str) -> int:
        at = np.searchsorted(self.ids, pid, sorter=self.order)
        if at == len(self.ids) or self.ids[row := self.order[at]] != pid:
            raise KeyError(pid)
        return int(row)

    def __iter__(self) -> Iterator[str]:
        return map(str, self.ids)

    def __len__(self) -> int:
        return len(self.ids)


class Passages(Mapping[str, str]):
    """Passage id -> text, read from corpus.jsonl when asked; `values()` reads it from end to end.

    digest: what names the content, the SHA-256 of corpus.jsonl.
    """

    def __init__(self, folder: Path, digest: str):
        self.path, self.digest = folder / "corpus.jsonl", digest
        ids, order, self.starts = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "order", "starts")
        )
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
    """The texts in the order of their rows, one line in memory at a time."""

    _mapping: Passages

    def __iter__(self) -> Iterator[str]:
        with open(self._mapping.path, "rb") as lines:
            yield from map(_text, lines)


def _text(line: bytes) -> str:
    return json.loads(line)["text"]


def write_passages(folder: Path, passages: Iterable[tuple[str, str]], name: str) -> None:
    """Write (id, text) of each passage.

    ValueError, which begins with `name`: an id that cannot be one or comes twice, a text that is no Unicode, no passage at all.
    """
    starts, parts, chunk = [np.zeros(1, np.int64)], [], []
    lengths: list[int] = []

    def flush() -> None:
        parts.append(np.array(chunk))
        starts.append(starts[-1][-1] + np.cumsum(lengths, dtype=np.int64))
        chunk.clear()
        lengths.clear()

    with open(folder / "corpus.jsonl", "wb") as out:
        for pid, text in passages:
            check_id(pid, name)
            try:
                line = json.dumps({"_id": pid, "text": text}, ensure_ascii=False).encode() + b"\n"
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{name}: the text of {pid!r} cannot be written in UTF-8 ({error.reason})"
                ) from None
            chunk.append(pid)
            lengths.append(out.write(line))
            if len(chunk) == FLUSH:
                flush()
    if chunk:
        flush()
    if not parts:
        raise ValueError(f"{name} holds no passage; at least one is needed")
    ids = np.concatenate(parts)  # (P,)
    parts.clear()
    order = np.argsort(ids, kind="stable")  # (P,)
    ordered = ids[order]
    if len(twice := ordered[1:][ordered[1:] == ordered[:-1]]):
        raise ValueError(
            f"{name}: passage id {str(twice[0])!r} stands there a second time; ids must be unique"
        )
    for file, array in (("ids", ids), ("order", order), ("starts", np.concatenate(starts)[:-1])):
        _save(folder / f"{file}.npy", array)


def _save(path: Path, array: np.ndarray) -> None:
    """As np.save, which does not notice that a disk is full when only the last few KB do not fit."""
    with open(path, "wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(array))
        out.write(array)

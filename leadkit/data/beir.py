"""Reads folders in BEIR layout: corpus.jsonl[.gz], queries.jsonl[.gz], qrels/SPLIT.tsv.

Every line is checked. Errors name the file, the line and the field.
"""

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from leadkit.data.passages import check_id

LONGEST = 2**26  # characters of a line; a small .gz file may hold one that fills the memory
HIGHEST = 1000  # grade; trec_eval's table has that length, and it counts wrongly beyond an int


def read_texts(folder: Path, stem: str) -> dict[str, str]:
    """Id -> title and text of a jsonl file. ValueError where a line is malformed."""
    path = _existing(folder, stem)
    texts: dict[str, str] = {}
    for where, line in _lines(path):
        key, text = _text_of(line, where)
        check_id(key, where)
        if not text:
            raise ValueError(f"{where}: {key!r} has an empty text")
        if key in texts:
            raise ValueError(f"{where}: _id {key!r} stands there a second time; ids must be unique")
        texts[key] = text
    if not texts:
        raise ValueError(f"{path} holds no line; at least one is needed")
    return texts


def _text_of(line: str, where: str) -> tuple[str, str]:
    """The id, not yet checked, and title and text of a line."""
    try:
        row = json.loads(line)
        key = row["_id"]
        title = row.get("title")
        text = " ".join(("" if title is None else title, row["text"])).strip()
        text.encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{where}: not a JSON object in UTF-8 with the string fields _id and text "
            f"({error!r:.200})"
        ) from None
    return key, text


def read_qrels(
    path: Path, passages: Mapping[str, str], queries: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """Query id -> passage id -> grade of a tab-separated file.

    ValueError where a line is malformed, or names a query or passage that is not given.
    """
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for where, line in _lines(path):
        if where.endswith(", line 1") and line.lower().split()[:2] == ["query-id", "corpus-id"]:
            continue
        qid, pid, grade = _judgement_of(line, where)
        if qid not in queries:
            raise ValueError(f"{where}: query-id {qid!r:.80} is not in queries.jsonl")
        if pid not in passages:
            raise ValueError(f"{where}: corpus-id {pid!r:.80} is not in corpus.jsonl")
        earlier = qrels[qid].setdefault(pid, grade)
        if earlier != grade:
            raise ValueError(
                f"{where}: query-id {qid!r} and corpus-id {pid!r} stand there a second time, with "
                f"score {grade} after {earlier}"
            )
    if not qrels:
        raise ValueError(f"{path} holds no judgement; at least one is needed")
    return dict(qrels)


def _judgement_of(line: str, where: str) -> tuple[str, str, int]:
    """Query id, passage id and grade of a line."""
    try:
        qid, pid, score = line.split("\t")
        grade = int(score.replace("_", "?"))  # int("1_0") is 10
    except ValueError:
        raise ValueError(
            f"{where}: {line[:80]!r} is not 'query-id TAB corpus-id TAB integer score'"
        ) from None
    if abs(grade) > HIGHEST:
        raise ValueError(
            f"{where}: score {score.strip():.80} is not from -{HIGHEST:,} to {HIGHEST:,}"
        )
    return qid, pid, grade


def _existing(folder: Path, stem: str) -> Path:
    for path in (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"collection folder {folder} has no {stem}.jsonl or {stem}.jsonl.gz")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """("PATH, line NUMBER", line) of each line that is not blank.

    Bytes that are not UTF-8 become lone surrogates. ValueError for a line of LONGEST characters.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = iter(partial(file.readline, LONGEST), "")
            for number, line in enumerate(lines, start=1):
                where = f"{path}, line {number}"
                if len(line) == LONGEST:
                    raise ValueError(
                        f"{where}: it has {LONGEST:,} characters or more; a line is one text"
                    )
                if line.strip():
                    yield where, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error})") from None

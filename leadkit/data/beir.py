"""Reads folders in BEIR layout: corpus.jsonl[.gz], queries.jsonl[.gz], qrels/SPLIT.tsv.

Judgements may also be in TREC form (four columns) or JSON lines, and stand beside the corpus, as on
the Hugging Face hub. Every line is checked. Errors name the file, the line and the field. Rows that
public collections have wrong do not stop the reading: they are counted in `notes`.
"""

import gzip
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from leadkit.data.passages import check_id
from leadkit.files import visible

LONGEST = 2**26  # characters of a line; a small .gz file may hold one that fills the memory
ITERATIONS = ("0", "Q0", "1")  # the second of TREC's four columns; it says nothing
HIGHEST = 1000  # grade; trec_eval's table has that length, and it counts wrongly beyond an int

# What is counted in notes
EMPTY_PASSAGES = "passages without text (kept)"
EMPTY_QUERIES = "queries without text (left out)"
REPEATED = "lines that stand there twice, word for word (read once)"
MISSING_PASSAGES = "judged passages that are missing (kept: nothing can find them)"
MISSING_QUERIES = "judgements of missing queries (left out)"
NOTHING_RELEVANT = "queries without a relevant passage (left out)"


def read_texts(folder: Path, stem: str, notes: Counter[str]) -> dict[str, str]:
    """Id -> title and text of a jsonl file. ValueError where a line is malformed."""
    path = _existing(folder, stem)
    texts: dict[str, str] = {}
    for where, line in _lines(path):
        key, text = _text_of(line, where)
        check_id(key, where)
        if key in texts:
            if texts[key] != text:
                raise ValueError(
                    f"{where}: _id {key!r} stands there a second time; ids must be unique, but "
                    "for lines that say the same"
                )
            notes[REPEATED] += 1
        elif not text and stem == "corpus":
            notes[EMPTY_PASSAGES] += 1
        texts[key] = text
    if not any(texts.values()):
        raise ValueError(f"{path} holds no line with a text; at least one is needed")
    if stem == "queries":
        empty = [key for key, text in texts.items() if not text]
        notes[EMPTY_QUERIES] += len(empty)
        for key in empty:
            del texts[key]
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
    return (str(key) if type(key) is int else key), text


def judgement_files(folder: Path) -> dict[str, Path]:
    """Split -> its file of judgements.

    FileNotFoundError where there is none, ValueError where a split has two.
    """
    beside = visible(folder, "*.tsv")
    inside = [*visible(folder / "qrels", "*.tsv"), *visible(folder / "qrels", "*.jsonl")]
    files: dict[str, Path] = {}
    for path in sorted(inside or beside):
        other = files.setdefault(path.stem, path)
        if other != path:
            raise ValueError(f"{other} and {path} are both of split {path.stem!r}: remove one")
    if not files:
        raise FileNotFoundError(f"collection folder {folder} has no qrels/*.tsv")
    return files


def read_qrels(
    path: Path, passages: Mapping[str, str], queries: Mapping[str, str], notes: Counter[str]
) -> dict[str, dict[str, int]]:
    """Query id -> passage id -> grade of a file of judgements; its queries have a relevant passage.

    ValueError where a line is malformed, or no judgement names a query and a passage that exist.
    """
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    missing: dict[str, str] = {}  # passage id -> the first line that names it
    unknown = ""
    for where, line in _lines(path):
        if where.endswith(", line 1") and line.lower().split()[:2] == ["query-id", "corpus-id"]:
            continue
        qid, pid, grade = _judgement_of(line, where, path.suffix == ".jsonl")
        if qid not in queries:
            notes[MISSING_QUERIES] += 1
            unknown = unknown or f"{where}: query-id {qid!r:.80} is not in queries.jsonl"
            continue
        if pid not in passages:
            check_id(pid, where)
            missing.setdefault(pid, f"{where}: corpus-id {pid!r:.80} is not in corpus.jsonl")
        if pid in judged[qid]:
            notes[REPEATED] += 1
        earlier = judged[qid].setdefault(pid, grade)
        if earlier != grade:
            raise ValueError(
                f"{where}: query-id {qid!r} and corpus-id {pid!r} stand there a second time, with "
                f"score {grade} after {earlier}"
            )
    qrels = {qid: grades for qid, grades in judged.items() if max(grades.values()) > 0}
    notes[MISSING_PASSAGES] += len(missing)
    notes[NOTHING_RELEVANT] += len(judged) - len(qrels)
    first = unknown or next(iter(missing.values()), "")
    if first and all(pid in missing for grades in qrels.values() for pid in grades):
        raise ValueError(f"{first}; nor is any other judgement of a query and a passage that exist")
    if not qrels:
        raise ValueError(f"{path} holds no judgement of a relevant passage; at least one is needed")
    return qrels


def _judgement_of(line: str, where: str, is_json: bool) -> tuple[str, str, int]:
    """Query id, passage id and grade of a line."""
    try:
        if is_json:
            row = json.loads(line)
            columns = [str(row[field]) for field in ("query-id", "corpus-id", "score")]
        else:
            columns = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
            if len(columns) == 4 and columns[1] in ITERATIONS:
                del columns[1]
            elif "\t" not in line:
                raise ValueError
        qid, pid, score = columns
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{where}: {line[:80]!r} is not 'query-id TAB corpus-id TAB integer score'"
        ) from None
    return qid, pid, _grade(score.strip(), where)


def _grade(score: str, where: str) -> int:
    whole = re.fullmatch(r"([+-]?[0-9]+)(\.0*)?", score)  # pandas writes 1.0
    if not whole:
        raise ValueError(f"{where}: score {score!r:.80} is not a whole number")
    if len(whole[1]) > 9 or abs(int(whole[1])) > HIGHEST:
        raise ValueError(f"{where}: score {score:.80} is not from -{HIGHEST:,} to {HIGHEST:,}")
    return int(whole[1])


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

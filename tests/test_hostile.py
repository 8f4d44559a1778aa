"""Hostile input is read right or refused in one sentence; it never runs, it writes nowhere.

`make test` tries each property 100 times, this 2,000 times:
python -m pytest tests/test_hostile.py -k fuzz --hypothesis-profile fuzz
"""

import ast
import builtins
import gzip
import html
import io
import json
import pickle
import re
import shutil
import tarfile
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import ir_datasets
import lz4.block
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ir_datasets.formats import TsvDocs
from ir_datasets.indices import lz4_pickle
from ir_datasets.util import Download, RelativePath, TarExtractAll
from markdown_it import MarkdownIt
from toy_irds import register
from toys import data, encoder, isolate, scale, toy, write_beir
from transformers import BertModel

from leadkit import cards, export, paths
from leadkit.data import beir, irds
from leadkit.data.collections import load
from leadkit.data.passages import Passages, write_passages
from leadkit.experiments import evaluation, store, sweep, texts, workers
from leadkit.lessons import reproduce
from leadkit.models import encoders
from leadkit.models.retrievers import build
from leadkit.models.tower import Tower
from leadkit.results import records
from leadkit.results.tables import main_rows
from leadkit.retrieval.measures import per_query
from leadkit.retrieval.runs import Run

ROOT = Path(__file__).parent.parent
SCRIPT = "<script>alert('passage')</script><img src=x onerror=alert(1)>"
TRAVERSAL = (
    "../../escaped",
    "/etc/passwd",
    "..",
    "C:\\escaped",
    "~root",
    "-rf",
    "$(id)",
    "a/../../b",
)


def refused(load, *arguments) -> str:
    """The sentence of the error. A fault of the program (KeyError, ...) fails the test."""
    with pytest.raises((ValueError, OSError)) as caught:
        load(*arguments)
    sentence = " ".join(str(caught.value).split())
    assert (
        type(caught.value) in (ValueError, OSError, FileNotFoundError) and 10 < len(sentence) < 1000
    )
    return sentence


# --- the source


def dangers(source: str) -> list[str]:
    """What would run something from a file: unpickling, code from text or a model's folder."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += sorted(
                {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
                & {n.split(".")[0] for n in names}
            )
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in (
                "eval",
                "exec",
                "compile",
                "__import__",
                "torch.load",
                "os.system",
                "yaml.load",
                "pd.read_pickle",
            ):
                found.append(called)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            found += [
                name
                for name in ("allow_pickle", "trust_remote_code", "shell")
                if given.get(name, "False") != "False"
            ]
            if (
                re.match(r"Auto\w+\.from_pretrained", called)
                and given.get("trust_remote_code") != "False"
            ):
                found.append(f"{called} asks whether to trust")
            if called == "AutoModel.from_pretrained" and given.get("use_safetensors") != "True":
                found.append(f"{called} may unpickle")
    return found


def test_the_project_runs_nothing_that_it_reads(subtests):
    files = [*(ROOT / "leadkit").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    assert len(files) > 60
    for path in files:
        source, found = path.read_text(), dangers(path.read_text())
        if path.name == "irds.py":  # a reader of plain values in the place of ir_datasets' own
            found.remove("pickle")
        if path.name == "grading.py":  # runs students' code, as its command says
            found = [each for each in found if each not in ("eval", "compile")]
        if path.parent.name == "bench":  # loads the shipped encoders alone
            found = [each for each in found if not each.startswith("AutoModel.from_pretrained")]
        with subtests.test(path.name):
            assert found == []
            assert not re.search(r"pickle\.loads?\(", source)


def test_the_search_for_dangers_finds_them(subtests):
    for line in [
        "import pickle",
        "from joblib import load",
        "import torch; torch.load(f)",
        "import numpy as np; np.load(f, allow_pickle=True)",
        "eval(t)",
        "exec(t)",
        "AutoModel.from_pretrained(f, trust_remote_code=trust, use_safetensors=True)",
        "AutoConfig.from_pretrained(f)",
        "AutoModel.from_pretrained(f, trust_remote_code=False)",
        "subprocess.run(c, shell=True)",
        "import yaml; yaml.load(f)",
    ]:
        with subtests.test(line):
            assert dangers(line)


# --- encoders


class Bomb:
    """Pickled; leaves a file behind wherever it is unpickled."""

    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self):
        return Path.touch, (self.flag,)


@pytest.fixture
def bert(tmp_path, monkeypatch) -> Path:
    """An encoder's folder. Nobody is asked whether to trust it."""
    monkeypatch.setattr(builtins, "input", lambda prompt="": pytest.fail(f"asked: {prompt}"))
    return Path(encoder(tmp_path / "bert", "bert", 2))


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def read_encoder(folder: Path):
    encoders.check(str(folder))
    return encoders.load_encoder(str(folder), 0.0)


def test_pickled_weights_are_never_read(bert, tmp_path):
    flag = tmp_path / "exploded"
    torch.save(
        BertModel.from_pretrained(bert).state_dict() | {"bomb": Bomb(flag)},
        bert / "pytorch_model.bin",
    )
    read_encoder(bert)  # beside safetensors it is not looked at
    (bert / "model.safetensors").unlink()
    for read in (read_encoder, lambda folder: encoders.load_encoder(str(folder), 0.0)):
        assert (
            "holds no weights (*.safetensors); others, pytorch_model.bin for one, are pickled"
            in refused(read, bert)
        )
    assert not flag.exists()
    torch.load(bert / "pytorch_model.bin", weights_only=False)
    assert flag.exists()  # the bomb was alive


EVIL = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
OWN_CODE = "asks for code of its own (auto_map), which is never run here"


CONFIGURATIONS = [
    ({"auto_map": EVIL}, None),  # ignored: transformers has a BERT
    ({"model_type": "evil", "auto_map": EVIL}, OWN_CODE),
    ({"model_type": "evil", "auto_map": {"AutoConfig": "who/ever--evil.Evil"}}, OWN_CODE),
    ({"model_type": "evil"}, "its tokeniser or config.json cannot be read"),
    ({"attn_implementation": "who/ever"}, None),  # a kernel of the hub: the default in its place
    ({"_attn_implementation": "who/ever"}, None),
    ({"quantization_config": {"quant_method": "awq"}}, "asks for what there is not"),
    ({"hidden_act": "__import__('os').abort()"}, "asks for what there is not"),
    ({"dtype": "load"}, ""),
    ({"num_hidden_layers": -1}, "its config.json says -1 layers; at least one is needed"),
    ({"num_hidden_layers": "2"}, "its tokeniser or config.json cannot be read"),
    ({"hidden_size": 10**12}, "its weights are damaged or of another shape"),
]
TOKENISERS = [
    ({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}, None)
]


def test_configurations_run_no_code(bert, tmp_path, subtests):
    evil = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Evil: pass\n"
    (bert / "evil.py").write_text(evil)
    files = {"config.json": CONFIGURATIONS, "tokenizer_config.json": TOKENISERS}
    for file, cases in files.items():
        before = (bert / file).read_text()
        for fields, message in cases:
            edit(bert / file, **fields)
            with subtests.test(fields):
                if message is None:
                    usual = read_encoder(bert).config._attn_implementation
                    assert usual in ("sdpa", "eager")
                else:
                    assert message in refused(read_encoder, bert)
                assert not (tmp_path / "ran").exists()
            (bert / file).write_text(before)


def test_files_of_an_encoder_that_are_no_json_objects(bert, subtests):
    for file in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        before = (bert / file).read_text()
        for content in ("", "[]", "7", '{"model_type": ["bert"]}', "[" * 100_000, "\ufeff{}", "\0"):
            (bert / file).write_text(content)
            with subtests.test(file, content=content[:30]):
                if file == "tokenizer_config.json" and content.startswith("{"):
                    read_encoder(bert)  # nothing in it is needed
                else:
                    assert str(bert) in refused(read_encoder, bert)
        (bert / file).write_text(before)


def test_weights_lie_in_the_folder(bert, tmp_path, subtests):
    shutil.copytree(bert, tmp_path / "other")
    (bert / "model.safetensors").rename(bert / "model-00001-of-00001.safetensors")
    index = bert / "model.safetensors.index.json"
    elsewhere = ("../other/model.safetensors", "/etc/passwd", "missing.safetensors")
    for parts in (*elsewhere, 7, ["model.safetensors"], None):
        weights = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": parts}}
        index.write_text(json.dumps(weights))
        with subtests.test(parts):
            assert index.name in refused(read_encoder, bert)


# --- collections: read right


def write_lines(
    folder: Path, corpus: list[str], queries: list[str], qrels: list[str], **how: object
) -> str:
    """A folder in BEIR layout of these lines; its name for `load`."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "qrels").mkdir(parents=True)
    for name, lines in (
        ("corpus.jsonl", corpus),
        ("queries.jsonl", queries),
        ("qrels/test.tsv", qrels),
    ):
        write_file(folder / name, lines, **how)
    return f"beir:{folder}"


def write_file(
    path: Path,
    lines: list[str],
    end: str = "\n",
    mark: bool = False,
    last: bool = True,
    compressed: bool = False,
) -> None:
    content = (end.join(lines) + end * last).encode("utf-8", "surrogateescape")
    content = b"\xef\xbb\xbf" * mark + content
    if compressed and path.suffix == ".jsonl":
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 1))
    else:
        path.write_bytes(content)


TEXTS = {
    "right to left": "שלום العالم \u202eabc\u202c",
    "astral": "𝔘𝔫𝔦 🤷🏽‍♀️ \U0010ffff",
    "NUL": "before\0after",
    "lines": "one\ntwo\r\nthree\u2028four\x85five",
    "combining": "e\u0301" + "\u0301" * 500,
    "markup": SCRIPT,
    "huge": "word " * 2_000_000,
}


def test_texts_of_all_kinds_stay_as_they_are(tmp_path, subtests):
    for kind, escaped in product(TEXTS, [True, False]):
        with subtests.test(kind, escaped=escaped):
            line = json.dumps(
                {
                    "_id": "a",
                    "text": TEXTS[kind],
                    "metadata": {"depth": [[[{}]]], "nan": float("nan")},
                },
                ensure_ascii=escaped,
            )
            name = write_lines(tmp_path / "beir", [line], [line], ["a\ta\t1"])
            assert load(name).passages == load(name).queries == {"a": TEXTS[kind].strip()}


def test_hostile_texts_go_through_a_whole_evaluation(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    passages = {f"p{i}": text[:5000] for i, text in enumerate(TEXTS.values())}
    name = write_beir(
        tmp_path / "toy",
        passages,
        {f"q{i}": text for i, text in enumerate(passages.values())},
        {"test": {f"q{i}": {f"p{i}": 1} for i in range(len(passages))}},
    )
    texts.collection.cache_clear()
    record = evaluation.Evaluate(data(name), None, "test", 5).record()
    assert record["measures"]["R@100"] == 1
    tokens = texts.passages_of(Tower("DE", "random:1x32"), data(name))
    assert len(tokens) == len(passages) and min(tokens.lengths) > 2


def test_ids_like_paths_are_ids(tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    isolate(monkeypatch, inside)
    ids = dict.fromkeys((*TRAVERSAL, "../" * 20 + "x", "שלום", "🤷"), "some words")
    name = write_beir(inside / "toy", ids, ids, {"test": {pid: {pid: 1} for pid in ids}})
    found = load(name)
    assert list(found.passages) == list(found.queries) == list(found.qrels["test"]) == list(ids)
    texts.collection.cache_clear()
    stage = evaluation.Evaluate(data(name), None, "test", 5)
    stage.ranking().write_trec(inside / "run.trec", list(ids), list(ids), "tag")
    lines = (inside / "run.trec").read_text().splitlines()
    assert all(len(line.split()) == 6 for line in lines) and {
        line.split()[0] for line in lines
    } == set(ids)
    assert list(tmp_path.iterdir()) == [inside]
    assert {path.name for path in inside.iterdir()} == {"toy", "runs", "run.trec"}


def test_grades_below_zero_count_as_not_relevant(tmp_path):
    texts = {f"p{i}": f"text {i}" for i in range(4)}
    run = Run(np.array([[3, 2, 1, 0]]), np.array([[4.0, 3.0, 2.0, 1.0]]))
    values = []
    for bad in (0, -1, -1000):
        name = write_beir(
            tmp_path / str(bad),
            texts,
            {"q": "text"},
            {"test": {"q": {"p0": 2, "p2": 1, "p3": bad}}},
        )
        values.append(per_query(run, load(name), "test"))
    assert values[0]["RR@10"] == 0.5 and 0 < values[0]["nDCG@10"] < 1
    assert values[0] == values[1] == values[2]


def test_a_header_is_a_header_and_a_query_a_query(tmp_path, subtests):
    for header, kept in [
        (["query-id\tcorpus-id\tscore"], 1),
        (["Query-ID\tCorpus-ID\tScore"], 1),
        (["query-id corpus-id score"], 1),
        ([], 1),
        (["query-id-7\tp\t1"], 2),
        (["", "  "], 1),
    ]:
        with subtests.test(header):
            line = ['{"_id": "query-id-7", "text": "x"}', '{"_id": "q", "text": "x"}']
            name = write_lines(
                tmp_path / "beir",
                ['{"_id": "p", "text": "x"}'],
                line,
                [*header, "q\tp\t1", "q\tp\t1"],
            )
            assert len(load(name).qrels["test"]) == kept and load(name).qrels["test"]["q"] == {
                "p": 1
            }


# --- collections: refused

GOOD = {
    "corpus.jsonl": ['{"_id": "p1", "text": "one"}', '{"_id": "p2", "text": "two"}'],
    "queries.jsonl": ['{"_id": "q1", "text": "one"}', '{"_id": "q2", "text": "two"}'],
    "qrels/test.tsv": ["q1\tp1\t1", "q2\tp2\t-1"],
}
NO_OBJECT, NO_ID = "not a JSON object in UTF-8", "must be a non-empty string without control"
NO_ROW = "is not 'query-id TAB corpus-id TAB integer score'"
DEEP, LONG = "[" * 200_000, "long" * 1000
BAD_TEXTS = [
    (line, NO_OBJECT)
    for line in (
        DEEP,
        '{"_id": "x", "text": "y", "z": ' + DEEP,
        "\0",
        "{}",
        '"x"',
        "null",
        '{"_id": "x", "text": {"text": "y"}}',
        '{"_id": "x", "text": ["y"]}',
        '{"_id": "x", "text": 7}',
        '{"_id": "x", "text": "y", "title": 7}',
        '{"_id": "x", "text": "y", "title": 0}',
        '{"_id": "x", "text": "y", "title": []}',
        '{"_id": "x", "text": "\\udc80"}',
        '{"_id": "x", "text": "\udc80"}',
        '{"_id": "x", "title": "\\ud83d", "text": "\\ude00"}',
        '{"_id": "x", "text": ' + "9" * 5000 + "}",
        f'{{"_id": "x", "text": "{LONG}\\ud800"}}',
    )
]
BAD_TEXTS += [
    (f'{{"_id": {key}, "text": "y"}}', NO_ID)
    for key in (
        '"\\ud800"',
        '"\udc80"',
        '""',
        "7.0",
        "true",
        "null",
        '{"a": 1}',
        '"a\\u0000"',
        '"a\\tb"',
        '"a\\u202eb"',
        '"a\\u00a0b"',
        f'"{LONG}"',
    )
]
BAD_QRELS = [
    (line, NO_ROW)
    for line in (
        "q1\tp1",
        "q1",
        "q1 p1 1",
        "q1\tp1\t1\t",
        "q1\tp2\tp1\t1",
        "\0",
    )
]
BAD_QRELS += [
    (f"q1\tp1\t{grade}", f"score {grade!r} is not a whole number")
    for grade in ("", "1.5", "NaN", "1e3", "1_0", "0x1", "score", "\u0661")
]
BAD_QRELS += [
    ("q1\tp1\t1001", "score 1001 is not from -1,000 to 1,000"),
    ("q1\tp1\t-2147483648", "score -2147483648 is not from"),
    ("q1\tp1\t" + "9" * 5000, "99 is not from -1,000 to 1,000"),
    ("q1\t\udc80\t1", NO_ID),
    (f"q1\t{LONG}\t1", NO_ID),
    (
        "q1\tp1\t0",
        "query-id 'q1' and corpus-id 'p1' stand there a second time, with score 0 after 1",
    ),
]
BAD = [(file, *bad) for file in ("corpus.jsonl", "queries.jsonl") for bad in BAD_TEXTS]
BAD += [("qrels/test.tsv", *bad) for bad in BAD_QRELS]


def test_a_hostile_line_is_named(tmp_path, subtests):
    for file, line, message in BAD:
        with subtests.test(f"{file} {line:.60}".encode("ascii", "replace")):
            name = write_lines(
                tmp_path / "beir", *(lines + [line] * (key == file) for key, lines in GOOD.items())
            )
            sentence = refused(load, name)
            assert (
                sentence.startswith(f"{tmp_path / 'beir' / file}, line 3: ") and message in sentence
            )
            sentence.encode()  # it can be printed


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch, subtests):
    for file, compressed in product(GOOD, (False, True)):
        monkeypatch.setattr(beir, "LONGEST", 1000)
        lines = {key: part + ["x" * 5000] * (key == file) for key, part in GOOD.items()}
        name = write_lines(tmp_path / "beir", *lines.values(), compressed=compressed)
        with subtests.test(file, compressed=compressed):
            sentence = refused(load, name)
            assert sentence.endswith(
                ", line 3: it has 1,000 characters or more; a line is one text"
            )
    monkeypatch.setattr(beir, "LONGEST", 100)
    assert len(load(write_lines(tmp_path / "beir", *GOOD.values())).passages) == 2


def test_a_file_of_something_else(tmp_path, subtests):
    for file, (content, message) in product(
        GOOD,
        [
            (b"", "holds no line|holds no judgement"),
            (b"\n \r\n\t\n", "holds no line|holds no judgement"),
            (b"query-id\tcorpus-id\tscore\n", "holds no|not a JSON"),
            ("{}".encode("utf-16"), "line 1: "),
            (b"\x1f\x8b\x08\0", "line 1: "),
            (bytes(range(256)), "line [123]: "),
            (b"\xff" * 1000, "line 1: "),
        ],
    ):
        with subtests.test(file, content=content):
            name = write_lines(tmp_path / "beir", *GOOD.values())
            (tmp_path / "beir" / file).write_bytes(content)
            assert re.search(rf"{file}.* ?({message})", refused(load, name))


def test_names_of_collections(tmp_path, monkeypatch, subtests):
    for name in [
        "beir:~nobody-of-this-name/x",
        "beir:a\0b",
        "beir:\ud800",
        "beir:" + "x/" * 5000,
        "irds:../../x",
        "irds:\0",
        "irds:",
        "irds:/etc/passwd",
        "irds:beir/../beir/nq",
        "../python-docs",
        "python-docs/..",
        "\ud800",
        "x" * 10**6,
    ]:
        with subtests.test(ascii(name[:60])):
            monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
            with pytest.raises((ValueError, OSError)):
                load(name)
            assert list(tmp_path.iterdir()) == []


# --- collections of ir_datasets


def hostile_archive(path: Path, member: str, content: bytes, link: str | None) -> None:
    with tarfile.open(path, "w:gz") as archive:
        if link:
            made = tarfile.TarInfo("link")
            made.type, made.linkname = tarfile.SYMTYPE, link
            archive.addfile(made)
        made = tarfile.TarInfo(member)
        made.size = len(content)
        archive.addfile(made, io.BytesIO(content))


def test_members_of_archives_stay_in_their_folder(home, monkeypatch, tmp_path, subtests):
    archive, out = home / "docs.tar.gz", tmp_path / "outside"
    out.mkdir()
    register(monkeypatch, home)
    dataset = ir_datasets.registry._registered["toy-irds/train"]
    begins = "collection 'irds:toy-irds': the docs of toy-irds/train could not be downloaded or rea"
    for number, (member, link) in enumerate(
        [
            ("../../escaped", None),
            (f"{out}/escaped", None),
            ("link/escaped", str(out)),
            ("link/escaped", "../.."),
        ]
    ):
        hostile_archive(archive, member, b"hostile", link)
        download = Download([], cache_path=str(archive))
        unpacked = TarExtractAll(download, str(home / f"unpacked-{number}"))
        docs = TsvDocs(RelativePath(unpacked, "collection.tsv"))
        monkeypatch.setattr(dataset, "docs_iter", docs.docs_iter, raising=False)
        with subtests.test(member, link=link):
            assert refused(load, "irds:toy-irds").startswith(begins)
            escaped = [path for path in tmp_path.rglob("escaped") if home not in path.parents]
            assert escaped == []  # "/" in front is left out


def test_a_pickled_index_runs_nothing(home, tmp_path):
    store = ir_datasets.load("toy-irds/train").docs_store()
    store.build()  # as another program left it
    assert len(load("irds:toy-irds").passages) == 4
    shutil.rmtree(paths.CACHE)
    [index] = [path for path in (tmp_path / "home").rglob("bin") if path.is_file()]
    for hostile in (
        Bomb(tmp_path / "exploded"),
        (Bomb(tmp_path / "exploded"), "text"),
        (shutil.rmtree, "text"),
    ):
        content = lz4.block.compress(pickle.dumps(hostile), store_size=True)
        index.write_bytes(len(content).to_bytes(4, "little") + content + index.read_bytes())
        assert re.search(
            r"could not be downloaded or read \(UnpicklingError: an index of documents holds no "
            r"\S+; this one is not ir_d",
            refused(load, "irds:toy-irds"),
        )
    assert not (tmp_path / "exploded").exists()


def test_an_index_names_named_tuples_alone(subtests):
    for module, name in [
        ("os", "system"),
        ("builtins", "eval"),
        ("ir_datasets.util", "os.system"),
        ("ir_datasets.util", "os"),
        ("ir_datasets.util.fileio", "TarExtractAll"),
        ("ir_datasetsx", "y"),
        ("leadkit.data.catalogue", "Source"),
    ]:
        with subtests.test(name):
            frame = (
                b"\x80\x04\x8c"
                + bytes([len(module)])
                + module.encode()
                + b"\x8c"
                + bytes([len(name)])
                + name.encode()
                + b"\x93."
            )
            with pytest.raises(pickle.UnpicklingError, match="an index of documents holds no "):
                lz4_pickle.pickle.loads(frame)
            document = ir_datasets.formats.GenericDoc("a", "b")
            assert lz4_pickle.pickle.loads(
                lz4_pickle.pickle.dumps(("1", document, {"a": [2.5, None]}))
            ) == ("1", document, {"a": [2.5, None]})


def test_a_passage_id_that_cannot_be_one(tmp_path, subtests):
    for pid in ["a ", " a", "a\tb", "a\0", "", "\u202e", "x" * 1001, "\ud800"]:
        with subtests.test(ascii(pid)):
            assert refused(
                write_passages, tmp_path, [("good", "text"), (pid, "text")], "name"
            ).startswith(f"name: _id {pid!r:.80} must be")


def test_a_lone_surrogate_in_a_passage_or_query_of_ir_datasets(tmp_path, home, monkeypatch):
    sentence = refused(write_passages, tmp_path, [("a", "x\ud800")], "name")
    assert sentence == "name: the text of 'a' cannot be written in UTF-8 (surrogates not allowed)"
    real = irds._entries

    def entries(name, dataset, kind):
        for entry in real(name, dataset, kind):
            yield entry._replace(text=entry.text + "\ud800") if kind == "queries" else entry

    monkeypatch.setattr(irds, "_entries", entries)
    assert re.search(
        r"queries.jsonl, line 1: not a JSON object in UTF-8", refused(load, "irds:toy-irds")
    )


# --- files that are named after something


def test_records_are_written_in_their_folder(tmp_path):
    record = {
        "collection": "x",
        "fingerprint": "0",
        "split": "test",
        "measures": {"RR@10": 0.5},
        "per_query": {"RR@10": [0.5]},
        "stage": {},
    }
    stage = SimpleNamespace(cost=dict, record=lambda: record, describe=dict)
    names = [*TRAVERSAL, "a\0b", "a\nb", SCRIPT]
    folder = tmp_path / "a" / "b" / "records"
    records.save({0: dict.fromkeys(names, stage)}, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    written = {path.name for path in folder.iterdir()} - {".lock"}
    assert written == {"records.jsonl", "per-query.npz"}
    assert set(records.read(folder)) == set(names)


def test_records_of_a_sweep_stay_in_results(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    found = load(toy(tmp_path / "toy"))
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(store, "collection", lambda _: found)
    for name in ("..", ".", "/", "x/..", "../..", "~", "x/../.."):
        small = scale(f"beir:{name}")
        folder = records.default_folder(small, "test")
        assert folder.resolve().parent == tmp_path / "results", name
        log = workers.log_of(evaluation.Evaluate(small.data, None, "test", 5))
        assert log.parent == tmp_path / "runs" / "sweep-logs", name
        assert re.fullmatch(r"evaluate-[0-9a-f]{12}\.log", log.name), name


# --- Markdown and HTML


def markup(text: str) -> set[str]:
    """The tags of Markdown as it is shown."""
    return set(re.findall(r"<(\w+)", MarkdownIt("commonmark").enable("table").render(text)))


NAMES = (
    "[x](javascript:alert(1))",
    "![x](y)",
    SCRIPT.replace("/", ""),
    "`a`",
    "*a* _b_",
    "a | b",
    "a\nb",
    "---",
    "# a",
    "a\u202eb",
    "&lt;b&gt;",
    "$x$",
    "<!--",
    "\\",
)


def test_a_name_in_a_card_is_a_text(subtests):
    for name in NAMES:
        with subtests.test(name):
            shown = (
                MarkdownIt("commonmark")
                .enable("table")
                .render(f"# {cards.escaped(name)}\n\nCollection {cards.escaped(name)}\n")
            )
            said = (
                html.escape("".join(c if c.isprintable() else "\ufffd" for c in name))
                .replace("&#x27;", "'")
                .replace("&#x2F;", "/")
            )
            assert shown == f"<h1>{said.strip()}</h1>\n<p>Collection {said.strip()}</p>\n"


def test_a_card_of_hostile_names(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    evil = SCRIPT.replace("/", "") + '\n---\nlicense: "evil"\n[x](javascript:alert(1))|`"'
    made = encoder(tmp_path / ("student" + evil), "bert", 2)
    small = scale(toy(tmp_path / evil), teacher_encoder=made, student_encoder=made)
    (tmp_path / evil / "qrels" / "test.tsv").rename(tmp_path / evil / "qrels" / "a|b<img>.tsv")
    texts.collection.cache_clear()
    export.distil_and_export(small, tmp_path / f"out{evil}", method="student", split="a|b<img>")
    card = (tmp_path / f"out{evil}" / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    said = {"library_name", "pipeline_tag", "tags", "license", "datasets", "model-index"}
    assert set(metadata) == said and metadata["license"] == "unknown"
    assert metadata["model-index"][0]["name"] == " ".join(f"out{evil}".split())
    assert body.count("\n# ") == 1 and card.count("```") == 2
    assert markup(body) <= {
        "h1",
        "h2",
        "p",
        "a",
        "pre",
        "code",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert re.findall(r'href="([^"]*)"', MarkdownIt("commonmark").render(body)) == [
        "https://doi.org/10.1145/3616855.3635774"
    ]
    shown = MarkdownIt("commonmark").enable("table").render(body)
    rows = re.findall(
        r"<tr>(.*?)</tr>", shown.split("<h2>Recipe")[1].split("</table>")[0], re.DOTALL
    )
    assert {row.count("<td>") for row in rows[1:]} == {4}
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    [call] = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "SentenceTransformer"
    ]
    assert ast.literal_eval(call.args[0]) == f"out{evil}"


def test_a_card_of_a_folder_whose_name_is_no_unicode(tmp_path):
    student = build(Tower("DE", "random:1x16"))
    export.save_retriever(student, scale("beir:x").data, f"# {chr(0xDCE9)}", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "# ?"


def test_records_of_a_hostile_experiment_are_no_row():
    assert main_rows({f"{SCRIPT} | LEAD": [{"seed": 0}]}) == {}


def test_passages_are_texts_in_the_report(tmp_path, monkeypatch):
    table = pd.DataFrame({SCRIPT: [SCRIPT]}, index=[SCRIPT])
    cell, output = nbformat.v4.new_code_cell("show()", execution_count=1), nbformat.v4.new_output
    cell.outputs = [
        output("stream", name="stdout", text=SCRIPT),
        output("stream", name="stderr", text=SCRIPT),
        output("execute_result", data={"text/plain": SCRIPT}),
        output("display_data", data={"text/html": table._repr_html_(), "text/plain": str(table)}),
        output("error", ename=SCRIPT, evalue=SCRIPT, traceback=[SCRIPT]),
        output(
            "display_data",
            data={"image/png": "iVBORw0KGgo=", "text/plain": SCRIPT},
            metadata={"image/png": {"alt": f'">{SCRIPT}'}},
        ),
    ]
    made = nbformat.v4.new_notebook(
        cells=[cell, nbformat.v4.new_markdown_cell(f"*In the figure*: {SCRIPT}")]
    )
    state = {
        "abc": {
            "model_name": "TextModel",
            "model_module": "@jupyter-widgets/controls",
            "model_module_version": "2.0.0",
            "state": {"value": SCRIPT},
        }
    }
    made.metadata.widgets = {
        "application/vnd.jupyter.widget-state+json": {
            "version_major": 2,
            "version_minor": 0,
            "state": state,
        }
    }
    nbformat.write(made, tmp_path / "01_hostile.ipynb")
    lesson = SimpleNamespace(notebook="01_hostile.ipynb", done=lambda: tmp_path)
    monkeypatch.setattr(reproduce, "lessons", lambda *_: [lesson])
    monkeypatch.setattr(sweep, "finish", lambda *_: set())
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    small = scale(toy(tmp_path / "toy"))
    monkeypatch.setattr(reproduce, "run_main_table", lambda pipelines: pd.DataFrame({"x": [1.0]}))
    reproduce.reproduce(small)
    report = (tmp_path / "notebooks-toy" / "01_hostile.html").read_text(encoding="utf-8")
    assert (
        report.count("alert('passage')") == 9
    )  # it is all there: once for each output, three times in the table, and in the text
    assert "<script" not in report and not re.search(
        r"<img[^>]*onerror=", re.sub(r'alt="[^"]*"', "", report)
    )


# --- fuzz: each of these six runs 100 times in `make test`, 2,000 times with the profile "fuzz"


IDS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=6)
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
SHOWN_TEXT = ANY_TEXT.filter(str.strip)
TITLES = st.one_of(st.none(), ANY_TEXT)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\n \r\n"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 100), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def contents(draw) -> tuple[dict, dict, dict]:
    """(passages, queries, qrels) with texts as (title, text)."""
    texts = [
        draw(st.dictionaries(IDS, st.tuples(TITLES, SHOWN_TEXT), min_size=1, max_size=4))
        for _ in range(2)
    ]
    pairs = st.tuples(st.sampled_from(sorted(texts[1])), st.sampled_from(sorted(texts[0])))
    judged = st.dictionaries(pairs, st.integers(-1000, 1000), min_size=1, max_size=6)
    return *texts, draw(judged.filter(lambda grades: max(grades.values()) > 0))


def lines_of(texts: dict, escaped: bool) -> list[str]:
    return [
        json.dumps({"_id": key, "title": title, "text": text, "more": [key]}, ensure_ascii=escaped)
        for key, (title, text) in texts.items()
    ]


def plain(texts: dict) -> dict[str, str]:
    return {key: f"{title or ''} {text}".strip() for key, (title, text) in texts.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "beir"


@given(
    contents(), st.booleans(), LINE_ENDS, st.booleans(), st.booleans(), st.booleans(), st.booleans()
)
def test_fuzz_what_is_right_is_read_right(
    place, content, escaped, end, mark, last, compressed, header
):
    corpus, queries, judged = content
    qrels = ["query-id\tcorpus-id\tscore"] * header + [
        f"{qid}\t{pid}\t{grade}" for (qid, pid), grade in judged.items()
    ]
    name = write_lines(
        place,
        lines_of(corpus, escaped),
        lines_of(queries, escaped),
        qrels,
        end=end,
        mark=mark,
        last=last,
        compressed=compressed,
    )
    found = load(name)
    assert (dict(found.passages), found.queries) == (plain(corpus), plain(queries)) and list(
        found.passages
    ) == list(corpus)
    answered = {qid for (qid, _), grade in judged.items() if grade > 0}
    assert {
        (qid, pid): grade for qid, row in found.qrels["test"].items() for pid, grade in row.items()
    } == {pair: grade for pair, grade in judged.items() if pair[0] in answered}
    assert load(name).fingerprint == found.fingerprint


@given(contents(), st.sampled_from(BAD), st.integers(0, 6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_fuzz_one_hostile_line_is_refused_by_its_number(place, content, bad, at, end):
    corpus, queries, judged = content
    file, line, message = bad
    lines = {
        "corpus.jsonl": lines_of(corpus, True),
        "queries.jsonl": lines_of(queries, True),
        "qrels/test.tsv": [f"{qid}\t{pid}\t{grade}" for (qid, pid), grade in judged.items()],
    }
    lines = {
        key: GOOD[key] + part for key, part in lines.items()
    }  # has the ids that the hostile lines speak of
    at = 2 + min(at, len(lines[file]) - 2)
    lines[file].insert(at, line)
    sentence = refused(load, write_lines(place, *lines.values(), end=end))
    assert sentence.startswith(f"{place / file}, line {at + 1}: ") and message in sentence


FRAGMENTS = st.sampled_from(
    [
        b"{",
        b"}",
        b'"_id"',
        b'"text"',
        b":",
        b",",
        b'"a"',
        b'"\\ud800"',
        b"\n",
        b"\r",
        b"\t",
        b"1",
        b"-1",
        b"1e9",
        b"null",
        b"[",
        b"]",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"query-id\tcorpus-id\tscore",
        b"a\ta\t1\n",
        b'{"_id": "a", "text": "b"}\n',
        b" ",
        b"\xe2\x80\xa8",
        b"\x1f\x8b",
    ]
)
FILES = st.one_of(st.binary(max_size=60), st.lists(FRAGMENTS, max_size=12).map(b"".join))


@given(FILES, FILES, FILES, st.booleans())
def test_fuzz_any_bytes_are_a_collection_or_refused(place, corpus, queries, qrels, compressed):
    write_lines(place, [], [], [])
    for file, content in (
        ("corpus.jsonl", corpus),
        ("queries.jsonl", queries),
        ("qrels/test.tsv", qrels),
    ):
        (place / file).write_bytes(content)
    if compressed:
        (place / "corpus.jsonl").rename(place / "corpus.jsonl.gz")
    try:
        found = load(f"beir:{place}")
    except ValueError as error:
        assert (
            str(error).startswith(str(place)) and "\n" not in str(error) and len(str(error)) < 1000
        )
    else:
        assert found.passages and found.queries and found.qrels["test"]
        for texts in (found.passages, found.queries):
            assert all(
                key.isprintable() and key == key.strip() and text == text.strip()
                for key, text in texts.items()
            )
        assert all(found.queries.values()) and any(found.passages.values())
        assert all(qid in found.queries for qid in found.qrels["test"])


ODD_IDS = st.one_of(IDS, st.text(max_size=3), st.integers(0, 9).map(str))


@given(st.lists(st.tuples(ODD_IDS, st.text(max_size=10)), max_size=8))
def test_fuzz_passages_on_disk_are_a_dictionary(place, rows):
    place.mkdir(exist_ok=True)
    ids = [pid for pid, _ in rows]
    fit = (
        all(pid and pid == pid.strip() and pid.isprintable() for pid in ids)
        and len(set(ids)) == len(set(rows)) > 0
    )
    if not (fit and not any("\ud800" <= c <= "\udfff" for _, text in rows for c in text)):
        assert refused(write_passages, place, rows, "collection 'x'").startswith("collection 'x'")
        return
    write_passages(place, rows, "collection 'x'")
    found, want = Passages(place, "0"), dict(rows)
    assert (
        dict(found.items()) == want
        and list(found) == list(want)
        and list(found.values()) == list(want.values())
    )
    for pid in ["", "\0", "a", *(pid[:1] for pid in ids), *(pid + "\0" for pid in ids)]:
        assert (pid in found) == (pid in want)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return Path(encoder(tmp_path_factory.mktemp("whole") / "bert", "bert", 1, 8))


FIELDS = (
    "model_type",
    "architectures",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "pad_token_id",
    "auto_map",
    "dtype",
    "is_decoder",
    "quantization_config",
    "attn_implementation",
    "tokenizer_class",
    "added_tokens_decoder",
    "cls_token",
    "model_max_length",
    "model",
    "weight_map",
)


@given(
    st.sampled_from(["config.json", "tokenizer_config.json", "tokenizer.json"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=2),
)
def test_fuzz_configurations_are_read_or_refused(whole, place, file, fields):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    edit(place / file, **fields)
    try:
        encoders.check(str(place))
    except (ValueError, OSError) as error:
        assert str(error).startswith(f"encoder {str(place)!r}: ")


@given(st.text(max_size=20), st.sampled_from(NAMES))
def test_fuzz_names_are_texts_in_markdown(name, evil):
    first, second = cards.escaped(name + evil + name), cards.escaped(name + evil)
    shown = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(f"Collection {first}, | x |\n\n| a |\n| --- |\n| {second} |\n")
    )
    assert (
        set(re.findall(r"<(\w+)", shown)) <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
        and shown.count("<td>") == 1
    )

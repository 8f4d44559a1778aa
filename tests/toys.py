"""Tiny collections in BEIR layout, and where the tests' stages and caches go."""

import json
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    DistilBertTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from leadkit import paths
from leadkit.config import Data, Lead, Scale, Schedule
from leadkit.data.tokens import tokenise
from leadkit.experiments import texts
from leadkit.experiments.store import Stage
from leadkit.files import write_json
from leadkit.training.loop import Operation

WORDS = (
    "array axis batch cache class color column count data date default dict edge element "
    "error event exception field file float format frame function graph group handler image "
    "index input integer iterator key label layer length line list matrix message method mode "
    "model module name node number object option order output path pattern point position "
    "process query random range result row sample scale sequence server set shape signal size "
    "sort source state string tensor text"
).split()


def logits(*probabilities: float) -> Tensor:
    """Scores (B, 2) whose softmax has these first probabilities of two: log-odds."""
    return torch.tensor([[log(p), log(1 - p)] for p in probabilities], dtype=torch.float64)


def gradients(loss: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)


def score_batch() -> tuple[Tensor, ...]:
    """Student, teacher (3, 4, 5) and their final scores (4, 5) with gradients; positive (4,)."""
    shapes = ((3, 4, 5), (3, 4, 5), (4, 5), (4, 5))
    scores = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    return *scores, torch.tensor([0, 2, 4, 1])


# Processes of the tests: they start from a server that has loaded the libraries once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "leadkit.training.pretraining",
        "leadkit.experiments.pipeline",
        "leadkit.experiments.sweep",
        "toys",
        "pytest",
        "transformers.models.bert.modeling_bert",
        "transformers.models.bert.tokenization_bert",
    ]
)


def exit_code(work: Callable, *arguments: object) -> int | None:
    """Do work(*arguments) in a process; -9 where it was killed."""
    process = PROCESSES.Process(target=work, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def write_beir(
    folder: Path,
    passages: dict[str, str],
    queries: dict[str, str],
    qrels: dict[str, dict[str, dict[str, int]]],
) -> str:
    """Write a folder in BEIR layout; return its name for `load`."""
    (folder / "qrels").mkdir(parents=True)
    for stem, rows in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in rows.items()]
        (folder / f"{stem}.jsonl").write_text("\n".join(lines) + "\n")
    for split, judged in qrels.items():
        lines = [
            f"{qid}\t{pid}\t{grade}" for qid, row in judged.items() for pid, grade in row.items()
        ]
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n"
        )
    return f"beir:{folder}"


def toy(folder: Path, train: int = 24, dev: int = 6, test: int = 6, others: int = 12) -> str:
    """A collection of random words.

    Query i takes its words from passage i; the training queries share some relevant passages.
    """
    draw, passages, queries, qrels = random.Random(0), {}, {}, {"train": {}, "dev": {}, "test": {}}
    for i in range(train + dev + test + others):
        passages[f"p{i}"] = " ".join(draw.choices(WORDS, k=draw.randint(6, 20)))
    for i in range(train + dev + test):
        split = "train" if i < train else "dev" if i < train + dev else "test"
        queries[f"q{i}"] = " ".join(draw.sample(passages[f"p{i}"].split(), 3))
        qrels[split][f"q{i}"] = {f"p{i}": 1} | (
            {f"p{i - 1}": 1} if split == "train" and i % 4 == 1 else {}
        )
    return write_beir(folder, passages, queries, qrels)


def isolate(monkeypatch, folder: Path) -> None:
    """Stages and token files of this test go under `folder`."""
    monkeypatch.setattr(paths, "RUNS", folder / "runs")
    monkeypatch.setattr(texts, "tokenise", partial(tokenise, cache=folder / "cache"))


def save_each_step(monkeypatch) -> None:
    """Trainings of this test write a checkpoint after each step."""
    monkeypatch.setattr(Stage.done, "__defaults__", (Operation(checkpoint_seconds=0.0),))


def data(name: str, **changes: object) -> Data:
    return Data(
        **{"collection": name, "query_tokens": 8, "passage_tokens": 16, "batch": 4, "negatives": 6}
        | changes
    )


def scale(name: str, **changes: object) -> Scale:
    """Everything tiny: untrained encoders of 3 and 2 layers, 3 steps each."""
    steps = Schedule(3, 1e-3)
    values = {
        "teacher_encoder": "random:3x32",
        "student_encoder": "random:2x32",
        "larger_encoder": "random:4x32",
        "data": data(name),
        "warm_up": steps,
        "teacher": steps,
        "student": steps,
        "distil": steps,
        "lead": Lead(k=2),
        "rerank": 5,
        "depth": 20,
    }
    return Scale("toy", **values | changes)


def encoder(
    folder: Path,
    kind: str,
    layers: int = 3,
    hidden: int = 32,
    positions: int = 96,
    **changes: object,
) -> str:
    """An untrained encoder and its tokeniser, as a folder: bert, distilbert or roberta.

    WordPiece, whose [PAD] is no. 3, or RoBERTa's byte-level BPE. The blocks change their input
    much more than at usual initialisation.
    """
    tokenizer = _byte_level(folder) if kind == "roberta" else _word_pieces(kind)
    configuration, model = {
        "bert": (BertConfig, BertModel),
        "distilbert": (DistilBertConfig, DistilBertModel),
        "roberta": (RobertaConfig, RobertaModel),
    }[kind]
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": positions,
        "initializer_range": 0.2,
    } | ({} if kind == "roberta" else {"pad_token_id": 3})
    torch.manual_seed(0)
    model(configuration(**sizes | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _byte_level(folder: Path) -> RobertaTokenizer:
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(WORDS, 400, special_tokens=special, show_progress=False)
    trained.save_model(str(folder.parent), folder.name)
    parts = (folder.parent / f"{folder.name}-{part}" for part in ("vocab.json", "merges.txt"))
    return RobertaTokenizer(*map(str, parts))


def _word_pieces(kind: str) -> BertTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(f"##{letter}" for letter in letters), *WORDS[::2]]
    special = ["[UNK]", "[MASK]", "[SEP]", "[PAD]", "[CLS]"]
    vocabulary = {piece: i for i, piece in enumerate([*special, *pieces])}
    return {"bert": BertTokenizer, "distilbert": DistilBertTokenizer}[kind](vocabulary)


TOPICS = (
    "array graph tensor file socket matrix string table thread image date path regular window "
    "colour number symbol module packet signal frame event token layer index cache queue heap "
    "stack node"
).split()


def body(word: str) -> str:
    """The text of a docstring; another word, another text."""
    return " ".join(f"{word}{i} {word[::-1]}{i * 7 % 11} about{i}" for i in range(8))


def function(name: str, query: str, passage: str) -> str:
    """The source of a function whose docstring has these two paragraphs."""
    return f'def {name}():\n    """{query}\n\n    {passage}\n    """\n\n'


def install(site: Path, extra: str = "", parts: int = 3) -> None:
    """A package `toypack` with metadata, as pip leaves it."""
    (site / "toypack" / "tests").mkdir(parents=True, exist_ok=True)
    sources = {}
    for part in range(parts):
        asked = {word: f"Say everything about a {word} here." for word in TOPICS[part::parts]}
        functions = (function(f"f_{word}", query, body(word)) for word, query in asked.items())
        sources[f"toypack/m{part}.py"] = "".join(functions)
    twin, long = body("twin"), body("long")
    sources |= {
        "toypack/__init__.py": f'"""The toy package explains everything.\n\n{body("init")}\n"""\n',
        "toypack/twins.py": function("near", "Do the first of two things.", twin)
        + function("nearest", "Do the other of the two.", twin)
        + function("nearer", "Do the first of two things.", body("other"))
        + extra,
        "toypack/filtered.py": function("short", "Too short.", long)
        + function("few", "A query with five words.", "few words")
        + function("trivial", "Long3 gnol10 about3 long4.", long)
        + function(
            "signed", "signed(a, b=None) -> int\n\n    One fine query to keep.", body("signed")
        ),
        "toypack/broken.py": "def (:\n",
        "toypack/tests/test_it.py": function(
            "hidden", "A query from the test folder.", body("hidden")
        ),
        "toypack/raises.py": 'raise RuntimeError("imported")\n'
        + function("unseen", "Parsed but never imported here.", body("unseen")),
    }
    for name, text in sources.items():
        (site / name).write_text(text)
    info = site / "toypack.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toypack\nVersion: 1.0\n")
    (info / "LICENSE").write_text("You may do with it what you like.\n")
    recorded = [*sources, "toypack.dist-info/LICENSE"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in recorded))


@dataclass(frozen=True)
class Count(Stage):
    """Writes its number; every run leaves a line in runs.txt."""

    kind = "count"
    number: int = 1
    wait: float = 0.0
    first: "Count | None" = None

    def run(self, operation: Operation) -> None:
        with open(paths.RUNS / "runs.txt", "a") as out:
            out.write(f"{self.number}\n")
        time.sleep(self.wait)
        write_json(self.folder / "out.json", {"number": self.number})


def measured(means: dict[str, float]) -> dict[str, list[dict]]:
    """Records of experiments with these means of MRR@10 in percent: two seeds of 40 queries."""
    random = np.random.default_rng(0)
    return {
        name: [
            {
                "experiment": name,
                "seed": seed,
                "collection": "toy",
                "fingerprint": "f",
                "split": "dev",
                "per_query": {"RR@10": (mean + random.normal(0, 5, 40)) / 100},
            }
            for seed in range(2)
        ]
        for name, mean in means.items()
    }

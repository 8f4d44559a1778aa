"""Bring your own: the recipe on any collection with any encoders, its student as a folder that sentence-transformers loads."""

import json
import re
from pathlib import Path

from leadkit.config import Data, Scale
from leadkit.data.sampling import Sampler, groups
from leadkit.experiments.distillation import Distil, WarmUp
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.store import Evaluate, collection
from leadkit.files import write_folder, write_json
from leadkit.models.encoders import load_tokenizer, without_pooling
from leadkit.models.retrievers import DualEncoder, Tower, depth

MODULES = {
    "": "sentence_transformers.base.modules.transformer.Transformer",  # folder -> class
    "1_Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}


def distil(
    scale: Scale,
    out: Path,
    architecture: str = "CB",
    method: str = "LEAD",
    split: str = "test",
    seed: int = 0,
) -> dict[str, Evaluate]:
    """Run a scale's recipe (`Pipeline`) and export its student to `out`; return the evaluations that its card shows.

    FileExistsError, ValueError or OSError where `out`, the collection or the encoders cannot do: before any work.
    """
    check_new(out)
    texts, data = collection(scale.data.collection), scale.data
    for needed in ("train", split):
        texts.split(needed)
    Sampler(
        groups(texts, "train"), len(texts.passages), data.batch, data.passages, seed
    )  # says whether the texts fill a batch
    pipeline = Pipeline(scale, seed, architecture)
    stage = pipeline.distil(method)
    rows = {
        "BM25": pipeline.evaluate(None, split),
        "student before": pipeline.evaluate(pipeline.student, split),
        "this model": pipeline.evaluate(stage, split),
    }
    export(stage.model().cpu(), data, card(out.resolve().name, stage, pipeline.miner, rows), out)
    return rows


def check_new(folder: Path) -> None:
    """FileExistsError unless the folder is empty or not there."""
    if folder.is_file() or folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"out {str(folder)!r} exists and is not empty: name a new folder")


def export(student: DualEncoder, data: Data, card: str, folder: Path) -> None:
    """Write a student as `SentenceTransformer(folder)` loads it: encoder, [CLS] pooling, dot product, texts cut as in training.

    A dot product there is the student's score over its `scale`. FileExistsError for a folder that is not empty; ValueError for a
    student that is no DE or has a linear layer.
    """
    check_new(folder)
    if not isinstance(student, DualEncoder) or student.linear is not None:
        raise ValueError(
            f"student is a {student.architecture} with linear layer {student.tower.linear}: only a DE without one (0) "
            "is an encoder and its [CLS] state"
        )
    lengths = {
        "query_length": data.query_tokens,
        "document_length": data.passage_tokens,
        "max_seq_length": max(data.query_tokens, data.passage_tokens),
    }

    def save(part: Path) -> None:
        student.save(part, load_tokenizer(student.tower.encoder))
        write_json(
            part / "modules.json",
            [
                {"idx": i, "name": str(i), "path": path, "type": name}
                for i, (path, name) in enumerate(MODULES.items())
            ],
        )
        write_json(
            part / "sentence_bert_config.json",
            lengths | {"model_kwargs": without_pooling(student.encoder.config)},
        )
        write_json(
            part / "1_Pooling" / "config.json",
            {"embedding_dimension": student.width, "pooling_mode": "cls"},
        )
        write_json(
            part / "config_sentence_transformers.json",
            {
                "model_type": "SentenceTransformer",
                "prompts": {},
                "default_prompt_name": None,
                "similarity_fn_name": "dot",
            },
        )
        (part / "README.md").write_text(
            card, encoding="utf-8", errors="replace"
        )  # a folder's name need not be Unicode

    write_folder(folder, save)


def card(name: str, stage: Distil, miner: WarmUp, rows: dict[str, Evaluate]) -> str:
    """The model card of a distillation: use, data, recipe, measures and versions, by its stages and their result records.

    Folders are called by their last part alone: a card may be published.
    """
    texts, data, lead = collection(stage.data.collection), stage.data, stage.lead
    records = {row: evaluation.record() for row, evaluation in rows.items()}
    record, longest = records["this model"], max(data.query_tokens, data.passage_tokens)
    source, split = _text(Path(texts.name).name), _text(record["split"])
    passages, train, judged = (
        f"{len(part):,}"
        for part in (texts.passages, texts.split("train"), texts.split(record["split"]))
    )
    warmed = {"mines hard negatives": miner, "teacher": stage.teacher, "student": stage.student}
    steps = [
        (f"warm-up: {role}", _model(part.tower), part.schedule)
        for role, part in warmed.items()
        if part
    ]
    pair = " -> ".join(_model(part.tower) for part in (stage.teacher, stage) if part)
    steps.append((f"distillation: {stage.method}", pair, stage.schedule))
    recipe = [
        (*what, f"{schedule.steps:,}", f"{schedule.learning_rate:g}") for *what, schedule in steps
    ]
    settings = {
        "LEAD": f"`{lead}`",
        "RD": f"`tau_d={lead.tau_d}`",
        "FD": f"`k={lead.k}`",
        "student": "no teacher",
    }[stage.method]
    measures = [
        (row, *(f"{value:.4f}" for value in found["measures"].values()))
        for row, found in records.items()
    ]
    precision = (
        "Measured with the encoder in bfloat16; sentence-transformers computes in float32 and may differ a little.\n"
        if stage.tower.bf16
        else ""
    )
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, dense-retrieval]
---

# {_text(name)}

A dual encoder for retrieval: the vector of a text is its [CLS] state, vectors are compared by their dot product.
Distilled with leadkit, a reproduction of [LEAD](https://doi.org/10.1145/3616855.3635774).

## Use

```python
from sentence_transformers import SentenceTransformer  # 6.0 or newer

model = SentenceTransformer({json.dumps(name, ensure_ascii=False)})
queries = model.encode_query(["a question"])  # cut at {data.query_tokens} tokens, as in training
passages = model.encode_document(["a passage", "another one"])  # cut at {data.passage_tokens} tokens
print(model.similarity(queries, passages))  # dot products: the training's scores over {stage.tower.scale:g}
```

`model.encode` does not know which is which and cuts at {longest} tokens. A passage is its title, a space and its text.

## Data

Collection {source}, fingerprint {texts.fingerprint}: {passages} passages, {train} queries to train on, {judged} to measure with
(split {split}).

## Recipe

{_table(["stage", "model", "steps", "learning rate"], recipe)}

{stage.method}: {settings}. A batch has {data.batch} queries with {data.passages} passages each, one of them relevant;
{data.negatives} hard negatives are mined per query. Dropout {stage.tower.dropout:g}, seed {stage.seed}.

## Measures

{_table(["", *record["measures"]], measures)}

Means over the {judged} queries of split {split}; all {passages} passages are searched. One seed.
{precision}
## Versions

{versions}; {record["device"]}.
"""


def _model(tower: Tower) -> str:
    """E.g. "12CB of bert-base-uncased"."""
    name = Path(tower.encoder).name if Path(tower.encoder).is_dir() else tower.encoder
    return f"{depth(tower)}{tower.architecture} of {_text(name)}"


def _text(name: str) -> str:
    """A name as Markdown that shows it and does nothing else: no link, no tag, no other line, no other direction of writing."""
    return re.sub(
        r"([\\`*_\[\]<>&|~$])",
        r"\\\1",
        "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name),
    )


def _table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))

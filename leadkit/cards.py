"""Model cards: use, data, recipe, measures and versions of a distillation."""

import json
import re
from pathlib import Path

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from leadkit.config import Data, Schedule
from leadkit.data.sampling import Sampler, groups
from leadkit.experiments.distillation import Distil, WarmUp
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.recipe import verdict
from leadkit.experiments.rescaled import Rescaled
from leadkit.experiments.store import Trained
from leadkit.experiments.texts import collection
from leadkit.models.names import reshaped, untrained
from leadkit.models.tower import Tower, depth
from leadkit.results.tables import markdown

CARD = """---
{{ card_data }}
---

# {{ title }}

A dual encoder for retrieval: the vector of a text is {{ vector }},
vectors are compared by their dot product.
Distilled with leadkit, a reproduction of [LEAD](https://doi.org/10.1145/3616855.3635774).

## Use

```python
from sentence_transformers import SentenceTransformer  # 6.2 or newer

model = SentenceTransformer({{ quoted_name }})
queries = model.encode_query(["a question"])  # cut at {{ query_tokens }} tokens, as in training
passages = model.encode_document(["a passage", "another"])  # cut at {{ passage_tokens }} tokens
print(model.similarity(queries, passages))  # dot products: the training's scores over {{ scale }}
```

`model.encode` does not know which is which and cuts at {{ longest }} tokens.
A passage is its title, a space and its text.

## Data

Collection {{ source }}, fingerprint {{ fingerprint }}: {{ passages }} passages,
{{ train }} queries to train on, {{ judged }} to measure with (split {{ split }}).

## Recipe

{{ recipe }}

{{ method }}: {{ settings }}.
A batch has {{ batch }} queries with {{ passages_per_query }} passages each, one of them relevant;
{{ negatives }} hard negatives are mined per query. Dropout {{ dropout }}, seed {{ seed }}.

## Measures

{{ measures }}

Means over the {{ judged }} queries of split {{ split }}; all {{ passages }} passages are searched.
One seed. {{ verdict }}
{{ precision }}
## Versions

{{ versions }}; {{ device }}.
"""
VECTORS = {"cls": "its [CLS] state", "mean": "the mean of its token states"}
BFLOAT16 = (
    "Measured with the encoder in bfloat16; sentence-transformers computes in float32 and may "
    "differ a little.\n"
)


TEACHER = """---
{{ card_data }}
---

# {{ title }}

The teacher of a distillation with leadkit: {{ model }}. Its scores are leadkit's over {{ scale }}.
Queries are cut at {{ query_tokens }} tokens, passages at {{ passage_tokens }}.
"""


def teacher_card(name: str, tower: Tower, data: Data, license: str) -> str:
    """The card of a teacher; it was not measured."""
    card = ModelCard.from_template(
        _card_data(name, tower, data, license, []),
        template_str=TEACHER,
        title=escaped(name),
        model=_model(tower),
        scale=f"{tower.scale:g}",
        query_tokens=data.query_tokens,
        passage_tokens=data.passage_tokens,
    )
    return str(card)


def _card_data(
    name: str, tower: Tower, data: Data, license: str, results: list[EvalResult]
) -> ModelCardData:
    """What the hub reads of a card. A local folder is no base model that others could load."""
    base = reshaped(tower.encoder)[1]
    local = Path(base).is_dir() or untrained(base)
    ranks = tower.architecture == "CE"
    kind = "cross-encoder" if ranks else "feature-extraction"
    return ModelCardData(
        model_name=_line(name),
        license=_line(license),
        base_model=None if local else base,
        datasets=[_line(Path(data.collection).name)],
        eval_results=results or None,
        library_name="sentence-transformers",
        pipeline_tag="text-ranking" if ranks else "sentence-similarity",
        tags=["sentence-transformers", kind, "dense-retrieval"],
    )


def _line(text: str) -> str:
    """A name on one line: a line of dashes would end the card's metadata."""
    return " ".join(text.split())


def model_card(
    name: str,
    stage: Distil,
    miner: Trained,
    evaluations: dict[str, Evaluate],
    license: str = "unknown",
) -> str:
    """The card of a distillation: use, data, recipe, measures and versions.

    evaluations: row of the table of measures -> evaluation; one row is "distilled".

    A folder is named by its last part alone: a card may be published. The licence is the user's to
    choose.
    """
    data = stage.data
    texts = collection(data.collection)
    records = {row: evaluation.record() for row, evaluation in evaluations.items()}
    record = records["distilled"]
    split = record["split"]
    measures = pd.DataFrame({row: each["measures"] for row, each in records.items()}).T
    training = groups(texts, "train")
    batch = Sampler(training, len(texts.passages), data.batch, data.passages, stage.seed).batch
    versions = [f"{package} {version}" for package, version in record["versions"].items()]
    results = [
        EvalResult(
            task_type="text-retrieval",
            dataset_type="collection",
            dataset_name=_line(Path(texts.name).name),
            dataset_split=_line(split),
            metric_type=measure,
            metric_value=value,
        )
        for measure, value in record["measures"].items()
    ]
    metadata = _card_data(name, stage.tower, data, license, results)
    head = stage.tower.head
    card = ModelCard.from_template(
        metadata,
        template_str=CARD,
        title=escaped(name),
        quoted_name=json.dumps(name, ensure_ascii=False),
        query_tokens=data.query_tokens,
        passage_tokens=data.passage_tokens,
        longest=max(data.query_tokens, data.passage_tokens),
        scale=f"{stage.tower.scale:g}",
        vector=VECTORS[stage.tower.pooling] + (f", then `{head}`" if head else ""),
        source=escaped(Path(texts.name).name),
        fingerprint=texts.fingerprint,
        passages=f"{len(texts.passages):,}",
        train=f"{len(texts.split('train')):,}",
        judged=f"{len(texts.split(split)):,}",
        split=escaped(split),
        recipe=_recipe(stage, miner),
        method=stage.method.name,
        settings=f"`{stage.method}`" + ("" if stage.method.needs_teacher else ", no teacher"),
        batch=batch,
        passages_per_query=data.passages,
        negatives=data.negatives,
        dropout=f"{stage.tower.dropout:g}",
        seed=stage.seed,
        measures=markdown(measures, dict.fromkeys(measures, 4)),
        verdict=verdict(evaluations),
        precision=BFLOAT16 if stage.tower.bf16 else "",
        versions=", ".join(versions),
        device=record["device"],
    )
    return str(card)


def _recipe(stage: Distil, miner: Trained) -> str:
    """The table of the trainings that lead to a student, its own the last."""
    rows: dict[str, tuple[str, Schedule]] = {}
    student, scores = stage.student, ""
    if isinstance(student, Rescaled):
        scores = f", the student's scores x {student.times:g}"
        student = student.retriever
    trained = (
        ("mines hard negatives", miner),
        ("teacher", stage.teacher),
        ("student", student),
    )
    for role, warm_up in trained:
        if isinstance(warm_up, WarmUp):
            rows[f"warm-up: {role}"] = (_model(warm_up.tower), warm_up.schedule)
    pair = [_model(each.tower) for each in (stage.teacher, stage) if each]
    rows[f"distillation: {stage.method.name}{scores}"] = (" -> ".join(pair), stage.schedule)
    columns = {
        "model": [model for model, _ in rows.values()],
        "steps": [f"{schedule.steps:,}" for _, schedule in rows.values()],
        "learning rate": [f"{schedule.learning_rate:g}" for _, schedule in rows.values()],
    }
    return markdown(pd.DataFrame(columns, index=pd.Index(rows, name="stage")))


def _model(tower: Tower) -> str:
    """E.g. "12CB of bert-base-uncased"."""
    path = Path(tower.encoder)
    name = path.name if path.is_dir() else tower.encoder
    return f"{depth(tower)}{tower.architecture} of {escaped(name)}"


def escaped(name: str) -> str:
    """A name as Markdown that shows it and does nothing else: no link, no tag, no other line."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return re.sub(r"([\\`*_\[\]<>&|~$])", r"\\\1", printable)

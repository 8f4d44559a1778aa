"""Checkpoints with heads, as people have them: read by sentence-transformers' own readers.

- DE: a folder of `SentenceTransformer`: mean or [CLS] pooling, dense layers, normalised or not.
- CB: a folder of `MultiVectorEncoder` or PyLate; its linear layer is layer L + 1.
- CE: a folder of `CrossEncoder`, or a sequence classifier of transformers, with one output.

What a reader would do and leadkit does not (prompts, filled queries, skipped words) is refused by
name. Weights are read from safetensors only. This module's readers need the extra `[export]`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from leadkit import paths
from leadkit.models import heads, names
from leadkit.models.folders import WEIGHTS, modules
from leadkit.models.readers import READERS, Checkpoint, check_texts
from leadkit.models.retriever import Retriever
from leadkit.models.tower import Tower

COSINE_SCALE = 20.0  # of cosines; sentence-transformers trains with it
TRUSTED = ("sentence_transformers.", "pylate.models.Dense.")  # the latter is never imported


def architecture_of(encoder: str) -> str:
    """DE, CB or CE, or nothing for an encoder alone. Reads JSON only."""
    folder = Path(names.root(encoder))
    named = _json(folder / "config_sentence_transformers.json").get("model_type")
    classes = _json(Path(names.source(encoder)) / "config.json").get("architectures") or [""]
    types = [module["type"] for module in modules(folder)]
    if named in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in classes:
        return "CB"
    if any(kind.startswith("pylate.") for kind in types):
        return "CB"
    if named == "CrossEncoder" or classes[0].endswith("ForSequenceClassification"):
        return "CE"
    return "DE" if any(kind.endswith("Pooling") for kind in types) else ""


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error!r:.200})") from error


def read(encoder: str) -> Checkpoint:
    """The retriever that a checkpoint is.

    ValueError where it is none, or does what leadkit does not. FileNotFoundError for pickled
    weights. ImportError without sentence-transformers.
    """
    architecture = architecture_of(encoder)
    if not architecture:
        raise ValueError(
            f"checkpoint {encoder!r} is an encoder alone: it has no pooling, linear layer or "
            "classifier, so it is no ready retriever"
        )
    model = _opened(encoder, architecture)
    try:
        check_texts(model)
        return READERS[architecture](model, list(model)[1:])
    except ValueError as error:
        raise ValueError(f"checkpoint {encoder!r}: {error}") from None


def _opened(encoder: str, architecture: str) -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise ImportError(
            f"checkpoints with heads need sentence-transformers 6.2 or newer ({error}): "
            f'in {paths.ROOT}: {sys.executable} -m pip install -e ".[export]" -c constraints.txt'
        ) from error
    folder = Path(names.root(encoder))
    for module in modules(folder):
        if not module["type"].startswith(TRUSTED):
            raise ValueError(
                f"checkpoint {encoder!r}: its module {module['type']!r} is code of another package"
            )
        safe, pickled = ((folder / module["path"] / name).is_file() for name in WEIGHTS)
        if pickled and not safe:
            raise FileNotFoundError(
                f"checkpoint {encoder!r}: {module['path']}/{WEIGHTS[1]} is pickled and never read; "
                f"{WEIGHTS[0]} is needed"
            )
    kind = {"DE": "SentenceTransformer", "CB": "MultiVectorEncoder", "CE": "CrossEncoder"}
    return getattr(sentence_transformers, kind[architecture])(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )


def tower(encoder: str, dropout: float, bf16: bool) -> Tower:
    """The tower of a ready retriever. Raises as `read`."""
    made = read(encoder)
    cosine = made.architecture == "DE" and made.head.endswith("normalize")
    scale = COSINE_SCALE if cosine else 1.0
    return Tower(
        made.architecture,
        encoder,
        scale,
        made.linear,
        dropout,
        bf16,
        pooling=made.pooling,
        head=made.head,
    )


def adopt(retriever: Retriever) -> None:
    """Give a retriever the weights of its checkpoint's head.

    ValueError where the checkpoint is another than the tower says.
    """
    made = read(retriever.tower.encoder)
    for name in ("architecture", "head", "linear"):
        ours, theirs = getattr(retriever.tower, name), getattr(made, name)
        if ours != theirs:
            raise ValueError(
                f"checkpoint {retriever.tower.encoder!r} has {name} {theirs!r}, the tower {ours!r}"
            )
    if made.linear and retriever.linear is not None:
        targets = [retriever.linear]
    else:
        targets = heads.linears(retriever.head)
    for source, target in zip(made.layers, targets, strict=True):
        heads.copy_linear(source, target)

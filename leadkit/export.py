"""Bring your own: the recipe on any collection and encoders, its student in sentence-transformers.

This module needs the extra `[export]`.
"""

import json
import sys
from pathlib import Path

from leadkit import paths
from leadkit.cards import model_card
from leadkit.config import Data, Scale
from leadkit.data.sampling import Sampler, groups
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.texts import collection
from leadkit.files import write_folder, write_json
from leadkit.models.dual_encoder import DualEncoder
from leadkit.models.encoders import without_pooling
from leadkit.models.retriever import Retriever
from leadkit.models.tokenizers import load_tokenizer

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
except ImportError as error:
    raise ImportError(
        f"leadkit.export needs sentence-transformers ({error}): in {paths.ROOT}: {sys.executable} "
        '-m pip install -e ".[export]" -c constraints.txt'
    ) from error


def distil_and_export(
    scale: Scale,
    out: Path,
    architecture: str = "CB",
    method: str = "LEAD",
    split: str = "test",
    seed: int = 0,
) -> dict[str, Evaluate]:
    """Run a scale's recipe (`Pipeline`) and save its student in `out`.

    Returns the evaluations that the model card shows. FileExistsError, ValueError or OSError where
    `out`, the collection or the encoders do not suit: before any work.
    """
    check_out(out)
    data = scale.data
    texts = collection(data.collection)
    for needed in ("train", split):
        texts.split(needed)
    # The sampler refuses texts that do not fill a batch.
    Sampler(groups(texts, "train"), len(texts.passages), data.batch, data.passages, seed)
    pipeline = Pipeline(scale, seed, architecture)
    stage = pipeline.distil(method)
    evaluations = {
        "BM25": pipeline.evaluate(None, split),
        "student before": pipeline.evaluate(pipeline.student, split),
        "this model": pipeline.evaluate(stage, split),
    }
    card = model_card(out.resolve().name, stage, pipeline.miner, evaluations)
    save_student(stage.model().cpu(), data, card, out)
    return evaluations


def check_out(folder: Path) -> None:
    """FileExistsError unless the folder is empty or not there, ValueError for no Unicode path."""
    if folder.is_file() or folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"out {str(folder)!r} exists and is not empty: name a new folder")
    path = str(folder.resolve())
    if path != path.encode(errors="replace").decode():
        raise ValueError(f"out {path!r} is not Unicode: tokenizers cannot write there")


def save_student(student: Retriever, data: Data, card: str, folder: Path) -> None:
    """Write a student as `SentenceTransformer(folder)` loads it; leadkit loads the folder too.

    That is its encoder, its pooling, dot product, and texts cut as in training. A dot product
    there is the student's score over its `scale`. FileExistsError for a folder that is not empty,
    ValueError for a student that is no DE or has a linear layer.
    """
    check_out(folder)
    if not isinstance(student, DualEncoder) or student.linear is not None:
        raise ValueError(
            f"student is a {student.architecture} with linear layer {student.tower.linear}: only a "
            "DE without one (0) is an encoder and one vector of a text"
        )

    def save(part: Path) -> None:
        student.save(part, load_tokenizer(student.tower.encoder))
        model_kwargs = without_pooling(student.encoder.config)
        encoder = Transformer(
            str(part),
            model_kwargs=model_kwargs,
            query_length=data.query_tokens,
            document_length=data.passage_tokens,
            max_seq_length=max(data.query_tokens, data.passage_tokens),
        )
        encoder.model = student.encoder  # not a second copy of the weights
        model = SentenceTransformer(
            modules=[encoder, Pooling(student.width, student.tower.pooling)],
            similarity_fn_name="dot",
            device=str(student.encoder.device),
        )
        model.save_pretrained(str(part), create_model_card=False)
        # save_pretrained forgets model_kwargs: a BERT would be loaded with an untrained pooler.
        settings = part / encoder.config_file_name
        write_json(settings, json.loads(settings.read_text()) | {"model_kwargs": model_kwargs})
        # Not ModelCard.save: the name of a folder need not be Unicode.
        (part / "README.md").write_text(card, encoding="utf-8", errors="replace")

    write_folder(folder, save)

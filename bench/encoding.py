"""Encoding passages with the 6DE on a CPU, from text to vector, by three versions.

Leadkit, sentence-transformers, and a plain reference: Hugging Face's BERT in float32, texts padded
to one length as they come. All have the same weights and tokenise the texts anew.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import lead_step
import numpy as np
import records
import torch
from measuring import seconds
from sentence_transformers import SentenceTransformer

from leadkit.config import scale
from leadkit.data.tokens import tokenise
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.texts import collection
from leadkit.export import save_student
from leadkit.models.retriever import Retriever
from leadkit.models.retrievers import build
from leadkit.models.tokenizers import load_tokenizer
from leadkit.retrieval.dense import encode

CHOSEN = scale("classroom")
LONGEST = CHOSEN.data.passage_tokens
TEXTS = 1000
BATCH = 32

Encode = Callable[[], np.ndarray]  # -> (P, H)


def some_passages() -> dict[str, str]:
    """TEXTS passages, evenly spread over the collection."""
    passages = list(collection(CHOSEN.data.collection).passages.items())
    return dict(passages[:: len(passages) // TEXTS][:TEXTS])


def reference(texts: dict[str, str]) -> Encode:
    """The obvious way."""
    model = lead_step.load_plain(CHOSEN.student_encoder).eval()
    tokenizer = load_tokenizer(CHOSEN.student_encoder)
    lines = list(texts.values())

    def encode_batch(batch: list[str]) -> torch.Tensor:
        tokens = tokenizer(
            batch,
            padding="max_length",
            truncation=True,
            max_length=LONGEST,
            return_tensors="pt",
        )
        return model(**tokens).last_hidden_state[:, 0]  # (BATCH, H)

    @torch.inference_mode()
    def run() -> np.ndarray:
        starts = range(0, len(lines), BATCH)
        return torch.cat([encode_batch(lines[i : i + BATCH]) for i in starts]).numpy()

    return run


def leadkit(model: Retriever, texts: dict[str, str]) -> Encode:
    tokenizer = load_tokenizer(CHOSEN.student_encoder)

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as cache:
            return encode(model, tokenise(texts, tokenizer, LONGEST, Path(cache)))

    return run


def sentence_transformers(model: Retriever, texts: dict[str, str], folder: Path) -> Encode:
    save_student(model, CHOSEN.data, "", folder)
    exported = SentenceTransformer(str(folder), device="cpu")
    lines = list(texts.values())
    return lambda: exported.encode_document(lines, batch_size=BATCH)


def measure() -> dict:
    """Seconds of each, best of three after one that is not counted, and how far its vectors are."""
    texts = some_passages()
    model = build(Pipeline(CHOSEN).student.tower).eval()
    with tempfile.TemporaryDirectory() as folder:
        versions = {
            "reference": reference(texts),
            "leadkit": leadkit(model, texts),
            "sentence-transformers": sentence_transformers(model, texts, Path(folder) / "student"),
        }
        vectors = {name: version() for name, version in versions.items()}
        spent = {name: min(seconds(version, 3)) for name, version in versions.items()}
    expected = vectors["reference"]
    largest = np.abs(expected).max()
    return {
        name: {
            "seconds": spent[name],
            "apart": float(np.abs(vectors[name] - expected).max() / largest),
            "ratio": spent[name] / spent["reference"],
        }
        for name in versions
    }


def main() -> None:
    measured = measure()
    print(
        f"encoding {TEXTS} passages, 6DE; leadkit in bf16 {CHOSEN.bf16}; "
        f"threads {torch.get_num_threads()}"
    )
    for name, row in measured.items():
        rate = TEXTS / row["seconds"]
        print(
            f"{name:22} {row['seconds']:6.2f} s  {rate:6.0f} passages a second  "
            f"ratio {row['ratio']:.3f}  largest difference {row['apart']:.1e}"
        )
    records.write(measured)


if __name__ == "__main__":
    main()

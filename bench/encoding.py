"""Encoding passages with the 6DE on a CPU, text to vector: leadkit, sentence-transformers and a plain reference, the same weights.

Reference: Hugging Face's BERT in float32, texts padded to one length as they come. All three tokenise the texts anew.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import records
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from leadkit.data.sampling import tokenise
from leadkit.config import scale
from leadkit.models.encoders import MODELS, load_tokenizer
from leadkit.export import save_student
from leadkit.experiments.pipeline import Pipeline
from leadkit.models.retrievers import build
from leadkit.retrieval.dense import encode
from leadkit.experiments.store import collection

CHOSEN, TEXTS, BATCH = scale("classroom"), 1000, 32


def reference(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> np.ndarray:
    """The obvious way."""
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            tokens = tokenizer(
                texts[start : start + BATCH],
                padding="max_length",
                truncation=True,
                max_length=CHOSEN.data.passage_tokens,
                return_tensors="pt",
            )
            vectors.append(model(**tokens).last_hidden_state[:, 0])
    return torch.cat(vectors).numpy()


def main() -> dict:
    """Seconds of each, the best of three after one that is not counted, and how far its vectors are from the reference's."""
    passages = collection(CHOSEN.data.collection).passages
    chosen = dict(list(passages.items())[:: len(passages) // TEXTS][:TEXTS])
    model, texts = build(Pipeline(CHOSEN).student.tower).eval(), list(chosen.values())
    tokenizer = load_tokenizer(CHOSEN.student_encoder)
    plain = AutoModel.from_pretrained(
        MODELS / CHOSEN.student_encoder, dtype=torch.float32, add_pooling_layer=False
    )
    with tempfile.TemporaryDirectory() as folder:
        save_student(model, CHOSEN.data, "", Path(folder) / "exported")
        peer = SentenceTransformer(f"{folder}/exported", device="cpu")

        def leadkit() -> np.ndarray:
            with tempfile.TemporaryDirectory() as cache:
                return encode(
                    model, tokenise(chosen, tokenizer, CHOSEN.data.passage_tokens, Path(cache))
                )

        versions: dict[str, Callable[[], np.ndarray]] = {
            "reference": lambda: reference(plain, tokenizer, texts),
            "leadkit": leadkit,
            "sentence-transformers": lambda: peer.encode_document(texts, batch_size=BATCH),
        }
        found, vectors = {}, {name: version() for name, version in versions.items()}
        for name, version in versions.items():
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                version()
                seconds.append(time.perf_counter() - started)
            apart = (
                np.abs(vectors[name] - vectors["reference"]).max()
                / np.abs(vectors["reference"]).max()
            )
            found[name] = {"seconds": min(seconds), "apart": float(apart)}
    return {
        name: row | {"ratio": row["seconds"] / found["reference"]["seconds"]}
        for name, row in found.items()
    }


if __name__ == "__main__":
    measured = main()
    print(
        f"encoding {TEXTS} passages, 6DE; leadkit in bf16 {CHOSEN.bf16}; threads {torch.get_num_threads()}"
    )
    for name, row in measured.items():
        print(
            f"{name:22} {row['seconds']:6.2f} s  {TEXTS / row['seconds']:6.0f} passages a second  ratio {row['ratio']:.3f}  "
            f"largest difference {row['apart']:.1e}"
        )
    records.write(measured)

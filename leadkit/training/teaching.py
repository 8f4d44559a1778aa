"""What an encoder of sentences teaches the miniatures: vectors of texts, and a start of the words.

The encoder is one that was trained with mean pooling, such as all-MiniLM-L6-v2.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertTokenizer, PreTrainedTokenizerBase

from leadkit.data.tokens import pad
from leadkit.files import fingerprint, read_tensors, write_tensors
from leadkit.hardware import DEVICE
from leadkit.models.encoders import load_encoder
from leadkit.models.names import encoder_digest
from leadkit.models.tokenizers import load_tokenizer

AT_ONCE = 64  # lines; of like length


@torch.inference_mode()
def sentence_vectors(encoder: str, lines: list[str], longest: int, bf16: bool) -> Tensor:
    """(lines, D): the mean of each line's token states, of length 1.

    longest: tokens of a line that are read.
    """
    tokenizer = load_tokenizer(encoder)
    model: Any = load_encoder(encoder, dropout=0.0).eval()
    model.to(DEVICE)
    rows = tokenizer(lines, truncation=True, max_length=longest, return_tensors="np")["input_ids"]
    vectors = torch.empty(len(lines), model.config.hidden_size)
    by_length = torch.tensor([len(row) for row in rows]).argsort()  # (lines,)
    for batch in by_length.split(AT_ONCE):
        tokens = pad([rows[i] for i in batch], tokenizer.pad_token_id).to(DEVICE)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            states = model(tokens.ids, attention_mask=tokens.mask).last_hidden_state  # (P, T, D)
        mask = tokens.mask[..., None].float()  # (P, T, 1)
        mean = (states.float() * mask).sum(1) / mask.sum(1)  # (P, D)
        vectors[batch] = F.normalize(mean, dim=1).cpu()
    return vectors


def kept_vectors(
    encoder: str, views: list[list[str]], longest: int, bf16: bool, folder: Path
) -> Tensor:
    """(all lines, D): `sentence_vectors` of each view, computed once and kept in `folder`."""
    vectors = []
    for lines in views:
        name = fingerprint([encoder_digest(encoder), lines, longest, bf16])
        path = folder / f"vectors-{name}.safetensors"
        if not path.exists():
            made = sentence_vectors(encoder, lines, longest, bf16)
            write_tensors(path, {"vectors": made.half()})
        vectors.append(read_tensors(path)["vectors"])
    return torch.cat(vectors).float()


@torch.no_grad()
def word_vectors(encoder: str, tokenizer: BertTokenizer, hidden: int) -> Tensor:
    """(V, hidden): the encoder's word embeddings, reduced to their principal components.

    A token that the encoder does not have gets the mean of its pieces there. The vectors have the
    spread of the initialisation, 1 / sqrt(hidden).
    """
    theirs = load_tokenizer(encoder)
    known = theirs.get_vocab()
    model: Any = load_encoder(encoder, dropout=0.0)
    table = model.get_input_embeddings().weight  # (words, D)
    vocabulary = tokenizer.get_vocab()
    vectors = torch.empty(len(vocabulary), table.shape[1])  # (V, D)
    for token, row in vocabulary.items():
        pieces = [known[token]] if token in known else _pieces(theirs, token)
        vectors[row] = table[pieces].mean(0)
    vectors -= vectors.mean(0)
    _, _, components = torch.linalg.svd(vectors, full_matrices=False)  # (D, D)
    reduced = vectors @ components[:hidden].T  # (V, hidden)
    return reduced / reduced.std() * hidden**-0.5


def _pieces(tokenizer: PreTrainedTokenizerBase, token: str) -> list[int]:
    return tokenizer(token.removeprefix("##"), add_special_tokens=False)["input_ids"]

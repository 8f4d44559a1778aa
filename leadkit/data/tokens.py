"""Texts as tokens: tokenised once per tokeniser, then memory-mapped."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from leadkit import paths
from leadkit.data.passages import Passages
from leadkit.files import alone, digest, write
from leadkit.models.batch import Tokens
from leadkit.models.tokenizers import identity, separators

LAYOUT = 1  # raise it when a change below changes what a token file holds
PORTION = 4096  # texts that are tokenised at once
LONG = 100_000  # texts from which on tokenising shows its progress
NOTHING = np.empty(0, np.int32)  # between the texts of a BERT's pair


class Tokenised:
    """Texts as token ids, special tokens included: one flat array and the offset of each text.

    between, kind: how the tokeniser joins a pair, see `separators`.
    """

    def __init__(
        self,
        flat: np.ndarray,
        offsets: np.ndarray,
        pad: int,
        between: np.ndarray = NOTHING,
        kind: int = 1,
    ):
        self.flat = flat
        self.offsets = offsets
        self.pad = pad
        self.between = between
        self.kind = kind

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def row(self, i: int) -> np.ndarray:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: np.ndarray | list[int]) -> "Tokenised":
        """The texts of these rows alone, in memory."""
        flat = np.concatenate([self.flat[:0], *map(self.row, rows)])
        offsets = np.cumsum([0, *self.lengths[rows]])
        return Tokenised(flat, offsets, self.pad, self.between, self.kind)

    def rows(self, rows: np.ndarray) -> Tokens:
        """The texts of these rows, padded to the longest of them."""
        return pad([self.row(i) for i in rows], self.pad)

    def part(self, rows: np.ndarray, share: slice) -> Tokens:
        """The texts of rows[share], padded to the longest of all `rows`."""
        tokens = self.rows(rows[share])
        longest = int((self.offsets[rows + 1] - self.offsets[rows]).max())
        missing = longest - tokens.ids.shape[1]
        ids = functional.pad(tokens.ids, (0, missing), value=self.pad)
        return Tokens(ids, functional.pad(tokens.mask, (0, missing)))


def pad(rows: list[np.ndarray], value: int, kinds: list[np.ndarray] | None = None) -> Tokens:
    """Token rows to `Tokens`, padded to the longest."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = _padded(rows, value)  # (P, T)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]  # (P, T)
    return Tokens(ids, mask, None if kinds is None else _padded(kinds, 0))


def _padded(rows: list[np.ndarray], value: int) -> torch.Tensor:
    tensors = [torch.from_numpy(row.astype(np.int64)) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value)  # (P, T)


def pair(
    queries: Tokenised, passages: Tokenised, query_rows: np.ndarray, passage_rows: np.ndarray
) -> Tokens:
    """[CLS] query [SEP] passage [SEP] of each pair, as the tokeniser joins them, with types."""
    rows = []
    kinds = []
    for q, p in zip(query_rows, passage_rows, strict=True):
        query = np.concatenate([queries.row(q), passages.between])
        passage = passages.row(p)[1:]
        rows.append(np.concatenate([query, passage]))
        kinds.append(np.repeat([0, passages.kind], [len(query), len(passage)]))
    return pad(rows, passages.pad, kinds)


def tokenise_text(text: str, tokenizer: PreTrainedTokenizerBase, longest: int) -> Tokenised:
    """One text that stands in no collection, tokenised as `tokenise` does; kept nowhere."""
    ids = np.array(tokenizer(text, truncation=True, max_length=longest)["input_ids"], np.int32)
    offsets = np.array([0, len(ids)])
    return Tokenised(ids, offsets, tokenizer.pad_token_id, *separators(tokenizer))


def tokenise(
    texts: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    cache: Path | None = None,
) -> Tokenised:
    """Tokenise once, a few thousand texts at a time; later calls map the cached file.

    longest: tokens per text, special tokens included; longer texts are cut.
    cache: folder of the token files, by default `paths.CACHE`.

    A cached file that is not what was written is rebuilt. Needs 8 bytes of memory a text, and the
    pages of the file that are looked at.
    """
    cache = cache or paths.CACHE
    path = cache / "tokens" / f"{_key(texts, tokenizer, longest)}.tokens"
    seal = path.with_suffix(".sha256")
    largest = max(*tokenizer.get_vocab().values(), longest)
    dtype = np.uint16 if largest < 2**16 else np.int32

    with alone(cache / f".{path.stem}.lock", path):
        if not _is_sealed(path, seal):
            for unfinished in path.parent.glob(f".{path.stem}.*"):  # of a killed process
                unfinished.unlink()
            write(path, lambda temporary: _save(temporary, texts, tokenizer, longest, dtype))
            write(seal, lambda temporary: temporary.write_text(digest(path)))
    mapped = np.memmap(path, dtype, mode="r")
    count = len(texts) + 1
    offsets = np.cumsum(mapped[-count:], dtype=np.int64)
    return Tokenised(mapped[:-count], offsets, tokenizer.pad_token_id, *separators(tokenizer))


def _key(texts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, longest: int) -> str:
    key = hashlib.sha256(json.dumps([LAYOUT, identity(tokenizer), longest]).encode())
    for text in [texts.digest] if isinstance(texts, Passages) else texts.values():
        key.update(text.encode() + b"\0")
    return key.hexdigest()[:16]


def _is_sealed(path: Path, seal: Path) -> bool:
    return path.exists() and seal.exists() and seal.read_bytes() == digest(path).encode()


def _save(
    path: Path,
    texts: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    dtype: type[np.integer],
) -> None:
    """Write the tokens of all texts, then 0 and the length of each text."""
    lengths = [np.zeros(1, dtype)]
    few = len(texts) < LONG
    bar = tqdm(total=len(texts), desc="tokenising", unit="text", leave=False, disable=few)
    with open(path, "wb") as file, bar:
        for portion in _portions(texts.values()):
            rows = tokenizer(
                portion, truncation=True, max_length=longest, return_attention_mask=False
            )["input_ids"]
            # Not tofile: it does not notice every full disk.
            file.write(np.fromiter(chain.from_iterable(rows), dtype).data)
            lengths.append(np.fromiter(map(len, rows), dtype))
            bar.update(len(rows))
        file.write(np.concatenate(lengths).data)


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of `PORTION` texts, fewer where they are long: a token takes about 100 bytes."""
    portion: list[str] = []
    size = 0
    for text in texts:
        portion.append(text)
        size += len(text)
        if len(portion) == PORTION or size >= 1000 * PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion

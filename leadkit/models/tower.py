"""What a retriever is built from."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel

from leadkit.config import added
from leadkit.models import encoders
from leadkit.models.tokenizers import load_tokenizer, separators

SHORTEST = 3  # tokens of a text: [CLS], a word piece and [SEP]


@dataclass(frozen=True)
class Tower:
    """The settings of one retriever."""

    architecture: str  # DE, CB or CE
    encoder: str  # one of data/models, a folder, or a name on the Hugging Face hub
    scale: float = 1.0  # multiplies every score; paper: 1
    linear: int = 0  # width of an appended linear layer, 0 for none (section 4.6.1)
    dropout: float = 0.1  # paper: 0.1 (released scripts)
    bf16: bool = False  # the encoder computes in bfloat16; weights and scores stay float32
    # Score and read texts as the released code does; only `Lead(variant="released")` sets it
    released: bool = False
    pooling: str = added("cls")  # DE: a text's [CLS] state, or the "mean" of its token states
    head: str = added("")  # the checkpoint's own, applied to every layer (models/heads.py)


def depth(tower: Tower) -> int:
    """Number of layers, the appended linear layer included, without loading weights."""
    return encoders.layers(tower.encoder) + (tower.linear > 0)


def passage_in_pair(tower: Tower, query_tokens: int, passage_tokens: int, pair_tokens: int) -> int:
    """The tokens of a passage that fit into pairs of `pair_tokens`, 0 for pairs of any length.

    What does not fit is cut off at its end. The longest query decides, so a passage is cut at one
    place, whatever its query. ValueError where less than one word of a passage would fit.
    """
    if not pair_tokens:
        return passage_tokens
    between = len(separators(load_tokenizer(tower.encoder))[0])
    fit = pair_tokens - query_tokens - between + 1  # its [CLS] is not in the pair
    if fit < SHORTEST:
        raise ValueError(
            f"data.pair_tokens is {pair_tokens}: with data.query_tokens {query_tokens} no word of "
            f"a passage fits, use at least {pair_tokens + SHORTEST - fit}"
        )
    return min(passage_tokens, fit)


def saved_tower(settings: Path, encoder: str) -> Tower:
    """The tower that `Retriever.save` wrote to a file, with this encoder.

    ValueError where the file is damaged or of another leadkit.
    """
    try:
        return Tower(**json.loads(settings.read_text()) | {"encoder": encoder})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{settings} is damaged or of another leadkit ({error})") from error


def check_lengths(
    tower: Tower, query_tokens: int, passage_tokens: int, pairs: bool, pair_tokens: int = 0
) -> None:
    """ValueError where texts are cut to nothing, or do not fit the encoder's position table.

    pairs: whether query and passage stand in one text, of at most `pair_tokens`, 0 for any length.
    """
    for field, tokens in {"query_tokens": query_tokens, "passage_tokens": passage_tokens}.items():
        if tokens < SHORTEST:
            raise ValueError(
                f"data.{field} is {tokens}: use at least {SHORTEST}: [CLS], a word piece and [SEP]"
            )
    tokenizer = load_tokenizer(tower.encoder)
    if pairs:
        passage_tokens = passage_in_pair(tower, query_tokens, passage_tokens, pair_tokens)
        longest = query_tokens + passage_tokens + len(separators(tokenizer)[0]) - 1
        too_long = (
            f"data.query_tokens {query_tokens} and data.passage_tokens {passage_tokens} make "
            f"pairs of {longest} tokens"
        )
    else:
        longest = max(query_tokens, passage_tokens)
        field = "query_tokens" if query_tokens >= passage_tokens else "passage_tokens"
        too_long = f"data.{field} is {longest}"
    for table in _position_tables(tower.encoder):
        # RoBERTa and its kin count positions from the one behind the padding's id.
        first = 0 if table.padding_idx is None else table.padding_idx + 1
        if first and first != tokenizer.pad_token_id + 1:
            raise ValueError(
                f"encoder {tower.encoder!r}: its tokeniser pads with id {tokenizer.pad_token_id}, "
                f"its position table with {table.padding_idx}; they do not belong together"
            )
        if longest > table.num_embeddings - first:
            raise ValueError(
                f"{too_long}: the position table of encoder {tower.encoder!r} holds "
                f"{table.num_embeddings - first}, use at most that"
            )


def _position_tables(encoder: str) -> list[nn.Embedding]:
    with torch.device("meta"):  # no weights
        model = AutoModel.from_config(encoders.load_config(encoder))
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
    ]

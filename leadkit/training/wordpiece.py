"""The tokeniser of the miniatures."""

from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONGEST = 256  # tokens of a text that an encoder takes


def train_tokenizer(lines: list[str], vocabulary: int) -> BertTokenizer:
    """An uncased WordPiece tokeniser with BERT's special tokens. The same lines give the same one.

    The trainer would number the characters inside of words at random, and it chooses between
    equally frequent pairs by these numbers. They are therefore given to it, sorted, as special
    tokens; in the tokeniser that is returned they are ordinary tokens.
    """
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(
        lines,
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=SPECIAL_TOKENS + _inner_characters(trained, lines),
    )
    plain = BertWordPieceTokenizer(trained.get_vocab(), lowercase=True)
    return BertTokenizer(
        tokenizer_object=plain._tokenizer, do_lower_case=True, model_max_length=LONGEST
    )


def _inner_characters(wordpiece: BertWordPieceTokenizer, lines: list[str]) -> list[str]:
    """Every character that is not the first of a word, as a sorted list of tokens (##a)."""
    normalizer = wordpiece._tokenizer.normalizer
    splitter = wordpiece._tokenizer.pre_tokenizer
    pieces = {piece for line in lines for piece in normalizer.normalize_str(line).split()}
    words = {word for piece in pieces for word, _ in splitter.pre_tokenize_str(piece)}
    characters = {character for word in words for character in word[1:]}
    return [f"##{character}" for character in sorted(characters)]

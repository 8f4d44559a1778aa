"""What the name of an encoder means.

- one of data/models, a folder, or a name on the Hugging Face hub;
- "stacked:LAYERS:NAME": an encoder whose pile of layers is repeated up to LAYERS;
- "random:LxH": an untrained BERT of L layers and hidden size H, with our miniatures' tokeniser.
"""

import re
from pathlib import Path

from leadkit import paths
from leadkit.files import digest, fingerprint

TOKENISER = "bert-6x128"  # of the untrained encoders


def source(encoder: str) -> str:
    """Where transformers finds an encoder: a folder of data/models, else the name as it is."""
    name = stacked(encoder)[1]
    ours = paths.MODELS / name
    return str(ours) if (ours / "config.json").is_file() else name


def tokenizer_source(encoder: str) -> str:
    """Where transformers finds the tokeniser of an encoder."""
    return source(TOKENISER if untrained(encoder) else encoder)


def stacked(encoder: str) -> tuple[int, str]:
    """(LAYERS, NAME) of "stacked:LAYERS:NAME"; (0, encoder) for any other name."""
    match = re.fullmatch(r"stacked:(\d+):(.+)", encoder)
    return (int(match[1]), match[2]) if match else (0, encoder)


def untrained(encoder: str) -> tuple[int, int] | None:
    """(layers, hidden size) of "random:LxH"; None for any other name."""
    match = re.fullmatch(r"random:(\d+)x(\d+)", encoder)
    return (int(match[1]), int(match[2])) if match else None


def encoder_digest(encoder: str) -> str:
    """Identity of an encoder's weights: a digest of local files, or the hub name."""
    folder = Path(source(encoder))
    if not folder.is_dir():
        return encoder
    return fingerprint([digest(weights) for weights in sorted(folder.glob("*.safetensors"))])


def unreadable(encoder: str, error: Exception) -> Exception:
    """The error to raise where transformers cannot read a tokeniser or a configuration."""
    if "trust_remote_code" in str(error):
        return ValueError(
            f"encoder {encoder!r}: its configuration asks for code of its own (auto_map), which "
            "is never run here; use an encoder whose model_type transformers knows"
        )
    if not Path(source(encoder)).is_dir() and not untrained(encoder):
        return OSError(
            f"encoder {encoder!r} is neither a folder, nor one of {paths.MODELS}, nor a model "
            "that this machine gets from the Hugging Face hub"
        )
    return ValueError(f"encoder {encoder!r}: its tokeniser or config.json cannot be read ({error})")

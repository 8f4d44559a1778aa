"""What the name of an encoder means.

- one of data/models, a folder, or a name on the Hugging Face hub; some of these come in a Python
  package too (packaged.py), which is then read instead of the hub;
- "stacked:LAYERS:NAME": an encoder whose pile of layers is repeated up to LAYERS;
- "layers:2,4,6:NAME": an encoder of which only these layers are kept, in this order;
- "random:LxH": an untrained BERT of L layers and hidden size H, with our miniatures' tokeniser.

NAME may be "stacked:" or "layers:" again: what is nearest to the encoder is done first.
"""

import os
import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from leadkit import paths
from leadkit.files import digest, fingerprint, visible
from leadkit.models.folders import modules
from leadkit.models.packaged import PACKAGED, packaged_folder

TOKENISER = "bert-6x128"  # of the untrained encoders
SAY_NOTHING = ("record.json",)  # how a miniature was trained
# Fingerprints of configuration and tokeniser of the shipped miniatures, 6 and 12 layers
SHIPPED_TEXTS = ("a397219da92c", "fb951dcf3cb8")


def source(encoder: str) -> str:
    """Where transformers finds an encoder: a folder, else the name on the hub.

    Raises as `packaged_folder`.
    """
    folder = root(encoder)
    if (Path(folder) / "config.json").is_file():
        return folder
    inside = [module["path"] for module in modules(Path(folder))][:1]  # the Transformer is first
    return str(Path(folder, *inside)) if inside else folder


def root(encoder: str) -> str:
    """As `source`; of a folder of sentence-transformers the whole, not its Transformer's part."""
    name = os.path.expanduser(reshaped(encoder)[1])
    ours = paths.MODELS / name
    if Path(name).parts == (name,) and (ours / "config.json").is_file():  # ./NAME is a folder
        return str(ours)
    return str(packaged_folder(name) or name)


def tokenizer_source(encoder: str) -> str:
    """Where transformers finds the tokeniser of an encoder."""
    return source(TOKENISER if untrained(encoder) else encoder)


def reshaped(encoder: str) -> tuple[list[tuple[str, tuple[int, ...]]], str]:
    """How an encoder's pile of layers is changed, the first change first, and the encoder's name.

    A change is ("stacked", (LAYERS,)) or ("layers", the layers that are kept). ValueError for
    layers that are no whole numbers in ascending order.
    """
    match = re.fullmatch(r"(?:stacked:(\d+)|layers:([^:]*)):(.+)", encoder)
    if not match:
        return [], encoder
    stacked, kept, name = match.groups()
    changes, name = reshaped(name)
    if stacked:
        return [*changes, ("stacked", (int(stacked),))], name
    numbers = kept.split(",")
    if not all(re.fullmatch(r"\d{1,4}", number) for number in numbers):
        raise ValueError(
            f"encoder {encoder!r}: layers {kept!r} are not whole numbers with commas between, "
            "such as 2,4,6"
        )
    layers = tuple(map(int, numbers))
    if list(layers) != sorted(set(layers)):
        raise ValueError(
            f"encoder {encoder!r}: layers {kept!r} are not in ascending order, each once"
        )
    return [*changes, ("layers", layers)], name


def untrained(encoder: str) -> tuple[int, int] | None:
    """(layers, hidden size) of "random:LxH"; None for any other name."""
    match = re.fullmatch(r"random:(\d+)x(\d+)", encoder)
    return (int(match[1]), int(match[2])) if match else None


def encoder_digest(encoder: str) -> str:
    """Identity of an encoder: a digest of local files, or its name on the hub and the revision.

    Two kinds have the identity of former versions, so that stages and records stay valid: an
    encoder that also comes in a package has the hub's name alone, and a folder whose configuration
    and tokeniser are those of a shipped miniature has the digest of its weights alone.
    """
    name = reshaped(encoder)[1]
    if name in PACKAGED:
        return encoder
    whole = Path(root(TOKENISER if untrained(encoder) else encoder))
    if not whole.is_dir():
        revision = _cached_revision(name)
        return f"{encoder}@{revision}" if revision else encoder
    weights = [digest(path) for path in visible(whole, "*.safetensors")]
    texts = {
        str(path.relative_to(whole)): digest(path)
        for pattern in ("*.json", "*.txt", "*.model")
        for path in visible(whole, f"**/{pattern}")
        if path.name not in SAY_NOTHING
    }
    is_shipped = fingerprint(texts) in SHIPPED_TEXTS
    if untrained(encoder):
        return encoder if is_shipped else f"{encoder}@{fingerprint(texts)}"
    if is_shipped:
        return fingerprint(weights)
    below = [digest(path) for path in visible(whole, "*/*.safetensors")]  # of a head, for example
    return fingerprint([weights, below, texts])


def _cached_revision(name: str) -> str | None:
    """The revision of a hub model that this machine has; a tower's configuration is there first."""
    try:
        path = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name of the hub
        return None
    return Path(path).parent.name if isinstance(path, str) else None


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

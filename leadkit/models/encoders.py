"""Encoders and their tokenisers: by the name of one of data/models, of a folder or of the Hugging Face hub; grown or untrained.

"stacked:LAYERS:NAME" repeats an encoder's pile of layers; "random:LxH" is an untrained BERT.
"""

import copy
import inspect
import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.configuration_utils import PreTrainedConfig

from leadkit.files import digest, fingerprint

MODELS = Path(__file__).parent.parent / "data" / "models"
TOKENISER = "bert-6x128"  # of the untrained encoders
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",  # BERT, RoBERTa, ELECTRA ...
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)  # DistilBERT, ModernBERT


def _where(encoder: str) -> str:
    """The folder of an encoder of data/models, stacked or not; any other name or folder as it is."""
    name = _stacked(encoder)[1]
    return str(MODELS / name) if (MODELS / name / "config.json").is_file() else name


def _stacked(encoder: str) -> tuple[int, str]:
    """(layers, NAME) of "stacked:LAYERS:NAME", an encoder that is grown to so many layers; (0, encoder) for any other."""
    found = re.fullmatch(r"stacked:(\d+):(.+)", encoder)
    return (int(found[1]), found[2]) if found else (0, encoder)


def _random(encoder: str) -> tuple[int, int] | None:
    """(layers, hidden) of "random:LxH", an untrained BERT with our miniatures' tokeniser; None for any other encoder."""
    shape = re.fullmatch(r"random:(\d+)x(\d+)", encoder)
    return shape and tuple(map(int, shape.groups()))


def encoder_digest(encoder: str) -> str:
    """What the weights of an encoder are known by: the digest of a local folder's files, the name of any other."""
    folder = Path(_where(encoder))
    return (
        fingerprint([digest(p) for p in sorted(folder.glob("*.safetensors"))])
        if folder.is_dir()
        else encoder
    )


def _unreadable(encoder: str, source: str, error: Exception) -> Exception:
    """What to raise, and why, where transformers cannot read the tokeniser or the configuration at `source`."""
    if "trust_remote_code" in str(error):
        return ValueError(
            f"encoder {encoder!r}: its configuration asks for code of its own (auto_map), which is never run here; "
            "use an encoder whose model_type transformers knows"
        )
    if not Path(source).is_dir():
        return OSError(
            f"encoder {encoder!r} is neither a folder, nor one of {MODELS}, nor a model that this machine gets from "
            "the Hugging Face hub"
        )
    return ValueError(f"encoder {encoder!r}: its tokeniser or config.json cannot be read ({error})")


def load_tokenizer(encoder: str) -> PreTrainedTokenizerBase:
    """The tokeniser of an encoder. OSError where there is none of that name; ValueError where it is damaged, asks for code of its
    own, or is not like BERT's: [CLS] (RoBERTa: <s>) before each text, [SEP] (</s>) behind it."""
    source = _where(TOKENISER if _random(encoder) else encoder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        ids = tokenizer("a")["input_ids"]
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise _unreadable(encoder, source, error) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser has no words; the folder needs a tokenizer.json or vocab.txt"
        )
    special = {
        "[CLS] (or <s>)": tokenizer.cls_token_id,
        "[SEP] (or </s>)": tokenizer.sep_token_id,
        "[PAD] (or <pad>)": tokenizer.pad_token_id,
    }
    if lacks := [name for name, token in special.items() if token is None]:
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser lacks {', '.join(lacks)}; one like BERT's or RoBERTa's is needed"
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser is written in Python; the folder needs a tokenizer.json"
        )
    if (ids[:1], ids[-1:]) != ([tokenizer.cls_token_id], [tokenizer.sep_token_id]):
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser makes {tokenizer.decode(ids)!r} of the text 'a'; "
            f"{tokenizer.cls_token} must stand before a text and {tokenizer.sep_token} behind it"
        )
    return tokenizer


def load_config(encoder: str) -> PreTrainedConfig:
    """The configuration of an encoder, without loading its weights. OSError and ValueError as `load_tokenizer`."""
    if shape := _random(encoder):
        layers, hidden = shape
        return BertConfig(
            vocab_size=len(load_tokenizer(encoder)),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=4 * hidden,
        )
    source = _where(encoder)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # whatever transformers meets in a config.json
        raise _unreadable(encoder, source, error) from error
    config._attn_implementation = (
        None  # the default: a config.json may name a kernel of the hub, which is code
    )
    return config


def layers(encoder: str) -> int:
    """Number of layers of an encoder, without loading its weights."""
    return (_random(encoder) or _stacked(encoder))[0] or load_config(encoder).num_hidden_layers


def check(encoder: str) -> None:
    """What is wrong with an encoder and shows without loading it: before any work starts.

    FileNotFoundError for a folder without weights; ValueError for damaged weights, weights outside of the folder, a tokeniser with
    more words than the embedding table, no layer, or a stack of fewer layers than there are.
    """
    words, folder = len(load_tokenizer(encoder)), Path(_where(encoder))
    if _random(encoder):
        return
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"encoder {encoder!r}: the folder holds no weights (*.safetensors); others, pytorch_model.bin for "
            "one, are pickled and never read"
        )
    for weights in folder.glob("*.safetensors"):
        try:
            safe_open(weights, "pt")
        except SafetensorError as error:
            raise ValueError(f"encoder {encoder!r}: {weights.name} is damaged ({error})") from error
    for index in folder.glob("*.safetensors.index.json"):
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"encoder {encoder!r}: {index.name} is damaged ({error!r:.200})"
            ) from error
        if lost := [part for part in parts if part not in {path.name for path in folder.iterdir()}]:
            raise ValueError(
                f"encoder {encoder!r}: {index.name} names {str(lost[0])!r:.80}, which is no file of the folder"
            )
    config, layers = load_config(encoder), _stacked(encoder)[0]
    if config.num_hidden_layers < 1:
        raise ValueError(
            f"encoder {encoder!r}: its config.json says {config.num_hidden_layers} layers; at least one is needed"
        )
    if config.is_encoder_decoder:
        raise ValueError(
            f"encoder {encoder!r}: a {config.model_type} is an encoder and a decoder; an encoder alone is needed"
        )
    if words > config.vocab_size:
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser has {words} words, its embedding table {config.vocab_size} rows; "
            "they do not belong together"
        )
    if layers and layers < config.num_hidden_layers:
        raise ValueError(
            f"encoder {encoder!r}: it has {config.num_hidden_layers} layers already, stacking takes none away"
        )


def grow(encoder: PreTrainedModel, layers: int) -> None:
    """Repeat an encoder's pile of layers, in place, until there are `layers` of them (Gong et al. 2019)."""
    depth = encoder.config.num_hidden_layers
    pile = next(m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    shared = {id(encoder.config): encoder.config}  # which says how all blocks attend
    pile.extend(copy.deepcopy(pile[i % depth], dict(shared)) for i in range(depth, layers))
    encoder.config.num_hidden_layers = layers


def without_pooling(config: PreTrainedConfig) -> dict[str, bool]:
    """The argument that leaves out the pooling layer, where models of this configuration have one."""
    accepted = inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}


def load_encoder(encoder: str, dropout: float) -> PreTrainedModel:
    """The encoder of a folder or hub name in float32, without a pooling layer. Raises as `check`."""
    check(encoder)
    config = load_config(encoder)
    for field in DROPOUTS:
        if hasattr(config, field):
            setattr(config, field, dropout)
    if _random(encoder):
        return AutoModel.from_config(config, **without_pooling(config))
    try:
        model, report = AutoModel.from_pretrained(
            _where(encoder),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **without_pooling(config),
        )
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"encoder {encoder!r}: its weights are damaged or of another shape ({error})"
        ) from error
    except (ImportError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"encoder {encoder!r}: its config.json asks for what there is not ({error})"
        ) from error
    if missing := sorted(name for name in report["missing_keys"] if "pooler" not in name):
        raise ValueError(
            f"encoder {encoder!r}: its weights lack {len(missing)} tensors of its config.json, first {missing[0]}"
        )
    if layers := _stacked(encoder)[0]:
        grow(model, layers)
    return model

"""Encoders: loaded after every check that needs no weights; stacked, cut, or untrained."""

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, BertConfig, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from leadkit.files import visible
from leadkit.models import names
from leadkit.models.tokenizers import load_tokenizer

DROPOUTS = (
    "hidden_dropout_prob",  # BERT, RoBERTa, ELECTRA, ...
    "attention_probs_dropout_prob",
    "dropout",  # DistilBERT, ModernBERT
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)


def load_config(encoder: str) -> PreTrainedConfig:
    """The configuration of an encoder, without its weights. Raises as `load_tokenizer`."""
    if shape := names.untrained(encoder):
        layers, hidden = shape
        return BertConfig(
            vocab_size=len(load_tokenizer(encoder)),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=4 * hidden,
        )
    try:
        config = AutoConfig.from_pretrained(names.source(encoder), trust_remote_code=False)
    except Exception as error:  # whatever transformers meets in a config.json
        raise names.unreadable(encoder, error) from error
    # The default attention: a config.json may name a kernel of the hub, which is code.
    config._attn_implementation = None
    return config


def layers(encoder: str) -> int:
    """Number of layers of an encoder, without its weights."""
    if shape := names.untrained(encoder):
        return shape[0]
    return _reshaped_depth(encoder, load_config(encoder).num_hidden_layers)


def hidden_size(encoder: str) -> int:
    """Hidden size of an encoder, without its weights."""
    if shape := names.untrained(encoder):
        return shape[1]
    return load_config(encoder).hidden_size


def check(encoder: str) -> None:
    """Find what is wrong with an encoder and shows without loading it, before any work starts.

    FileNotFoundError for a folder without weights; ValueError for damaged weights, weights outside
    of the folder, a tokeniser with more words than the embedding table, no layer, a stack of fewer
    layers than there are, or layers to keep that do not exist.
    """
    words = len(load_tokenizer(encoder))
    if names.untrained(encoder):
        return
    folder = Path(names.source(encoder))
    if folder.is_dir():
        _check_weights(encoder, folder)
    _check_config(encoder, load_config(encoder), words)


def _check_weights(encoder: str, folder: Path) -> None:
    if not visible(folder, "*.safetensors"):
        raise FileNotFoundError(
            f"encoder {encoder!r}: the folder holds no weights (*.safetensors); others, "
            "pytorch_model.bin for one, are pickled and never read"
        )
    for weights in visible(folder, "*.safetensors"):
        try:
            safe_open(weights, "pt")
        except SafetensorError as error:
            raise ValueError(f"encoder {encoder!r}: {weights.name} is damaged ({error})") from error
    files = {path.name for path in folder.iterdir()}
    for index in visible(folder, "*.safetensors.index.json"):
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"encoder {encoder!r}: {index.name} is damaged ({error!r:.200})"
            ) from error
        lost = [part for part in parts if part not in files]
        if lost:
            raise ValueError(
                f"encoder {encoder!r}: {index.name} names {str(lost[0])!r:.80}, which is no file "
                "of the folder"
            )


def _check_config(encoder: str, config: PreTrainedConfig, words: int) -> None:
    if config.num_hidden_layers < 1:
        raise ValueError(
            f"encoder {encoder!r}: its config.json says {config.num_hidden_layers} layers; at "
            "least one is needed"
        )
    if config.is_encoder_decoder:
        raise ValueError(
            f"encoder {encoder!r}: a {config.model_type} is an encoder and a decoder; an encoder "
            "alone is needed"
        )
    if words > config.vocab_size:
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser has {words} words, its embedding table "
            f"{config.vocab_size} rows; they do not belong together"
        )
    _reshaped_depth(encoder, config.num_hidden_layers)


def _reshaped_depth(encoder: str, depth: int) -> int:
    """Number of layers after what the name does to a pile of `depth`."""
    for change, numbers in names.reshaped(encoder)[0]:
        if change == "stacked":
            if numbers[0] < depth:
                raise ValueError(
                    f"encoder {encoder!r}: it has {depth} layers already, stacking takes none away"
                )
            depth = numbers[0]
        else:
            if not 1 <= numbers[0] <= numbers[-1] <= depth:
                missing = numbers[0] if numbers[0] < 1 else numbers[-1]
                raise ValueError(
                    f"encoder {encoder!r}: layer {missing} does not exist, it has layers 1 to "
                    f"{depth}"
                )
            depth = len(numbers)
    return depth


def grow(encoder: PreTrainedModel, layers: int) -> None:
    """Repeat an encoder's pile of layers, in place, up to `layers` of them (Gong et al. 2019)."""
    pile = blocks(encoder)
    depth = len(pile)
    shared = {id(encoder.config): encoder.config}  # says how all blocks attend
    pile.extend(copy.deepcopy(pile[i % depth], dict(shared)) for i in range(depth, layers))
    encoder.config.num_hidden_layers = layers


def keep(encoder: PreTrainedModel, layers: tuple[int, ...]) -> None:
    """Take every other layer out of an encoder's pile, in place. layers: 1-based, ascending."""
    pile = blocks(encoder)
    for layer in range(len(pile), 0, -1):
        if layer not in layers:
            del pile[layer - 1]
    encoder.config.num_hidden_layers = len(pile)


def blocks(encoder: PreTrainedModel) -> nn.ModuleList:
    """The Transformer blocks of an encoder, from the first to the last."""
    depth = encoder.config.num_hidden_layers
    piles = (module for module in encoder.modules() if isinstance(module, nn.ModuleList))
    return next(pile for pile in piles if len(pile) == depth)


def without_pooling(config: PreTrainedConfig) -> dict[str, bool]:
    """The argument that leaves out the pooling layer, where models of this kind have one."""
    model: Any = MODEL_MAPPING[type(config)]
    accepted = inspect.signature(model.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}


def load_encoder(encoder: str, dropout: float) -> PreTrainedModel:
    """An encoder in float32, without a pooling layer. Raises as `check`."""
    check(encoder)
    config = load_config(encoder)
    for field in DROPOUTS:
        if hasattr(config, field):
            setattr(config, field, dropout)
    if names.untrained(encoder):
        return AutoModel.from_config(config, **without_pooling(config))
    model = _load_weights(encoder, config)
    for change, numbers in names.reshaped(encoder)[0]:
        if change == "stacked":
            grow(model, numbers[0])
        else:
            keep(model, numbers)
    return model


def _load_weights(encoder: str, config: PreTrainedConfig) -> PreTrainedModel:
    try:
        model, report = AutoModel.from_pretrained(
            names.source(encoder),
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
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise ValueError(
            f"encoder {encoder!r}: its weights lack {len(missing)} tensors of its config.json, "
            f"first {missing[0]}"
        )
    return model

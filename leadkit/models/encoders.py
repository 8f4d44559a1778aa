"""Encoders: loaded after every check that needs no weights; stacked, cut, or untrained."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, BertConfig, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from leadkit.models import names
from leadkit.models.folders import check_folder, check_heads, check_names
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


def check(encoder: str, head: str = "") -> None:
    """Find what is wrong with an encoder and shows without its weights, before any work starts.

    head: what of the checkpoint's head is used (`Tower.head`).

    FileNotFoundError for no safetensors; ValueError for damaged weights, weights outside of the
    folder, weights of other names or shapes than the config.json asks for, a head or an adapter
    that would be dropped, a tokeniser with more words than the embedding table, no layer, a stack
    of fewer layers than there are, or layers to keep that do not exist.
    """
    words = len(load_tokenizer(encoder))
    if names.untrained(encoder):
        return
    folder = Path(names.source(encoder))
    if folder.is_dir():
        check_folder(encoder, folder)
        check_heads(encoder, Path(names.root(encoder)), head)
    config = load_config(encoder)
    _check_config(encoder, config, words)
    _compare_names(encoder, head, stamp(encoder))


def stamp(encoder: str) -> tuple[tuple[str, int, int], ...]:
    """Path, size and time of each file of an encoder's folder; nothing where there is none.

    What was found out about an encoder is true as long as its stamp stays the same.
    """
    whole = Path(names.root(names.TOKENISER if names.untrained(encoder) else encoder))
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report and progress."""
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


@cache
def _compare_names(encoder: str, head: str, stamp: object) -> None:
    """Compare the names and shapes of the weights with the model's; none of them is read.

    stamp: looks again where a file has changed.
    """
    with _quiet():
        model, report = _from_pretrained(encoder, load_config(encoder), device_map="meta")
    check_names(encoder, report, head)
    if names.reshaped(encoder)[0]:
        blocks(model)


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
    """Remove all layers but these from an encoder's pile, in place. layers: 1-based, ascending."""
    pile = blocks(encoder)
    for layer in range(len(pile), 0, -1):
        if layer not in layers:
            del pile[layer - 1]
    encoder.config.num_hidden_layers = len(pile)


def blocks(encoder: PreTrainedModel) -> nn.ModuleList:
    """The Transformer blocks of an encoder, from the first to the last.

    ValueError where it has no pile of them, as an ALBERT, which repeats one block.
    """
    depth = encoder.config.num_hidden_layers
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(
        f"encoder: model type {encoder.config.model_type!r} has no pile of {depth} blocks: "
        "none can be added or taken away"
    )


def without_pooling(config: PreTrainedConfig) -> dict[str, bool]:
    """The argument that leaves out the pooling layer, where models of this kind have one."""
    model: Any = MODEL_MAPPING[type(config)]
    accepted = inspect.signature(model.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}


def load_encoder(encoder: str, dropout: float, head: str = "") -> PreTrainedModel:
    """An encoder in float32, without a pooling layer. Arguments and errors as in `check`."""
    check(encoder, head)
    config = load_config(encoder)
    for field in DROPOUTS:
        if hasattr(config, field):
            setattr(config, field, dropout)
    if names.untrained(encoder):
        return AutoModel.from_config(config, **without_pooling(config))
    model, report = _from_pretrained(encoder, config)
    check_names(encoder, report, head)
    for change, numbers in names.reshaped(encoder)[0]:
        if change == "stacked":
            grow(model, numbers[0])
        else:
            keep(model, numbers)
    return model


def _from_pretrained(encoder: str, config: PreTrainedConfig, **how: Any) -> tuple[Any, dict]:
    """The model and transformers' report on the names of its weights."""
    try:
        return AutoModel.from_pretrained(
            names.source(encoder),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **without_pooling(config),
            **how,
        )
    except OSError as error:
        raise FileNotFoundError(
            f"encoder {encoder!r}: it has no weights in safetensors; others, pytorch_model.bin for "
            f"one, are pickled and never read ({error})"
        ) from error
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"encoder {encoder!r}: its weights are damaged or of another shape ({error})"
        ) from error
    except Exception as error:  # whatever transformers meets in a config.json
        raise ValueError(
            f"encoder {encoder!r}: its config.json asks for what there is not ({error})"
        ) from error

"""Encoders and their tokenisers: by the name of one of data/models, of a folder or of the Hugging Face hub; grown or untrained.

"stacked:LAYERS:NAME" repeats an encoder's pile of layers; "random:LxH" is an untrained BERT.
"""

import copy
import inspect
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer, BertConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.configuration_utils import PreTrainedConfig

from leadkit.files import digest, fingerprint

MODELS = Path(__file__).parent.parent / "data" / "models"
TOKENISER = "bert-6x128"  # of the untrained encoders
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob",  # BERT, RoBERTa, ELECTRA ...
            "dropout", "attention_dropout", "embedding_dropout", "mlp_dropout")  # DistilBERT, ModernBERT


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
    return fingerprint([digest(p) for p in sorted(folder.glob("*.safetensors"))]) if folder.is_dir() else encoder


def load_tokenizer(encoder: str) -> PreTrainedTokenizerBase:
    """The tokeniser of an encoder. OSError where there is none of that name; ValueError where it is damaged or not like BERT's:
    [CLS] (RoBERTa: <s>) before each text, [SEP] (</s>) behind it."""
    source = _where(TOKENISER if _random(encoder) else encoder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the tokenizers library raises nothing narrower
        if not Path(source).is_dir():
            raise OSError(f"encoder {encoder!r} is neither a folder, nor one of {MODELS}, nor a model that this machine gets from "
                          "the Hugging Face hub") from error
        raise ValueError(f"encoder {encoder!r}: its tokeniser or config.json cannot be read ({error})") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"encoder {encoder!r}: its tokeniser has no words; the folder needs a tokenizer.json or vocab.txt")
    special = {"[CLS] (or <s>)": tokenizer.cls_token_id, "[SEP] (or </s>)": tokenizer.sep_token_id,
               "[PAD] (or <pad>)": tokenizer.pad_token_id}
    if lacks := [name for name, token in special.items() if token is None]:
        raise ValueError(f"encoder {encoder!r}: its tokeniser lacks {', '.join(lacks)}; one like BERT's or RoBERTa's is needed")
    if not tokenizer.is_fast:
        raise ValueError(f"encoder {encoder!r}: its tokeniser is written in Python; the folder needs a tokenizer.json")
    ids = tokenizer("a")["input_ids"]
    if (ids[0], ids[-1]) != (tokenizer.cls_token_id, tokenizer.sep_token_id):
        raise ValueError(f"encoder {encoder!r}: its tokeniser makes {tokenizer.decode(ids)!r} of the text 'a'; "
                         f"{tokenizer.cls_token} must stand before a text and {tokenizer.sep_token} behind it")
    return tokenizer


def load_config(encoder: str) -> PreTrainedConfig:
    """The configuration of an encoder, without loading its weights."""
    if shape := _random(encoder):
        layers, hidden = shape
        return BertConfig(vocab_size=len(load_tokenizer(encoder)), hidden_size=hidden, num_hidden_layers=layers,
                          num_attention_heads=2, intermediate_size=4 * hidden)
    return AutoConfig.from_pretrained(_where(encoder))


def layers(encoder: str) -> int:
    """Number of layers of an encoder, without loading its weights."""
    return (_random(encoder) or _stacked(encoder))[0] or load_config(encoder).num_hidden_layers


def check(encoder: str) -> None:
    """What is wrong with an encoder and shows without loading it: before any work starts.

    FileNotFoundError for a folder without weights; ValueError for damaged weights, a tokeniser with more words than the
    embedding table, or a stack of fewer layers than there are.
    """
    words, folder = len(load_tokenizer(encoder)), Path(_where(encoder))
    if _random(encoder):
        return
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"encoder {encoder!r}: the folder holds no weights (*.safetensors)")
    for weights in folder.glob("*.safetensors"):
        try:
            safe_open(weights, "pt")
        except SafetensorError as error:
            raise ValueError(f"encoder {encoder!r}: {weights.name} is damaged ({error})") from error
    config, layers = load_config(encoder), _stacked(encoder)[0]
    if config.is_encoder_decoder:
        raise ValueError(f"encoder {encoder!r}: a {config.model_type} is an encoder and a decoder; an encoder alone is needed")
    if words > config.vocab_size:
        raise ValueError(f"encoder {encoder!r}: its tokeniser has {words} words, its embedding table {config.vocab_size} rows; "
                         "they do not belong together")
    if layers and layers < config.num_hidden_layers:
        raise ValueError(f"encoder {encoder!r}: it has {config.num_hidden_layers} layers already, stacking takes none away")


def set_attention(model: PreTrainedModel, bf16: bool) -> None:
    """The fused attention, which is the default, but on a CPU in bfloat16, where its backward pass is slow, the plain one."""
    if bf16 and not torch.cuda.is_available():
        model.set_attn_implementation("eager")


def grow(encoder: PreTrainedModel, layers: int) -> None:
    """Repeat an encoder's pile of layers, in place, until there are `layers` of them (Gong et al. 2019)."""
    depth = encoder.config.num_hidden_layers
    pile = next(m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    pile.extend(copy.deepcopy(pile[i % depth]) for i in range(depth, layers))
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
        model, report = AutoModel.from_pretrained(_where(encoder), config=config, dtype=torch.float32, use_safetensors=True,
                                                  output_loading_info=True, **without_pooling(config))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"encoder {encoder!r}: its weights are damaged or of another shape ({error})") from error
    if missing := sorted(name for name in report["missing_keys"] if "pooler" not in name):
        raise ValueError(f"encoder {encoder!r}: its weights lack {len(missing)} tensors of its config.json, first {missing[0]}")
    if layers := _stacked(encoder)[0]:
        grow(model, layers)
    return model

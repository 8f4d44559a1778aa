"""Three retrievers, one contract: layer scores (K, B, C) and final scores (B, C) for a batch (LEAD, section 3.2).

Layers are numbered from 1: layer i is the state after the i-th Transformer block; embeddings are no layer. A linear layer that is
appended to the tower is layer L + 1. Every score is multiplied by the retriever's constant `scale` (paper: 1): states after a layer
norm have norm sqrt(H), so raw products saturate every softmax.
"""

import copy
import inspect
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer, BertConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from leadkit import scores
from leadkit.batches import Batch, Tokens, separators
from leadkit.files import digest, fingerprint, read_tensors, write_folder, write_json, write_tensors

MODELS = Path(__file__).parent.parent / "data" / "models"
TOKENISER = "bert-6x128"  # of the untrained encoders
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob",  # BERT, RoBERTa, ELECTRA ...
            "dropout", "attention_dropout", "embedding_dropout", "mlp_dropout")  # DistilBERT, ModernBERT


@dataclass(frozen=True)
class Tower:
    """What a retriever is built from."""

    architecture: str  # DE, CB or CE
    encoder: str  # one of data/models, a folder, or a name on the Hugging Face hub
    scale: float = 1.0  # multiplies every score; paper: 1
    linear: int = 0  # width of an appended linear layer, 0 for none (section 4.6.1)
    dropout: float = 0.1  # paper: 0.1 (released scripts)
    bf16: bool = False  # the encoder computes in bfloat16; weights, states between modules and scores stay float32
    released: bool = False  # CB only: normalise the final output and count every query position, as the released code does


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


def _config(encoder: str) -> PreTrainedConfig:
    """The configuration of an encoder, without loading its weights."""
    if shape := _random(encoder):
        layers, hidden = shape
        return BertConfig(vocab_size=len(load_tokenizer(encoder)), hidden_size=hidden, num_hidden_layers=layers,
                          num_attention_heads=2, intermediate_size=4 * hidden)
    return AutoConfig.from_pretrained(_where(encoder))


def depth(tower: Tower) -> int:
    """Number of layers of a tower, the appended linear layer included, without loading its weights."""
    layers = (_random(tower.encoder) or _stacked(tower.encoder))[0]
    return (layers or _config(tower.encoder).num_hidden_layers) + (tower.linear > 0)


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
    config, layers = _config(encoder), _stacked(encoder)[0]
    if config.is_encoder_decoder:
        raise ValueError(f"encoder {encoder!r}: a {config.model_type} is an encoder and a decoder; an encoder alone is needed")
    if words > config.vocab_size:
        raise ValueError(f"encoder {encoder!r}: its tokeniser has {words} words, its embedding table {config.vocab_size} rows; "
                         "they do not belong together")
    if layers and layers < config.num_hidden_layers:
        raise ValueError(f"encoder {encoder!r}: it has {config.num_hidden_layers} layers already, stacking takes none away")


def check_lengths(tower: Tower, query_tokens: int, passage_tokens: int) -> None:
    """ValueError where a text, of a CE a pair of texts, can be longer than the position table of the tower's encoder."""
    tokenizer = load_tokenizer(tower.encoder)
    longest, field = max((query_tokens, "query_tokens"), (passage_tokens, "passage_tokens"))
    is_too_long = f"data.{field} is {longest}"
    if tower.architecture == "CE":
        longest = query_tokens + passage_tokens + len(separators(tokenizer)[0]) - 1
        is_too_long = f"data.query_tokens {query_tokens} and data.passage_tokens {passage_tokens} make pairs of {longest} tokens"
    with torch.device("meta"):  # no weights
        modules = AutoModel.from_config(_config(tower.encoder)).named_modules()
    for table in (m for name, m in modules if isinstance(m, nn.Embedding) and name.endswith("position_embeddings")):
        first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa and its kin count on from the padding's id
        if first and first != tokenizer.pad_token_id + 1:
            raise ValueError(f"encoder {tower.encoder!r}: its tokeniser pads with id {tokenizer.pad_token_id}, its position table "
                             f"with {table.padding_idx}; they do not belong together")
        if longest > table.num_embeddings - first:
            raise ValueError(f"{is_too_long}: the position table of encoder {tower.encoder!r} holds "
                             f"{table.num_embeddings - first}, use at most that")


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
    config = _config(encoder)
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


class Retriever(nn.Module):
    """A pile of layers and a score function: subclasses answer `layer_scores` and `interactions`."""

    architecture: ClassVar[str]

    def __init__(self, tower: Tower):
        super().__init__()
        self.tower = tower
        self.encoder = load_encoder(tower.encoder, tower.dropout)
        set_attention(self.encoder, tower.bf16)
        width = self.encoder.config.hidden_size
        self.linear = nn.Linear(width, tower.linear) if tower.linear else None
        self.width = tower.linear or width

    @property
    def layers(self) -> int:
        """Number of layers, the appended linear layer included."""
        return self.encoder.config.num_hidden_layers + (self.linear is not None)

    def encode_tokens(self, tokens: Tokens, **wanted: bool) -> BaseModelOutput:
        """What the encoder answers, in the tower's precision."""
        typed = tokens.kinds is not None and getattr(self.encoder.config, "type_vocab_size", 0) > 1  # DistilBERT has no types
        kinds = {"token_type_ids": tokens.kinds} if typed else {}
        with torch.autocast(tokens.ids.device.type, torch.bfloat16, enabled=self.tower.bf16):
            return self.encoder(tokens.ids, attention_mask=tokens.mask, **kinds, **wanted)

    def states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        """Token states after each of the 1-based `layers`, float32: a list of (P, T, H)."""
        hidden = self.encode_tokens(tokens, output_hidden_states=True).hidden_states
        # hidden[0] is the embeddings, so hidden[i] is layer i.
        states = {i: hidden[i].float() for i in layers if i < len(hidden)}
        if len(hidden) in layers:
            states[len(hidden)] = self.linear(hidden[-1].float())
        return [states[i] for i in layers]

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        """(K, B, C): one slice of scores per 1-based layer, in the given order."""
        raise NotImplementedError

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """FD's features (after VIRT): soft-maxed maps of query tokens over passage tokens (K, B, n, X, Y); and final scores (B, C).

        Each query is mapped onto its own n passages only, as in VIRT; the released code maps it onto all N of the batch. Rows of
        padding are zero. Where a CE takes part, a passage's [CLS] is left out: a pair has none.
        """
        raise NotImplementedError

    def forward(self, batch: Batch, layers: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Layer scores (K, B, C) of the selected layers and final scores (B, C) of the last one."""
        for layer in layers:
            if not 1 <= layer <= self.layers:
                raise ValueError(f"layer {layer} does not exist: this {self.architecture} has layers 1 to {self.layers}")
        every = self.layer_scores(batch, (*layers, *(() if self.layers in layers else (self.layers,))))
        final = every[layers.index(self.layers) if self.layers in layers else -1]  # (B, C)
        return every[: len(layers)], final

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Encoder, tokeniser, `retriever.json` and, where there is one, the head; safetensors and JSON only."""
        head = {name: t for name, t in self.state_dict().items() if not name.startswith("encoder.")}

        def save(part: Path) -> None:
            self.encoder.save_pretrained(part)
            tokenizer.save_pretrained(part)
            if head:
                write_tensors(part / "head" / "head.safetensors", head)
            write_json(part / "retriever.json", asdict(self.tower) | {"encoder": "."})

        write_folder(folder, save)


class TwoTowers(Retriever):
    """DE and CB: query and passage are encoded apart, by one shared tower, and meet in a score function."""

    def token_states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        """What the score function sees: a list of (P, T, H)."""
        return self.states(tokens, layers)

    def compare(self, queries: Tensor, passages: Tensor, batch: Batch) -> Tensor:
        """Token states (B, X, H) and (N, Y, H) of one layer -> scores (B, N)."""
        raise NotImplementedError

    def _scores(self, queries: list[Tensor], passages: list[Tensor], batch: Batch) -> Tensor:
        every = torch.stack([self.compare(q, p, batch) for q, p in zip(queries, passages, strict=True)])  # (K, B, N)
        return batch.candidates(every * self.tower.scale)  # (K, B, C)

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        return self._scores(self.token_states(batch.queries, layers), self.token_states(batch.passages, layers), batch)

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        wanted, n = (*layers, self.layers), len(batch.passages.ids) // len(batch.positive)
        queries, passages = self.token_states(batch.queries, wanted), self.token_states(batch.passages, wanted)
        p_mask = batch.passages.mask.clone()
        p_mask[:, 0] = p_mask[:, 0] & (not batch.own)
        q, p, maps = torch.stack(queries[:-1]), torch.stack(passages[:-1]), []
        for b, own in enumerate(torch.arange(len(p_mask)).split(n)):
            query = q[:, b : b + 1], p[:, own], batch.queries.mask[b : b + 1], p_mask[own]
            maps.append(scores.attention_maps(*query))  # (K, 1, n, X, Y)
        return torch.cat(maps, 1), self._scores(queries[-1:], passages[-1:], batch)[0]  # (K, B, n, X, Y), (B, C)


class DualEncoder(TwoTowers):
    """DE: the dot product of the [CLS] states of query and passage, Eq. (1)."""

    architecture = "DE"

    def compare(self, queries: Tensor, passages: Tensor, batch: Batch) -> Tensor:
        # f_DE(q, p) = E_Q(q)^T E_P(p)
        return scores.dot(queries[None, :, 0], passages[None, :, 0])[0]  # (B, N)

    def encode(self, tokens: Tokens) -> Tensor:
        """(P, H): the vector of each text; their dot product is the final score over `scale`."""
        return self.states(tokens, (self.layers,))[0][:, 0]


class ColBERT(TwoTowers):
    """CB: late interaction, Eq. (2); no punctuation filter, no last linear layer."""

    architecture = "CB"

    def token_states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        states = self.states(tokens, layers)
        if self.tower.released:
            states = [nn.functional.normalize(s, dim=-1) if i == self.layers else s for i, s in zip(layers, states, strict=True)]
        return states

    def compare(self, queries: Tensor, passages: Tensor, batch: Batch) -> Tensor:
        q_mask = None if self.tower.released else batch.queries.mask
        # f_CB(q, p) = \sum_{x} \max_{y} E_Q(q)_x . E_P(p)_y
        return scores.maxsim(queries[None], passages[None], batch.passages.mask, q_mask)[0]  # (B, N)


class CrossEncoder(Retriever):
    """CE: one projection w of the [CLS] state of the pair, shared by all layers, Eq. (3)."""

    architecture = "CE"

    def __init__(self, tower: Tower):
        super().__init__(tower)
        if tower.linear and tower.linear != self.encoder.config.hidden_size:
            raise ValueError(f"linear {tower.linear} differs from the hidden size {self.encoder.config.hidden_size}: a CE shares "
                             "one projection between all layers, so they must have one width")
        self.projection = nn.Parameter(torch.randn(self.width) * self.width**-0.5)

    def score(self, pairs: Tokens, layers: tuple[int, ...]) -> Tensor:
        """(K, P): scores of P pairs at each layer."""
        cls = torch.stack([s[:, 0] for s in self.states(pairs, layers)])  # (K, P, H)
        # f_CE(q, p) = w^T E_CE([q; p])
        return scores.project(cls, self.projection) * self.tower.scale  # (K, P)

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        return self.score(batch.pairs, layers).unflatten(1, (len(batch.positive), -1))  # (K, B, n)

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        pairs, usual = batch.pairs, self.encoder.config._attn_implementation
        self.encoder.set_attn_implementation("eager")  # the only one that returns attention
        out = self.encode_tokens(pairs, output_attentions=True)
        self.encoder.set_attn_implementation(usual)
        n, Y = len(batch.passages.ids) // len(batch.positive), batch.passages.mask.shape[1]
        q_mask = batch.queries.mask.repeat_interleave(n, 0)  # (P, X)
        # The tokens of a passage, but for its [CLS], are the last of its pair.
        y = torch.arange(Y, device=q_mask.device)
        first = (pairs.mask.sum(1) - batch.passages.mask.sum(1))[:, None]  # (P, 1)
        columns = (first + y).clamp(max=pairs.ids.shape[1] - 1)  # (P, Y)
        inside = (batch.passages.mask & (y > 0))[:, None] & q_mask[..., None]  # (P, X, Y)
        maps = []
        for layer in layers:
            block = min(layer, len(out.attentions))  # an appended linear layer attends as the last block does
            attention = out.attentions[block - 1].float().mean(1)[:, : q_mask.shape[1]]  # heads averaged: (P, X, T)
            over = attention.gather(2, columns[:, None].expand(-1, attention.shape[1], -1)) * inside  # (P, X, Y)
            maps.append(over / over.sum(-1, keepdim=True).clamp_min(1e-9))
        last = out.last_hidden_state.float()  # (P, T, H)
        final = scores.project(self.linear(last) if self.linear else last, self.projection)[:, 0]  # (P,)
        stacked = torch.stack(maps).unflatten(1, (len(batch.positive), n))  # (K, B, n, X, Y)
        return stacked, final.view(len(batch.positive), n) * self.tower.scale


RETRIEVERS = {cls.architecture: cls for cls in (DualEncoder, ColBERT, CrossEncoder)}


def build(tower: Tower) -> Retriever:
    """The retriever of a tower. ValueError for an unknown architecture."""
    if tower.architecture not in RETRIEVERS:
        raise ValueError(f"architecture {tower.architecture!r} is unknown: use one of {', '.join(RETRIEVERS)}")
    return RETRIEVERS[tower.architecture](tower)


def load(folder: Path) -> Retriever:
    """A retriever saved by `Retriever.save`."""
    tower = Tower(**json.loads((folder / "retriever.json").read_text()) | {"encoder": str(folder)})
    retriever = build(tower)
    head = folder / "head" / "head.safetensors"
    wanted = {name for name in retriever.state_dict() if not name.startswith("encoder.")}
    if wanted and not head.exists():
        raise FileNotFoundError(f"{head} is missing: it holds {', '.join(sorted(wanted))}")
    if wanted:
        try:
            retriever.load_state_dict(retriever.encoder.state_dict(prefix="encoder.") | read_tensors(head))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{head} is damaged or of another retriever ({error})") from error
    return retriever.eval()

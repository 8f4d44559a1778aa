"""What the modules of sentence-transformers' models are here, module by module.

ValueError names the first module or setting that would be dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from leadkit.models import heads


@dataclass(frozen=True)
class Checkpoint:
    """A retriever of sentence-transformers: what it is, and the linear layers of its head."""

    architecture: str
    pooling: str
    head: str  # as `Tower.head`
    linear: int  # width of layer L + 1, 0 for none
    layers: tuple[nn.Linear, ...]


def check_texts(model: Any) -> None:
    """ValueError for what a model does to its texts and leadkit does not."""
    prompts = sorted(name for name, text in model.prompts.items() if text)
    if prompts:
        raise ValueError(
            f"its prompt {prompts[0]!r} ({model.prompts[prompts[0]]!r}) would be dropped: texts "
            "are read without prompts here"
        )
    first = model[0]
    if getattr(first, "query_expansion", None):
        raise ValueError(
            "its queries are filled with [MASK] (query_expansion), which would be dropped"
        )
    if first.do_lower_case:
        raise ValueError("its texts are lower-cased (do_lower_case), which would be dropped")


def _unknown(module: nn.Module) -> ValueError:
    return ValueError(f"its module {type(module).__name__} would be dropped: it is not known here")


def _dense(module: Any, reads: str) -> str:
    if module.module_input_name != reads or module.use_residual:
        raise ValueError(
            f"its Dense reads {module.module_input_name!r}, with residual {module.use_residual}: "
            f"only one of {reads!r} without a residual is known here"
        )
    return heads.dense(module.linear, module.activation_function)


def _pooling(module: Any) -> str:
    if module.pooling_mode not in ("cls", "mean"):
        raise ValueError(f"its pooling is {module.pooling_mode!r}: 'cls' or 'mean' is needed")
    return module.pooling_mode


def _pooled(behind: list[Any], normalizes: bool) -> tuple[str, list[str], list[nn.Linear]]:
    """Pooling, parts of the head and linear layers. normalizes: whether Normalize is known."""
    pooling = ""
    parts: list[str] = []
    layers: list[nn.Linear] = []
    for module in behind:
        kind = type(module).__name__
        if kind == "Pooling" and not pooling:
            pooling = _pooling(module)
        elif kind == "Dense":
            parts.append(_dense(module, "sentence_embedding"))
            layers += heads.linears(module)
        elif kind == "Normalize" and normalizes:
            parts.append("normalize")
        else:
            raise _unknown(module)
    return pooling, parts, layers


def dual_encoder(model: Any, behind: list[Any]) -> Checkpoint:
    """Pooling, dense layers, and the normalisation that cosines ask for."""
    pooling, parts, layers = _pooled(behind, normalizes=True)
    similarity = model.similarity_fn_name
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"its similarity is {similarity!r}: 'cosine' or 'dot' is needed")
    if similarity == "cosine" and parts[-1:] != ["normalize"]:
        parts.append("normalize")
    return Checkpoint("DE", pooling, " ".join(parts), 0, tuple(layers))


def colbert(model: Any, behind: list[Any]) -> Checkpoint:
    """The linear layer and the normalisation of token states."""
    parts: list[str] = []
    layers: list[nn.Linear] = []
    for module in behind:
        kind = type(module).__name__
        if kind == "Dense" and not parts:
            if _dense(module, "token_embeddings").split(":")[2] != "identity":
                raise ValueError(
                    f"its linear layer has activation {module.activation_function}: layer L + 1 "
                    "has none"
                )
            parts.append("linear")
            layers += heads.linears(module)
        elif kind == "Normalize":
            parts.append("normalize")
        elif kind != "MultiVectorMask":
            raise _unknown(module)
        elif module.skiplist_words or module.keep_only_token_ids:
            raise ValueError(
                f"its mask skips {len(module.skiplist_words)} words of passages (skiplist_words), "
                "which would be dropped: every token is compared here"
            )
    if model.similarity_fn_name != "maxsim":
        raise ValueError(f"its similarity is {model.similarity_fn_name!r}: 'maxsim' is needed")
    width = layers[0].out_features if layers else 0
    return Checkpoint("CB", "cls", " ".join(parts), width, tuple(layers))


def cross_encoder(model: Any, behind: list[Any]) -> Checkpoint:
    """The classifier of transformers, or pooling and dense layers."""
    if not behind:
        pairs = _classifier(model[0].model)
        known = [heads.dense(linear, activation) for linear, activation in pairs]
        return _one_output(known, [linear for linear, _ in pairs])
    pooling, parts, layers = _pooled(behind, normalizes=False)
    if pooling != "cls":
        raise ValueError(f"its pooling is {pooling!r}: a CE has 'cls'")
    return _one_output(parts, layers)


def _one_output(parts: list[str], layers: list[nn.Linear]) -> Checkpoint:
    if not layers or layers[-1].out_features != 1:
        outputs = layers[-1].out_features if layers else 0
        raise ValueError(f"its classifier has {outputs} outputs: a CE has one score")
    return Checkpoint("CE", "cls", " ".join(parts), 0, tuple(layers))


def _classifier(model: Any) -> list[tuple[nn.Linear, nn.Module]]:
    """The linear layers and activations of a sequence classifier of transformers."""
    kind = model.config.model_type
    last: Any = getattr(model, "classifier", None)
    if kind == "bert":
        return [(model.bert.pooler.dense, nn.Tanh()), (last, nn.Identity())]
    if kind == "distilbert":
        return [(model.pre_classifier, nn.ReLU()), (last, nn.Identity())]
    if kind in ("roberta", "xlm-roberta", "camembert", "mpnet", "electra"):
        inner = nn.GELU() if kind == "electra" else nn.Tanh()
        return [(last.dense, inner), (last.out_proj, nn.Identity())]
    raise ValueError(f"the classifier of a {kind} is not known here, so it would be dropped")


Reader = Callable[[Any, list[Any]], Checkpoint]  # a model, and its modules behind the first
READERS: dict[str, Reader] = {"DE": dual_encoder, "CB": colbert, "CE": cross_encoder}

"""Bring your own: the recipe on any collection and encoders, its student in sentence-transformers.

This module needs the extra `[export]`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from leadkit import paths
from leadkit.cards import model_card, teacher_card
from leadkit.config import Data, Scale
from leadkit.data.sampling import Sampler, groups
from leadkit.experiments.distillation import TeacherAfter
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.recipe import Recipe
from leadkit.experiments.store import Trained
from leadkit.experiments.texts import collection
from leadkit.files import write_folder, write_json
from leadkit.models.dual_encoder import DualEncoder
from leadkit.models.encoders import without_pooling
from leadkit.models.names import untrained
from leadkit.models.retriever import Retriever
from leadkit.models.tokenizers import load_tokenizer

try:
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
except ImportError as error:
    raise ImportError(
        f"leadkit.export needs sentence-transformers 6.2 or newer ({error}): in {paths.ROOT}: "
        f'{sys.executable} -m pip install -e ".[export]" -c constraints.txt'
    ) from error


def distil_and_export(
    scale: Scale,
    out: Path,
    architecture: str = "",
    method: str = "LEAD",
    times: float = 1.0,
    split: str = "test",
    seed: int = 0,
    ready: bool = False,
    teacher_out: Path | None = None,
    license: str = "unknown",
) -> dict[str, Evaluate]:
    """Run a scale's recipe (`Recipe`) and save its student in `out`.

    Returns the evaluations that the model card shows. FileExistsError, ValueError or OSError where
    `out`, the collection or the encoders do not suit: before any work.
    """
    check_out(out)
    if teacher_out:
        check_out(teacher_out)
        check_apart(out, teacher_out)
    data = scale.data
    texts = collection(data.collection)
    for needed in ("train", split):
        texts.split(needed)
    # The sampler refuses texts that do not fill a batch.
    Sampler(groups(texts, "train"), len(texts.passages), data.batch, data.passages, seed)
    recipe = Recipe(scale, seed, architecture, ready)
    stage = recipe.distil(method, times)
    if teacher_out and not stage.teacher:
        raise ValueError(f"teacher_out is {str(teacher_out)!r}: method {method!r} has no teacher")
    evaluations = {"BM25": recipe.evaluate(None, split)}
    if not untrained(scale.student_encoder):
        evaluations["as it came"] = recipe.evaluate(recipe.came, split)
    evaluations["warmed up"] = recipe.evaluate(recipe.student, split)
    evaluations["distilled"] = recipe.evaluate(stage, split)
    card = model_card(out.resolve().name, stage, recipe.miner, evaluations, license)
    if teacher_out and stage.teacher:
        trained = stage.method.trains_teacher
        teacher: Trained = TeacherAfter(data, stage) if trained else stage.teacher
        said = teacher_card(teacher_out.resolve().name, teacher.tower, data, license)
        save_retriever(teacher.model().cpu(), data, said, teacher_out)
    save_retriever(stage.model().cpu(), data, card, out)
    return evaluations


def check_out(folder: Path) -> None:
    """FileExistsError unless the folder is empty or not there, ValueError for no Unicode path."""
    if folder.is_file() or folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"out {str(folder)!r} exists and is not empty: name a new folder")
    path = str(folder.resolve())
    if path != path.encode(errors="replace").decode():
        raise ValueError(f"out {path!r} is not Unicode: tokenizers cannot write there")


def check_apart(out: Path, teacher_out: Path) -> None:
    """ValueError where one of the folders is the other or within it."""
    a, b = out.resolve(), teacher_out.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise ValueError(
            f"teacher_out {str(teacher_out)!r} and out {str(out)!r} overlap: name two folders, "
            "neither within the other"
        )


def save_retriever(retriever: Retriever, data: Data, card: str, folder: Path) -> None:
    """Write a retriever as sentence-transformers loads it; leadkit loads the folder too.

    A DE is a `SentenceTransformer`, a CB a `MultiVectorEncoder`, a CE a `CrossEncoder`; texts are
    cut as in training. A score there is the retriever's over its `scale`. FileExistsError for a
    folder that is not empty, ValueError for a DE with a linear layer or a CB of the released code.
    """
    check_out(folder)
    tower = retriever.tower
    if isinstance(retriever, DualEncoder) and retriever.linear is not None:
        raise ValueError(
            f"retriever is a DE with linear layer {tower.linear}: only one without (0) is an "
            "encoder and one vector of a text"
        )
    if tower.released:
        raise ValueError("retriever is one of the released code, whose texts have other tokens")

    def save(part: Path) -> None:
        retriever.save(part, load_tokenizer(tower.encoder))
        model_kwargs = without_pooling(retriever.encoder.config)
        longest = max(data.query_tokens, data.passage_tokens)
        encoder = Transformer(
            str(part),
            model_kwargs=model_kwargs,
            query_length=data.query_tokens,
            document_length=data.passage_tokens,
            max_seq_length=longest + data.query_tokens * retriever.pairs_only,
        )
        encoder.model = retriever.encoder  # not a second copy of the weights
        model = library_model(retriever, encoder)
        model.save_pretrained(str(part), create_model_card=False)
        # save_pretrained forgets model_kwargs: a BERT would be loaded with an untrained pooler.
        settings = part / encoder.config_file_name
        write_json(settings, json.loads(settings.read_text()) | {"model_kwargs": model_kwargs})
        # Not ModelCard.save: the name of a folder need not be Unicode.
        (part / "README.md").write_text(card, encoding="utf-8", errors="replace")

    write_folder(folder, save)


def library_model(retriever: Retriever, encoder: Transformer) -> Any:
    """The retriever as a model of sentence-transformers around its encoder."""
    device = str(retriever.encoder.device)
    hidden = retriever.encoder.config.hidden_size
    modules: list[Any] = [encoder]
    if retriever.architecture == "CB":
        if retriever.linear is not None:
            modules.append(_dense(retriever.linear, nn.Identity(), reads="token_embeddings"))
        modules.append(MultiVectorMask())
        modules += [Normalize("token_embeddings") for _ in retriever.head]
        return MultiVectorEncoder(modules=modules, device=device)
    modules.append(Pooling(hidden, retriever.tower.pooling))
    if retriever.linear is not None:
        modules.append(_dense(retriever.linear, nn.Identity()))
    for part in retriever.head:
        modules.append(_dense(*part) if isinstance(part, nn.Sequential) else Normalize())
    if not retriever.pairs_only:
        return SentenceTransformer(modules=modules, similarity_fn_name="dot", device=device)
    if not retriever.tower.head:
        projection = nn.Linear(retriever.width, 1, bias=False)
        projection.load_state_dict({"weight": retriever.state_dict()["projection"][None]})
        modules.append(_dense(projection, nn.Identity()))
    modules[-1].module_output_name = "scores"
    return CrossEncoder(modules=modules, device=device, activation_fn=nn.Identity())


def _dense(linear: nn.Linear, activation: nn.Module, reads: str = "sentence_embedding") -> Dense:
    made = Dense(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        activation_function=activation,
        module_input_name=reads,
    )
    made.linear.load_state_dict(linear.state_dict())
    return made

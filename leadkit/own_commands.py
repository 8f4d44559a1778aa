"""The commands for one's own texts and checkpoints: distil, evaluate."""

from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from leadkit.commands import app


@app.command
def distil(
    collection: str,
    teacher: str,
    student: str,
    out: Path,
    architecture: str = "",
    ready: bool = False,
    method: str = "LEAD",
    times: float = 1.0,
    scale: str = "classroom",
    split: str = "test",
    k: int | None = None,
    seed: int = 0,
    rate: float | None = None,
    rise: float | None = None,
    steps: int | None = None,
    warm_up_steps: int | None = None,
    teacher_out: Path | None = None,
    license: str = "unknown",
) -> None:
    """Distil a retriever for your own collection. Ctrl-C loses nothing.

    The student loads in sentence-transformers.

    Args:
        collection: beir:PATH, a folder in BEIR layout with a train split.
        teacher: encoder of the teacher: a folder, a name on the Hugging Face hub, or one of
            data/models; with --ready a folder of sentence-transformers, PyLate or leadkit.
        student: encoder of the student, with at most as many layers.
        out: new folder that receives the student and its model card.
        architecture: of the teacher: DE, CB or CE, by default CB; the student is a DE.
        ready: the teacher is a trained retriever; it is used with its head and not warmed up.
        method: LEAD, FD, RD, another distillation method, or student for no teacher.
        times: multiplies the student's scores in the distillation.
        scale: smoke, classroom or gpu: steps, batches and lengths.
        split: the split that is measured.
        k: selected layers of LEAD and FD; by default the scale's.
        seed: random seed of warm-ups and distillation.
        rate: learning rate of every training; by default the scale's, but at most 5e-5 for a
            pre-trained encoder wider than 128, and 2e-5 from 768 on.
        rise: share of a training's steps in which the learning rate rises, before it falls; by
            default the scale's, 0.1.
        steps: of the distillation; by default the scale's.
        warm_up_steps: of each training before it; by default the scale's.
        teacher_out: new folder that receives the teacher as it is after the distillation.
        license: of the student, for its model card, e.g. apache-2.0.
    """
    from leadkit import config, export
    from leadkit.experiments import recipe

    chosen = config.scale(scale, teacher_encoder=teacher, student_encoder=student)
    chosen = replace(chosen, data=replace(chosen.data, collection=collection))
    if k is not None:
        chosen = replace(chosen, lead=replace(chosen.lead, k=k))
    chosen = recipe.suited(chosen, rate, steps, warm_up_steps, rise)
    rows = export.distil_and_export(
        chosen, out, architecture, method, times, split, seed, ready, teacher_out, license
    )
    for row, evaluation in rows.items():
        measures = evaluation.record()["measures"]
        print(f"{row:15}", *(f"{name} {v:.4f}" for name, v in measures.items()), sep="  ")
    verdict = recipe.verdict(rows)
    if verdict:
        print(verdict)
    if teacher_out:
        print(f"{teacher_out}: the teacher")
    print(f"{out}: SentenceTransformer({str(out)!r})")


@app.command
def evaluate(
    model: Positional[str],
    collection: str,
    split: str = "test",
    run: Path | None = None,
    first: str = "",
    query_tokens: int | None = None,
    passage_tokens: int | None = None,
    depth: int = 1000,
    rerank: int = 100,
) -> None:
    """Measure a checkpoint on a collection. Prints the measures and where the record is.

    Args:
        model: a folder of leadkit, sentence-transformers, PyLate or CrossEncoder.
        collection: python-docs, beir:PATH or irds:NAME, e.g. irds:beir/scifact/test or
            irds:nano-beir/scifact.
        split: the split that is measured.
        run: a file that receives the run in TREC form.
        first: the DE whose list a CB or CE re-ranks; by default BM25.
        query_tokens: a query is cut here; by default what the folder says, else 32.
        passage_tokens: a passage is cut here; by default what the folder says, else 256.
        depth: passages of each query in the run.
        rerank: of the first stage's passages, how many a CB or CE re-ranks.
    """
    from leadkit.experiments import own_evaluation
    from leadkit.experiments.texts import collection as texts

    lengths = query_tokens, passage_tokens
    stage = own_evaluation.plan(model, collection, split, first, lengths, depth, rerank)
    queries = texts(collection).split(split)  # says whether it exists
    record = stage.record()
    print(*(f"{name} {value:.4f}" for name, value in record["measures"].items()), sep="  ")
    print(f"record: {stage.folder / 'record.json'}")
    if run:
        tag = Path(model).name.replace(" ", "-") or "leadkit"
        stage.ranking().write_trec(run, list(queries), list(texts(collection).passage_ids), tag)
        print(f"run: {run}")

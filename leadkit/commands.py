"""The commands that train and evaluate: `python -m leadkit --help`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tyro.conf import Positional
from tyro.extras import SubcommandApp

if TYPE_CHECKING:
    from leadkit.experiments.evaluation import Evaluate

Plan: TypeAlias = "dict[int, dict[str, Evaluate]]"  # seed -> row -> evaluation

app = SubcommandApp()


@app.command
def reproduce(scale: str = "classroom", seed: int = 0, only: str = "") -> None:
    """Execute the notebooks, write the HTML report, print the main table.

    Args:
        scale: smoke, classroom or gpu.
        seed: random seed of warm-ups and distillations.
        only: run just the notebooks whose name contains this.
    """
    from leadkit import config
    from leadkit.lessons import reproduce

    if seed < 0:
        raise ValueError(f"seed is {seed}: it must not be negative")
    reproduce.reproduce(config.scale(scale), seed, only)


@app.command
def table(
    scale: str = "classroom",
    seeds: int = 1,
    teacher: str = "CB",
    split: str = "test",
    table: str = "main",
    only: str = "",
    at_once: int | None = None,
    out: Path | None = None,
) -> None:
    """Run what is missing of a table, one stage after the other, and print it.

    Under torchrun several processes share every stage.

    Args:
        scale: smoke, classroom, evening, gpu, paper or paper-document.
        seeds: number of seeds, 0 to seeds - 1.
        teacher: of the main table: DE, CB or CE.
        split: the split of the collection to evaluate on.
        table: main, or one that `sweep` takes: 3, 4, ... controls.
        only: one row, e.g. "12DE (mines)", teacher, student or LEAD, and what it needs.
        at_once: texts that pass through an encoder at once in training, by default all; fewer take
            less memory and more time.
        out: folder for the result records.
    """
    from leadkit import config, processes
    from leadkit.experiments import sweep
    from leadkit.experiments.pipeline import Pipeline
    from leadkit.experiments.rows import experiment
    from leadkit.experiments.store import tell_first_edition
    from leadkit.experiments.texts import collection
    from leadkit.results import records, tables
    from leadkit.training.loop import Operation

    for name, value in {"seeds": seeds, "at_once": at_once}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: at least one is needed")
    main, chosen = table == "main", config.scale(scale)
    collection(chosen.data.collection).split(split)  # says whether it exists
    if main:
        planned = {seed: Pipeline(chosen, seed, teacher).rows(split) for seed in range(seeds)}
    else:
        planned = sweep.plan((table,), chosen, seeds, split)
    planned = _narrow(planned, [only] if only else [])
    rows = list(planned[0])
    named = {
        seed: {experiment(row, teacher) if main else row: every[row] for row in rows}
        for seed, every in planned.items()
    }
    if out:
        records.check_plan(named, out)
    if processes.main():
        tell_first_edition()
    for every in planned.values():
        for row in rows:
            every[row].done(Operation(at_once))
    found = {row: [every[row].record() for every in planned.values()] for row in rows}
    summary = tables.summarise(found, teacher)
    if processes.main():
        print(
            (summary if main else summary.dropna(axis=1, how="all")).round(2).to_string(na_rep="")
        )
    if out:
        records.save(named, out)


def _narrow(planned: Plan, only: Sequence[str]) -> Plan:
    """The rows `only` of a plan; without `only` all of them."""
    rows = list(next(iter(planned.values())))
    for row in only:
        if row not in rows:
            raise ValueError(f"row {row!r} is unknown: use one of {', '.join(rows)}")
    return {seed: {row: every[row] for row in only or rows} for seed, every in planned.items()}


@app.command
def sweep(
    table: tuple[str, ...],
    scale: str = "classroom",
    seeds: int = 5,
    first: int = 0,
    jobs: int | None = None,
    split: str = "test",
    collection: str = "",
    only: tuple[str, ...] = (),
    out: Path | None = None,
) -> None:
    """Run what is missing of the paper's tables, several stages at a time; write the records.

    Ctrl-C loses nothing.

    Args:
        table: one or more: main for the README's, primary for what the primary claims need, 3, 4,
            ... as in the paper, baselines, controls, prod, mta4dpr, or all. With --split dev also
            map 150, map 600, map 2400 and conditions.
        scale: smoke, classroom, evening, gpu, paper or paper-document.
        seeds: number of seeds.
        first: the first of them; several machines can share a table by its seeds.
        jobs: processes; by default one per core, or 4 on a GPU.
        split: the split of the collection to evaluate on.
        collection: another than the scale's: beir:PATH or irds:NAME.
        only: one or more rows of these tables, e.g. "CB RD", and what they need; by default all.
        out: folder for the result records; by default data/results/SCALE, behind it the other
            collection's last part and any split but test.
    """
    from leadkit import config
    from leadkit.experiments import sweep
    from leadkit.results import plan, records

    chosen = config.scale(scale)
    if collection:
        chosen = replace(chosen, data=replace(chosen.data, collection=collection))
    if not out:
        plan.check(chosen, split)
    folder = out or records.default_folder(chosen, split)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}: at least one is needed")
    planned = _narrow(sweep.plan(table, chosen, seeds, split, first), only)
    records.check_plan(planned, folder)
    label = f"{'tables' if len(table) > 1 else 'table'} {', '.join(table)}"
    ran = f"scale {chosen.name}, seeds {first} to {first + seeds - 1}, split {split}"
    finished, whole = sweep.sweep(f"{label}, {ran}", planned, jobs)
    records.save(finished, folder)
    print(f"result records: {folder}")
    sys.exit(not whole)


@app.command
def vectors(
    rows: Positional[tuple[str, ...]],
    scale: str = "classroom",
    seeds: int = 1,
    collection: str = "",
    passages: int = 1000,
    out: Path | None = None,
) -> None:
    """Show how students place the passages: directions used, likeness to the encoder as it came.

    Directions: the effective rank of the vectors. Likeness: linear CKA, 0 to 1. Runs the trainings
    that are missing.

    Args:
        rows: of the tables that `sweep` takes, such as "student, as long" or "CB LEAD".
        scale: smoke, classroom, evening or gpu.
        seeds: number of seeds, 0 to seeds - 1.
        collection: another than the scale's: beir:PATH or irds:NAME.
        passages: so many of the collection, drawn alike for all rows.
        out: a file that receives the numbers, one line of JSON each.
    """
    import pandas as pd

    from leadkit import config, files
    from leadkit.experiments import sweep
    from leadkit.experiments.vectors import checked, measured

    if not rows:
        raise ValueError('no row is named: name one or more, such as "CB RD" "CB LEAD"')
    chosen = config.scale(scale)
    if collection:
        chosen = replace(chosen, data=replace(chosen.data, collection=collection))
    planned = _narrow(sweep.plan(("all",), chosen, seeds), rows)
    stages = {
        (row, seed): checked(each[row].retriever, passages)
        for row in rows
        for seed, each in planned.items()
    }
    lines = [
        {"row": row, "seed": seed, **measured(stage, passages)}
        for (row, seed), stage in stages.items()
    ]
    print(pd.DataFrame(lines).pivot(index="row", columns="seed").round(3).to_string())
    if out:
        files.write_lines(out, lines)


@app.command
def pretrain(
    objective: str = "distilled",
    layers: int = 12,
    out: Path | None = None,
    bf16: bool = False,
    seed: int = 0,
) -> None:
    """Train the tokeniser and the miniature BERTs of data/models.

    Args:
        objective: distilled, contrastive, masked LM or bottlenecked.
        layers: grow up to so many: 3, 6 or 12.
        out: folder that receives them; data/models by default.
        bf16: bfloat16 autocast; faster where the processor multiplies it.
        seed: random seed.
    """
    from leadkit import paths
    from leadkit.training import pretraining

    settings = pretraining.Pretraining(objective, bf16=bf16, seed=seed)
    pretraining.pretrain(settings.up_to(layers), out or paths.MODELS)

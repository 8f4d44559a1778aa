"""A step of LEAD, 12CB -> 6DE, K = 5, at classroom size on a CPU: leadkit against a plain reference, written the obvious way.

Reference: float32, texts padded to one length, Hugging Face's BERT with every hidden state, MaxSim by einsum, losses from
`torch.nn.functional`, one optimiser. Both train on the same batches of python-docs, start from the same weights and draw the same
layers, so the first loss must agree. "small pages": leadkit without the memory settings of a sweep and of the Makefile.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import records
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel

from leadkit import selection
from leadkit.experiments import distillation
from leadkit.data.sampling import Batch
from leadkit.config import Scale, scale
from leadkit.models.encoders import MODELS
from leadkit.experiments.pipeline import Pipeline
from leadkit.models.retrievers import build
from leadkit.experiments.store import DEVICE
from leadkit.experiments.sweep import MEMORY
from leadkit.training.loop import Schedule, fit

CHOSEN, K, STEPS = scale("classroom"), 5, 6


def fixed(ids: Tensor, mask: Tensor, length: int) -> dict[str, Tensor]:
    """Padded to one length, whatever the batch needs."""
    missing = length - ids.shape[1]
    return {
        "input_ids": F.pad(ids, (0, missing)),
        "attention_mask": F.pad(mask.long(), (0, missing)),
    }


class Plain(nn.Module):
    """A student and a teacher of Hugging Face, and LEAD's loss as one would write it down."""

    def __init__(self, chosen: Scale) -> None:
        super().__init__()
        none = {
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "dtype": torch.float32,
        }
        self.student = AutoModel.from_pretrained(MODELS / chosen.student_encoder, **none)
        self.teacher = AutoModel.from_pretrained(MODELS / chosen.teacher_encoder, **none)
        self.chosen = chosen

    def loss(self, batch: Batch, step: int) -> Tensor:
        data, scaled, tau_l = self.chosen.data, self.chosen.score_scale, self.chosen.lead.tau_l
        queries = fixed(batch.queries.ids, batch.queries.mask, data.query_tokens)
        passages = fixed(batch.passages.ids, batch.passages.mask, data.passage_tokens)
        depths = [model.config.num_hidden_layers for model in (self.student, self.teacher)]
        own, taught = selection.random_layers(K, *depths, torch.Generator().manual_seed(step))
        sq, sp = (
            self.student(**x, output_hidden_states=True).hidden_states for x in (queries, passages)
        )
        tq, tp = (
            self.teacher(**x, output_hidden_states=True).hidden_states for x in (queries, passages)
        )
        q_mask, p_mask = queries["attention_mask"], passages["attention_mask"]

        def dot(layer: int) -> Tensor:
            return scaled["DE"] * sq[layer][:, 0] @ sp[layer][:, 0].T  # (B, N)

        def maxsim(layer: int) -> Tensor:
            pairs = torch.einsum("bxh,nyh->bnxy", tq[layer], tp[layer])  # (B, N, X, Y)
            best = pairs.masked_fill(p_mask[None, :, None] == 0, -torch.inf).amax(-1)  # (B, N, X)
            return scaled["CB"] * (best * q_mask[:, None]).sum(-1)  # (B, N)

        def kl(target: Tensor, other: Tensor) -> Tensor:
            return F.kl_div(
                other.log_softmax(-1), target.log_softmax(-1), reduction="none", log_target=True
            ).sum(-1)  # (B,)

        student, teacher = dot(depths[0]), maxsim(depths[1])
        taught_scores = [maxsim(layer).detach() for layer in taught]
        weights = torch.stack(
            [-F.cross_entropy(t, batch.positive, reduction="none") / tau_l for t in taught_scores]
        )
        each = torch.stack(
            [kl(t, dot(layer)) for t, layer in zip(taught_scores, own, strict=True)]
        )  # (K, B)
        layers = (weights.softmax(0) * each).sum(0).mean()
        response = kl(teacher, student).mean() + kl(student, teacher).mean()
        return (
            layers
            + response
            + F.cross_entropy(student, batch.positive)
            + F.cross_entropy(teacher, batch.positive)
        )


def plain(chosen: Scale = CHOSEN, bf16: bool = False) -> Callable[[int, dict], list[float]]:
    """The reference in a plain loop: (steps, batches of student and teacher) -> losses. bf16: all of it under autocast."""
    model = Plain(chosen).to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.distil.learning_rate)

    def run(steps: int, at: dict) -> list[float]:
        losses = []
        for step in range(steps):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
                loss = model.loss(at["student"](step), step)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), chosen.distil.clip)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return run


def leadkit(pipeline: Pipeline) -> Callable[[int, dict], list[float]]:
    """The same of leadkit's models in leadkit's loop."""
    models = nn.ModuleDict(
        {"student": build(pipeline.student.tower), "teacher": build(pipeline.teacher.tower)}
    ).to(DEVICE)

    def run(steps: int, at: dict) -> list[float]:
        def loss_at(step: int) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(step)
            return {
                "total": distillation._lead(
                    pipeline.scale.lead,
                    generator,
                    models,
                    {name: at[name](step) for name in models},
                ).total
            }

        with tempfile.TemporaryDirectory() as folder:
            log = fit(
                models,
                loss_at,
                Schedule(steps, pipeline.scale.distil.learning_rate),
                0,
                Path(folder),
                "LEAD",
            )
        return [row["total"] for row in log]

    return run


def measure(version: str) -> dict:
    """Seconds of a step, peak memory above what models and data take, the first loss."""
    pipeline = Pipeline(CHOSEN)
    at = {
        name: distillation.batches(pipeline.miner, stage.tower)
        for name, stage in {"student": pipeline.student, "teacher": pipeline.teacher}.items()
    }
    run = plain() if version == "reference" else leadkit(pipeline)
    for batches in at.values():
        batches(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = run(1, at)[0]
    started = time.perf_counter()
    run(STEPS, at)
    seconds = (time.perf_counter() - started) / STEPS
    return {
        "seconds": seconds,
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "loss": first,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:  # a process of its own for each: peak memories are comparable, and GLIBC_TUNABLES is read when a process starts
        found = {}
        for version in ("reference", "small pages", "leadkit"):
            environment = os.environ | {"GLIBC_TUNABLES": MEMORY if version == "leadkit" else ""}
            found[version] = json.loads(
                subprocess.check_output([sys.executable, __file__, version], env=environment)
            )
        print(
            f"LEAD step, 12CB -> 6DE, K {K}, B {CHOSEN.data.batch}, {CHOSEN.data.passages} passages each; bf16 {CHOSEN.bf16}; "
            f"threads {torch.get_num_threads()}"
        )
        for version, row in found.items():
            row["ratio"] = {key: row[key] / found["reference"][key] for key in ("seconds", "mib")}
            print(
                f"{version:12} {row['seconds']:6.3f} s  {row['mib']:6.0f} MiB above start  first loss {row['loss']:.3f}  ratios "
                f"{row['ratio']['seconds']:.3f} {row['ratio']['mib']:.3f}"
            )
        records.write(found)

"""A step of LEAD, 12CB -> 6DE, K = 5, at classroom size on a CPU: leadkit and a plain reference.

Reference: float32, texts padded to one length, Hugging Face's BERT with every hidden state, MaxSim
by einsum, losses from `torch.nn.functional`, one optimiser. Both train on the same batches of
python-docs, start from the same weights and draw the same layers, so their first losses must agree.

small pages: leadkit without the memory settings of a sweep and of the Makefile.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import records
import torch
import torch.nn.functional as F
from measuring import in_own_process, peak_mib, seconds
from torch import Tensor, nn
from transformers import AutoModel

from leadkit import paths, selection
from leadkit.config import Schedule, scale
from leadkit.experiments.method import Step
from leadkit.experiments.paper_methods import LEAD
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.workers import MEMORY
from leadkit.hardware import DEVICE
from leadkit.models.batch import Batch, Tokens
from leadkit.models.retrievers import build
from leadkit.training.loop import fit

CHOSEN = scale("classroom")
STEPS = 6

BatchOf = Callable[[int], Batch]  # step -> its batch
Run = Callable[[int, Mapping[str, BatchOf]], list[float]]  # (steps, batches) -> losses


def load_plain(encoder: str) -> nn.Module:
    """Hugging Face's model, in float32 and without dropout."""
    return AutoModel.from_pretrained(
        paths.MODELS / encoder,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        add_pooling_layer=False,
        dtype=torch.float32,
    )


def pad_to(tokens: Tokens, length: int) -> dict[str, Tensor]:
    """Padded to one length, whatever the batch needs."""
    missing = length - tokens.ids.shape[1]
    return {
        "input_ids": F.pad(tokens.ids, (0, missing)),  # (P, length)
        "attention_mask": F.pad(tokens.mask.long(), (0, missing)),  # (P, length)
    }


def kl(target: Tensor, other: Tensor) -> Tensor:
    target, other = target.log_softmax(-1), other.log_softmax(-1)  # (B, N)
    return F.kl_div(other, target, reduction="none", log_target=True).sum(-1)  # (B,)


class Plain(nn.Module):
    """A student and a teacher of Hugging Face, and LEAD's loss as one would write it down."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.student = load_plain(pipeline.scale.student_encoder)
        self.teacher = load_plain(pipeline.scale.teacher_encoder)
        self.student_scale = pipeline.student.tower.scale
        self.teacher_scale = pipeline.teacher.tower.scale
        self.data = pipeline.scale.data
        self.lead = pipeline.scale.lead

    def forward(self, batch: Batch, step: int) -> Tensor:
        """The loss of a step."""
        queries = pad_to(batch.queries, self.data.query_tokens)
        passages = pad_to(batch.passages, self.data.passage_tokens)
        q_mask, p_mask = queries["attention_mask"], passages["attention_mask"]
        # Per model, the states of all layers: [0] are the embeddings.
        student_q = self.student(**queries, output_hidden_states=True).hidden_states
        student_p = self.student(**passages, output_hidden_states=True).hidden_states
        teacher_q = self.teacher(**queries, output_hidden_states=True).hidden_states
        teacher_p = self.teacher(**passages, output_hidden_states=True).hidden_states

        def dot(layer: int) -> Tensor:
            q, p = student_q[layer][:, 0], student_p[layer][:, 0]  # (B, H), (N, H)
            return self.student_scale * q @ p.T  # (B, N)

        def maxsim(layer: int) -> Tensor:
            q, p = teacher_q[layer], teacher_p[layer]  # (B, X, H), (N, Y, H)
            pairs = torch.einsum("bxh,nyh->bnxy", q, p)  # (B, N, X, Y)
            pairs = pairs.masked_fill(p_mask[None, :, None] == 0, -torch.inf)
            best = pairs.amax(-1)  # (B, N, X)
            return self.teacher_scale * (best * q_mask[:, None]).sum(-1)  # (B, N)

        M, N = len(student_q) - 1, len(teacher_q) - 1
        student, teacher = dot(M), maxsim(N)
        generator = torch.Generator().manual_seed(step)
        student_layers, teacher_layers = selection.random_layers(self.lead.k, M, N, generator)
        targets = [maxsim(layer).detach() for layer in teacher_layers]
        hard = [F.cross_entropy(t, batch.positive, reduction="none") for t in targets]
        weights = (-torch.stack(hard) / self.lead.tau_l).softmax(0)  # (K, B)
        pairs = zip(targets, student_layers, strict=True)
        each = torch.stack([kl(t, dot(layer)) for t, layer in pairs])  # (K, B)
        layers = (weights * each).sum(0).mean()
        response = kl(teacher, student).mean() + kl(student, teacher).mean()
        student_hard = F.cross_entropy(student, batch.positive)
        teacher_hard = F.cross_entropy(teacher, batch.positive)
        return layers + response + student_hard + teacher_hard


def plain(pipeline: Pipeline, bf16: bool = False) -> Run:
    """The reference in a plain loop. bf16: all of it under autocast."""
    model = Plain(pipeline).to(DEVICE).train()
    schedule = pipeline.scale.distil
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate)

    def run(steps: int, batches: Mapping[str, BatchOf]) -> list[float]:
        losses = []
        for step in range(steps):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
                loss = model(batches["student"](step), step)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return run


def leadkit(pipeline: Pipeline) -> Run:
    """leadkit's models in leadkit's loop."""
    stages = {"student": pipeline.student, "teacher": pipeline.teacher}
    models = nn.ModuleDict({name: build(stage.tower) for name, stage in stages.items()})
    models.to(DEVICE)
    lead = LEAD.of(pipeline.scale.lead)

    def run(steps: int, batches: Mapping[str, BatchOf]) -> list[float]:
        def loss_at(step: int) -> dict[str, Tensor]:
            batch = {name: batch_of(step) for name, batch_of in batches.items()}
            return lead.parts(Step(models, batch, seed=step))

        schedule = Schedule(steps, pipeline.scale.distil.learning_rate)
        with tempfile.TemporaryDirectory() as folder:
            log = fit(models, loss_at, schedule, 0, Path(folder), "LEAD")
        return [row["total"] for row in log]

    return run


def batches_of(pipeline: Pipeline) -> dict[str, BatchOf]:
    """The batches of the first warm-up, in the tokens of student and teacher: nothing is mined."""
    stages = {"student": pipeline.student, "teacher": pipeline.teacher}
    return {
        name: replace(pipeline.miner, tower=stage.tower).batches() for name, stage in stages.items()
    }


def measure(version: str) -> dict:
    """Seconds of a step, peak memory above what models and data take, the first loss."""
    pipeline = Pipeline(CHOSEN)
    batches = batches_of(pipeline)
    run = plain(pipeline) if version == "reference" else leadkit(pipeline)
    for batch_of in batches.values():
        batch_of(0)
    before = peak_mib()
    (first,) = run(1, batches)
    (spent,) = seconds(lambda: run(STEPS, batches))
    return {"seconds": spent / STEPS, "mib": peak_mib() - before, "loss": first}


def compare() -> None:
    measured = {}
    for version in ("reference", "small pages", "leadkit"):
        memory = MEMORY if version == "leadkit" else ""
        measured[version] = in_own_process(version, GLIBC_TUNABLES=memory)
    data = CHOSEN.data
    print(
        f"LEAD step, 12CB -> 6DE, K {CHOSEN.lead.k}, B {data.batch}, {data.passages} passages "
        f"each; bf16 {CHOSEN.bf16}; threads {torch.get_num_threads()}"
    )
    reference = dict(measured["reference"])
    for version, row in measured.items():
        row["ratio"] = {key: row[key] / reference[key] for key in ("seconds", "mib")}
        print(
            f"{version:12} {row['seconds']:6.3f} s  {row['mib']:6.0f} MiB above start  "
            f"first loss {row['loss']:.3f}  "
            f"ratios {row['ratio']['seconds']:.3f} {row['ratio']['mib']:.3f}"
        )
    records.write(measured)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        compare()

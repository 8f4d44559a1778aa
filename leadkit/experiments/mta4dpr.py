"""MTA4DPR (Lu et al., EMNLP 2024): a teacher, a pool of assistants and fused ones, iterations.

The authors published no code that we know of. Where our notes give no value of theirs ("not
noted"), the choice is ours.
"""

from dataclasses import replace

from leadkit.config import Scale
from leadkit.experiments.assisted import Assisted
from leadkit.experiments.distillation import Distil, WarmUp
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.paper_methods import LEAD, RD
from leadkit.experiments.pipeline import Pipeline, schedule, tower
from leadkit.experiments.pool import Harder, Pool
from leadkit.experiments.store import Negatives, Trained
from leadkit.models.tower import Tower

TABLES = {
    "mta4dpr": (
        "student",
        "MTA4DPR without assistants",
        *(f"MTA4DPR iteration {i}" for i in (1, 2, 3)),
        "MTA4DPR + LEAD",
    )
}


class MTA4DPR:
    """The stages of one scale and seed, on the main pipeline's warm-ups and negatives.

    Nothing runs until asked for its result. Every iteration trains the same student afresh, equally
    long, so that only assistants and data differ (ours; paper: not noted). Pool members are
    compared by MRR@10 on dev: a DE searches, a CB or CE re-ranks the DE teacher's list.

    assistants: towers of different architecture or size; by default a 12DE, a 6CB and a 6DE, what
        the student starts from and the first to be replaced.
    """

    def __init__(
        self,
        scale: Scale,
        seed: int = 0,
        teacher: str = "CB",
        assistants: tuple[Tower, ...] | None = None,
        iterations: int = 3,
        method: Assisted = Assisted(),
    ):
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}: at least one is needed")
        if assistants is None:
            assistants = (
                tower(scale, "DE", scale.teacher_encoder),
                tower(scale, "CB", scale.student_encoder),
                tower(scale, "DE", scale.student_encoder),
            )
        different = {(each.architecture, each.encoder) for each in assistants}
        if len(different) < max(3, len(assistants)):
            named = ", ".join(f"{each.architecture} {each.encoder}" for each in assistants)
            raise ValueError(
                f"assistants are {named or 'none'}: at least three are needed, all of different "
                "architecture or encoder"
            )
        self.scale = scale
        self.seed = seed
        self.iterations = iterations
        self.method = method
        self.pipeline = Pipeline(scale, seed, teacher)
        self.pool: Pool | None = None
        for each in assistants:
            training = "student" if each.encoder == scale.student_encoder else "teacher"
            steps = schedule(scale, training, each.architecture)
            assistant = WarmUp(scale.data, each, steps, self.pipeline.negatives, seed)
            self.pool = Pool(scale.data, self._on_dev(assistant), len(assistants), self.pool)

    def _on_dev(self, retriever: Trained) -> Evaluate:
        return self.pipeline.evaluate(retriever, "dev")

    def _on_train(self, retriever: Trained | None) -> Evaluate:
        data = self.scale.data
        return Evaluate(data, retriever, "train", max(data.negatives, Harder.missed))

    def chain(self, layers: bool = False, assisted: bool = True) -> list[Distil]:
        """The iterations of a chain.

        After each, its student joins the pool if it beats the worst member, and the data grow
        harder. layers: with LEAD's layer features. assisted: with the pool.
        """
        scale, first = self.scale, self.pipeline
        lead = replace(scale.lead, joint=False)
        taught = LEAD.of(lead) if layers else RD.of(lead)
        pool = self.pool if assisted else None
        negatives: Negatives = first.negatives
        chain: list[Distil] = []
        for _ in range(self.iterations):
            method = replace(self.method, taught=taught, pool=pool)
            stage = Distil(
                scale.data,
                method,
                first.student,
                first.teacher,
                negatives,
                schedule(scale, "distil", first.teacher.tower.architecture),
                self.seed,
            )
            chain.append(stage)
            if pool:
                pool = Pool(scale.data, self._on_dev(stage), pool.size, pool)
            negatives = Harder(
                scale.data,
                student=self._on_train(stage),
                dense=self._on_train(first.miner),
                words=self._on_train(None),
            )
        return chain

    def experiments(self, split: str = "test") -> dict[str, Evaluate]:
        """By name; "without assistants" and "+ LEAD" are the last iterations of own chains."""
        assisted = self.chain()
        stages = {
            "MTA4DPR without assistants": self.chain(assisted=False)[-1],
            **{f"MTA4DPR iteration {i}": stage for i, stage in enumerate(assisted, start=1)},
            "MTA4DPR + LEAD": self.chain(layers=True)[-1],
        }
        return {name: self.pipeline.evaluate(stage, split) for name, stage in stages.items()}


def experiments(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """Every row of MTA4DPR by name, each an evaluation that runs when asked."""
    return MTA4DPR(scale, seed).experiments(split)

"""The students of the made worlds that the results quote: trained and written down."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from leadkit import hardware
from leadkit.lessons.world import made, students
from leadkit.results.worlds import CONTRASTS


def needed() -> dict[str, list[str]]:
    """World -> the methods that the contrasts compare there."""
    methods: dict[str, dict[str, None]] = {}
    for contrast in CONTRASTS:
        methods.setdefault(contrast.world, {}).update({contrast.first: None, contrast.second: None})
    return {world: list(names) for world, names in methods.items()}


def settings() -> dict:
    """Every number that decides what the students learn."""
    return {
        "worlds": {name: asdict(made.WORLDS[name]) for name in needed()},
        "topic": [made.GROUPS, made.SIZE],
        "distracting": made.DISTRACTING,
        "faint": made.FAINT,
        "blur": made.BLUR,
        "sharpness": made.SHARPNESS,
        "test": [made.TEST_QUERIES, made.TEST_PASSAGES],
        "hidden": students.HIDDEN,
        "blocks": students.BLOCKS,
        "k": students.K,
        "steps": students.STEPS,
        "rate": students.RATE,
        "decay": students.DECAY,
    }


def learn(
    world: str, method: str, seeds: Sequence[int], tell: Callable[[str], None] = print
) -> list[float]:
    """MRR@10 in percent of one student per seed."""
    found = []
    for seed in seeds:
        data = made.make(made.WORLDS[world], seed)
        student = students.train(data, students.METHODS[method], seed)
        found.append(round(students.mrr(student, data), 3))
    tell(f"{world}, {method}: {sum(found) / len(found):.2f}")
    return found


def record(seeds: Sequence[int], tell: Callable[[str], None] = print) -> dict:
    """Train every student: settings, seeds, seconds of the processor, and MRR@10 of each."""
    started = time.process_time()
    mrr = {
        world: {method: learn(world, method, seeds, tell) for method in methods}
        for world, methods in needed().items()
    }
    return {
        "settings": settings(),
        "seeds": list(seeds),
        "device": hardware.device_name(),
        "versions": hardware.versions(),
        "seconds": round(time.process_time() - started, 1),
        "mrr": mrr,
    }

"""Forecast: what of a suite is done and what is left, and what the rest takes of disk and of time.

Disk follows from shapes, words and examples. Time is what the same work took before, in the recorded results and in
those in ``runs/``; where it was not done before, what it took of an encoder of the same shape, shown apart.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from lib import disk, sources, tasks, unpackaged
from lib.study import inputs, loading, params, runs
from lib.study.params import SPLITS, ParameterError, Study
from lib.study.runs import Run
from lib.study.steps import STEPS, Step
from lib.study.variants import Variant

Doing = Sequence[tuple[Run, list[Step]]]
"""Runs, each with its steps that are to do."""

SHAPES = {name: tuple(shape) for name, shape in loading.read_yaml(inputs.LIB / "shapes.yaml").items()}
"""Encoders that need not be here: layers, width and parameters."""

KINDS = ("untrained", "tasks", "fewer examples", "pruned", "other")


def kind(variant: Variant) -> str:
    """One of ``KINDS``: without training; on a whole task; on a part of it; without some layers; at another learning
    rate, or stopped early."""
    if not variant.task:
        return "untrained"
    if variant.dropped:
        return "pruned"
    if variant.rate or variant.checkpoint:
        return "other"
    return "fewer examples" if variant.amount else "tasks"


def told(doing: Doing, suite: str, jobs: int, keep: bool) -> str:
    """What of a suite is done and to do, and what it takes. ``jobs`` : how many runs are made at a time. ``keep`` :
    the stores stay."""
    names = [*dict.fromkeys(run.study.name for run, _ in doing)]
    own = {name: [(run, steps) for run, steps in doing if run.study.name == name] for name in names}
    before = pd.DataFrame(timings(), columns=Timing._fields)
    table = pd.DataFrame([_row(runs_of, before) for runs_of in own.values()], names)
    table = table.loc[:, table.ne("").any()].rename_axis("study").reset_index()
    lines = [*_grid(own), "", table.to_string(index=False), "", "of runs: done/all", _disk(doing, suite, jobs, keep)]
    if {*ALIKE} & {*table.columns}:
        lines += [
            "alike: where the same work was not done before, what it took of another encoder with as many layers and",
            "as wide, in whatever precision (a CPU takes two to three times as long in float32 as in bfloat16): per",
            "update of a training, else per word. A rough guide",
        ]
    used = before[before["work"].isin({work(run, step.name) for run, steps in doing for step in steps})]
    if len(used):
        places = ", ".join(f"{n} steps in {place}" for place, n in used["place"].value_counts().items())
        processors = ", ".join(sorted({*used["processor"]} - {""}))
        lines += [f"core-hours: of the computation alone, as {places} took ({processors}); rankings: at most"]
    return "\n".join(lines)


def _disk(doing: Doing, suite: str, jobs: int, keep: bool) -> str:
    if unknown := [name for name, study in _studies(doing).items() if shape(study) is None]:
        return f"disk at peak: not known before the encoders of {', '.join(unknown)} are here (make data SCALE={suite})"
    lasting, moving = peak(doing, jobs, keep)
    return (
        f"disk at peak: {(lasting + moving) / 1e9:.1f} GB: {lasting / 1e9:.1f} GB of models"
        f"{' and stores, which stay' if keep else ''}, and {moving / 1e9:.1f} GB "
        f"of the checkpoints{'' if keep else ' or stores'} of {jobs} runs at a time, which go when they are used"
    )


def _studies(doing: Doing) -> dict[str, Study]:
    return {run.study.name: run.study for run, steps in doing if steps}


def _grid(own: dict[str, Doing]) -> list[str]:
    """Which runs the studies have: one line for all that have the same."""
    of: dict[str, list[str]] = {}
    for name, runs_of in own.items():
        parts = []
        for which in KINDS:
            chosen = [run.variant for run, _ in runs_of if kind(run.variant) == which]
            conditions, seeds = len({v.condition for v in chosen}), len({v.seed for v in chosen})
            if chosen:
                parts.append(f"{conditions} {which}" + (f" × {seeds} seeds" if seeds > 1 else ""))
        of.setdefault(" + ".join(parts), []).append(name)
    return [
        f"{', '.join(names)}: {f'{len(names)} × ' if len(names) > 1 else ''}({parts})" for parts, names in of.items()
    ]


def _row(own: Doing, before: pd.DataFrame) -> dict[str, Any]:
    shares = {name: [steps for run, steps in own if kind(run.variant) == name] for name in KINDS}
    to_do = [(run, step.name) for run, steps in own for step in steps]
    known, alike, unknown = _spent(to_do, before[before["device"] == "cpu"])
    fast, fast_alike, slow = _spent(to_do, before[before["device"] != "cpu"])
    return {
        **{name: f"{sum(not s for s in todo)}/{len(todo)}" if todo else "" for name, todo in shares.items()},
        "steps to do": len(to_do),
        "core-hours": f"{sum(known):.1f}" if known or not to_do else "" if alike else "no estimate",
        ALIKE[0]: _steps(alike),
        "core-hours unknown": _counted(unknown),
        "GPU-hours": _steps(fast),
        ALIKE[1]: _steps(fast_alike),
        "GPU-hours unknown": _counted(slow) if fast or fast_alike else "",
    }


def _counted(steps: Counter[str]) -> str:
    return ", ".join(f"{n} {step}" for step, n in steps.items())


ALIKE = ("core-hours alike", "GPU-hours alike")


def _spent(to_do: list[tuple[Run, str]], before: pd.DataFrame) -> tuple[list[float], list[float], Counter[str]]:
    """The hours of the steps that were done before, those of others by encoders of the same shape, and how many steps
    of each kind neither can be said of."""
    known = [hours(run, step, before) for run, step in to_do]
    rest = [one for one, time in zip(to_do, known, strict=True) if time is None]
    likely = [hours(run, step, before, "alike") for run, step in rest]
    unknown = Counter(step for (_, step), time in zip(rest, likely, strict=True) if time is None)
    return [t for t in known if t is not None], [t for t in likely if t is not None], unknown


def _steps(times: list[float]) -> str:
    return f"{sum(times):.1f} ({len(times)} steps)" if times else ""


# Disk ----------------------------------------------------------------------------------------------------------------


def peak(doing: Doing, jobs: int, keep: bool) -> tuple[float, float]:
    """Bytes of the models to make that last (with the stores, to ``keep``), and of the most that ``jobs`` runs have
    beside them while they are made: two checkpoints of a training (weights, and Adam's two moments), or the stores.
    Every encoder must be here."""
    to_do = [(run.study, {step.name for step in steps}) for run, steps in doing if steps]
    model = {name: 4.0 * shape(study)[2] for name, study in _studies(doing).items()}
    store = {name: 2.0 * words(study) * math.prod(shape(study)[:2]) for name, study in _studies(doing).items()}
    trained = sorted(model[study.name] for study, steps in to_do if "finetune" in steps)
    stores = [store[study.name] * ("extract" in steps) for study, steps in to_do]
    checkpoints = [2 * 3 * model[study.name] * ("finetune" in steps) for study, steps in to_do]
    moving = sorted(checkpoints if keep else map(max, checkpoints, stores))
    models = sum(trained if STEPS["finetune"].lasts else trained[-jobs:])
    return models + sum(stores) * keep, sum(moving[-jobs:])


def shape(study: Study) -> tuple[int, int, int] | None:
    """Layers (the embedding output is one), width and parameters of a study's encoder; None unless it is here or one of
    ``SHAPES``. Nothing is fetched, and no weights are read."""
    folder = _folder(study)
    return _shape(folder) if folder and (folder / "config.json").is_file() else SHAPES.get(study.encoder.checkpoint)


@lru_cache
def _shape(folder: Path) -> tuple[int, int, int]:
    import torch
    import transformers  # here: seconds to import

    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        parameters = transformers.AutoModel.from_config(config).num_parameters()
    return config.num_hidden_layers + 1, config.hidden_size, parameters


def _folder(study: Study) -> Path | None:
    """Where the encoder is: a source, a folder, or the hub's cache."""
    name = study.encoder.checkpoint
    if name in sources.SOURCES:
        return sources.home() / f"{name}-{sources.SOURCES[name].version}"
    if (params.ROOT / name).is_dir():
        return params.ROOT / name
    from huggingface_hub import errors, try_to_load_from_cache

    with contextlib.suppress(errors.HFValidationError):  # a folder that is not there
        found = try_to_load_from_cache(name, "config.json", revision=study.encoder.revision)
        return Path(found).parent if isinstance(found, str) else None
    return None


def words(study: Study) -> int:
    """The words of all corpora and splits of a study, at most: what it asks for, or what a corpus is known to have."""
    total = 0
    for corpus, _ in study.corpora_in_use.values():
        known = {split: _known_words(file) for split, file in corpus.files.items()}
        if corpus.files and "dev" not in known and known["train"] is not None:
            known["dev"] = known["train"] // 10
        for split in SPLITS:
            asked, there = getattr(corpus, f"{split}_words"), known.get(split)
            total += asked if there is None else min(asked, there)
    return total


def _known_words(file: str) -> int | None:
    for name, files in unpackaged.of({file}).items():
        return unpackaged.UNPACKAGED[name].files[files[0]].get("counts", {}).get("words")
    return None


# Time ----------------------------------------------------------------------------------------------------------------


class Timing(NamedTuple):
    """What a step took: ``work``, ``core_seconds`` (of a training: per update; on a GPU, its seconds), and where that
    stands. ``alike`` : the work whatever the encoder (``alike``), ``words`` : how many it was done on (of a training:
    1). ``training``, ``updates`` : which training it was, and how many updates it had. ``device`` : cpu, or the name of
    a GPU."""

    work: str
    core_seconds: float
    place: str
    processor: str
    alike: str = ""
    words: int = 1
    training: str = ""
    updates: int = 0
    device: str = "cpu"


def hours(run: Run, step: str, before: pd.DataFrame, by: Literal["work", "alike"] = "work") -> float | None:
    """Hours of a core, or of a GPU, that a step of a run takes: the median of those that the same work took, or as much
    work on an encoder of the same shape (``by``); None if it was never done. ``before`` : timings, one row each."""
    wanted = work(run, step) if by == "work" else alike(run, step)
    same = before.loc[(before[by] == wanted) & (wanted != ""), ["core_seconds", "words", "training", "updates"]]
    if same.empty:
        return None
    if step != "finetune" and by == "alike":
        return float((same["core_seconds"] / same["words"]).median()) * words(run.study) / 3600
    seconds = float(same["core_seconds"].median())
    if step != "finetune":
        return seconds / 3600
    known = same.loc[same["training"] == _training(run), "updates"]
    updates = int(known.iloc[0]) if len(known) else _updates(run)
    return None if updates is None else updates * seconds / 3600


def work(run: Run, step: str) -> str:
    """Digest of what the time of a step depends on; of a training, the time of one update. A ranking counts as the same
    work whatever sizes and half-samples it tests: ``make record`` tests more of them than ``make reproduce``."""
    study = run.study
    mine = [] if step == "finetune" else [study.corpora_in_use]
    return inputs.digest(step, study.encoder.checkpoint, study.precision, *mine, *_settings(run, step))


def alike(run: Run, step: str) -> str:
    """As ``work``, whatever the encoder, but for its shape, and whatever the corpora, whose words are counted instead
    (``Timing.words``); empty if the shape is not known."""
    form = shape(run.study)
    return inputs.digest(step, *form[:2], sorted(run.study.properties), *_settings(run, step)) if form else ""


def _settings(run: Run, step: str) -> list[Any]:
    """What else the time of a step depends on."""
    study, settings = run.study, run.study.finetune
    mine: list[Any] = [run.variant.dropped]
    if step == "finetune":
        return [*mine, settings.batch_size, settings.max_subwords]
    mine += [study.encoder.pooling]
    if step in ("layers", "neurons"):
        mine += [study.probe, bool(run.variant.task)]
    if step == "neurons":
        mine += [study.ranking.model_dump(exclude={"sizes", "half_samples", "min_label_words"})]
    return mine


def _training(run: Run) -> str:
    """Digest of what the number of a training's updates depends on."""
    return inputs.digest(run.variant.condition, run.study.task_data, run.study.finetune)


def _updates(run: Run) -> int | None:
    """How many updates a training on one of GLUE's tasks has, by the rows of its files; None for any other task."""
    study, variant = run.study, run.variant
    if variant.checkpoint:
        return variant.checkpoint
    if variant.task not in tasks.GLUE:
        return None
    glue = unpackaged.UNPACKAGED["glue"]
    name = f"{variant.task}/train-00000-of-00001.parquet"
    rows = glue.files[name]["counts"]["rows"]
    rows = rows[0] if isinstance(rows, list) else rows
    if glue.place(name).is_file() and Path(study.task_data.glue) == Path(glue.folder):
        rows = unpackaged.counted(glue, glue.place(name))["rows"]
    examples = min(rows * 9 // 10, variant.examples or study.task_data.train_examples or rows)
    return tasks.updates(study, variant, examples)


def timings() -> list[Timing]:
    """All that was timed: the steps of recorded runs, and of those in ``runs/``."""
    found = []
    for name, suite in loading.studies().items():
        recorded, made = runs.recorded(suite) / name, runs.home() / name
        for folder, overrides, place in ((recorded, runs.RECORDED, f"results/{suite}"), (made, {}, f"runs/{name}")):
            if folder.is_dir():
                with contextlib.suppress(ParameterError):  # a file that cannot be used has no timings
                    found += _timed(loading.load(name, "full", overrides), folder, place)
    return found


def _timed(study: Study, folder: Path, place: str) -> Iterator[Timing]:
    """The timings of the runs of a study that lie in a folder."""
    for of_run in sorted(p for p in folder.iterdir() if p.is_dir()):
        try:
            run = Run(study, Variant.parse(of_run.name), recorded=place.startswith("results"))
        except ParameterError:
            continue
        for step in (step for step in STEPS.values() if step.applies(run)):
            if facts := _facts(run, step, of_run):
                by = facts["provenance"]
                device = by.get("device", "cpu")
                seconds = facts["seconds"] * (by["threads"] if device == "cpu" else 1)
                of = (work(run, step.name), seconds, place, by["processor"], alike(run, step.name))
                timed = Timing(*of, words=words(study), device=device)
                if step.name == "finetune":
                    each, training = timed.core_seconds / facts["updates"], _training(run)
                    timed = timed._replace(core_seconds=each, words=1, training=training, updates=facts["updates"])
                yield timed


def _facts(run: Run, step: Step, of_run: Path) -> dict[str, Any] | None:
    """The manifest of a step's result, if it is of these parameters; of the extraction, whose stores do not last, what
    its notebook took."""
    if step.name == "extract":
        metadata = (disk.read_json(of_run / f"{step.notebook}.ipynb") or {"metadata": {}})["metadata"]
        probed = disk.read_json(run.result("layers") / disk.MANIFEST) or {}  # a notebook names no device
        by = {
            "threads": run.study.threads,
            "processor": "",
            "device": probed.get("provenance", {}).get("device", "cpu"),
        }
        facts = {"seconds": metadata.get("papermill", {}).get("duration"), "provenance": by, **metadata.get("lib", {})}
    else:
        facts = disk.read_json(run.result(step.name) / disk.MANIFEST) or {}
    return facts if facts.get("seconds") and facts.get("key") == run.key(step.name) else None

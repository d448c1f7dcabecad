"""Task: what an encoder is fine-tuned on. GLUE from the hub or a copy, three tasks from registry data, or one's own.

Every task is a DatasetDict with the splits ``train``, ``dev``, ``test`` and the columns ``text``, ``text_pair`` (where
there are two) and ``label`` (class number, or a float for a regression).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from lib import hub, sources, tables
from lib.study import params, variants

datasets.disable_progress_bars()

SCORES = ("accuracy", "matthews", "f1", "pearson", "spearman")


class TaskError(ValueError):
    """A task that cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class Task:
    """``columns`` hold the text or texts; ``labels`` are the class names in the order of their numbers, empty for a
    regression; ``metric`` names the main score; ``test_split`` is tested on; ``label`` is the column of the labels."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    test_split: str = "validation"
    label: str = "label"


GLUE = {
    "cola": Task(("sentence",), ("unacceptable", "acceptable"), "matthews"),
    "sst2": Task(("sentence",), ("negative", "positive"), "accuracy"),
    "mrpc": Task(("sentence1", "sentence2"), ("not_equivalent", "equivalent"), "accuracy"),
    "stsb": Task(("sentence1", "sentence2"), (), "pearson"),
    "qqp": Task(("question1", "question2"), ("not_duplicate", "duplicate"), "accuracy"),
    "mnli": Task(
        ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), "accuracy", "validation_matched"
    ),
    "qnli": Task(("question", "sentence"), ("entailment", "not_entailment"), "accuracy"),
    "rte": Task(("sentence1", "sentence2"), ("entailment", "not_entailment"), "accuracy"),
}
"""GLUE's tasks in the columns of the hub's copy. The official validation split is the test split here; a tenth of the
official training split is held out as the development split."""

REGISTRY = {
    "sentiment": Task(("text",), ("negative", "positive"), "accuracy"),
    "acceptability": Task(("text",), ("unacceptable", "acceptable"), "accuracy"),
    "shuffled": Task(("text",), ("negative", "positive"), "accuracy"),
}
"""Three tasks over the same movie snippets: one needs words, one needs their order, one cannot be learnt."""

FUNCTION_WORDS = frozenset(
    "the a an this that these those its his her their our your my of in on at by for with from into about to and or "
    "but as than is are was were be been has have had will would can could not".split()
)
"""Words at which a phrase begins: swapping one with its neighbour breaks the grammar and keeps the words."""


def task(study: params.Study, name: str) -> Task:
    """The description of a task. Raises ParameterError for an unknown one, with the nearest name, and for one of the
    user's own with the name of another."""
    known = REGISTRY | GLUE
    if own := study.task_data.own.get(name):
        if name in known:
            raise params.ParameterError(f"task_data.own: '{name}' is a task of this package; give yours another name")
        columns = (own.text, own.text_pair) if own.text_pair else (own.text,)
        return Task(columns, tuple(own.labels or ()), "accuracy" if own.labels else "pearson", "test", own.label)
    if name not in known:
        names = [*known, *study.task_data.own]
        raise params.ParameterError(
            f"there is no task '{name}'{params.nearest(name, names)}\nTasks: {', '.join(names)}"
        )
    return known[name]


def load(study: params.Study, variant: variants.Variant) -> datasets.DatasetDict:
    """The examples that a variant is fine-tuned and tested on, sampled by the study's seed: one sample for all seeds of
    fine-tuning. ``task_data.sample`` draws another for training.

    Raises
    ------
    ParameterError : unknown task. TaskError : the data cannot be had or lack a column, an example lacks a text or a
    label, or all training examples are of one class.
    """
    assert variant.task
    name = variant.task
    spec = task(study, name)
    if name in REGISTRY:
        data = _snippets(study, name)
    else:
        train, test = (_examples(study, spec, name, split) for split in ("train", spec.test_split))
        if len(train) < 2:
            raise TaskError(f"task '{name}': {len(train)} training examples cannot be split into train and dev")
        parts = train.train_test_split(test_size=0.1, seed=study.seed)
        data = datasets.DatasetDict(train=parts["train"], dev=parts["test"], test=test)
    limits = {
        "train": variant.examples or study.task_data.train_examples,
        "dev": study.task_data.dev_examples,
        "test": study.task_data.test_examples,
    }
    if variant.examples and variant.examples > len(data["train"]):
        raise TaskError(f"task '{name}': {variant.name} asks for {variant.examples} of {len(data['train'])} examples")
    for split, limit in limits.items():
        if limit and limit < len(data[split]):
            drawn = study.seed + (study.task_data.sample if split == "train" else 0)
            data[split] = data[split].shuffle(seed=drawn).select(range(limit))
        if not len(data[split]):
            raise TaskError(f"task '{name}': the {split} split is empty")
    classes = set(data["train"]["label"][:])
    if spec.labels and len(classes) < 2:
        raise TaskError(
            f"task '{name}': all {len(data['train'])} training examples are of the class "
            f"'{spec.labels[classes.pop()]}'; a task needs examples of two classes at least"
        )
    return data


def updates(study: params.Study, variant: variants.Variant, examples: int) -> int:
    """How many updates the training of a variant on so many examples has, to its end. Raises ParameterError if the
    variant is stopped after it."""
    settings = study.finetune
    found = math.ceil(math.ceil(examples / settings.batch_size) * settings.epochs * variant.share)
    if (variant.checkpoint or 0) > found:
        raise params.ParameterError(
            f"{variant.name}: the training has {found} updates, none numbered {variant.checkpoint}"
        )
    return found


def scores(spec: Task) -> Callable[[Any], dict[str, float]]:
    """The function from a Trainer's predictions to the task's scores, as GLUE defines them."""

    from scipy.stats import pearsonr, spearmanr  # here: most runs train nothing, and they take a second to import
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    def compute(prediction: Any) -> dict[str, float]:
        output, gold = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        if not spec.labels:
            flat = output.reshape(-1)
            if flat.min() == flat.max() or gold.min() == gold.max():  # a constant correlates with nothing
                return {"pearson": 0.0, "spearman": 0.0}
            return {"pearson": float(pearsonr(flat, gold)[0]), "spearman": float(spearmanr(flat, gold)[0])}
        guess = output.argmax(-1)
        result = {"accuracy": accuracy_score(gold, guess), "matthews": matthews_corrcoef(gold, guess)}
        if len(spec.labels) == 2:
            result["f1"] = f1_score(gold, guess, zero_division=0)
        return {k: float(v) for k, v in result.items()}

    return compute


def _examples(study: params.Study, spec: Task, name: str, split: str) -> datasets.Dataset:
    """One split of GLUE or of a task of the user's own, checked, in the order of its file."""
    columns = dict(zip(("text", "text_pair"), spec.columns, strict=False))
    parts = []
    try:
        for table in _tables(study, name, split, [*spec.columns, spec.label]):
            # GLUE counts as it is: two questions of QQP's are empty.
            part: dict[str, Any] = {k: tables.texts(table, c, may_be_empty=name in GLUE) for k, c in columns.items()}
            part["label"] = (
                tables.classes(table, spec.label, spec.labels) if spec.labels else tables.numbers(table, spec.label)
            )
            parts.append(datasets.Dataset.from_dict(part))
    except tables.TableError as error:
        raise TaskError(f"task '{name}', {split}, {error}") from error
    return datasets.concatenate_datasets(parts)


def _tables(study: params.Study, name: str, split: str, columns: list[str]) -> list[tables.Table]:
    """The files of a split: one's own, or those of a copy of GLUE, which is fetched from the hub if it is no folder."""
    data = study.task_data
    if own := data.own.get(name):
        return [tables.read(params.ROOT / own.files[split], own.format, columns)]
    folder = params.ROOT / data.glue
    if not folder.is_dir():
        try:
            files = tuple(form.format(name, split) for form in FORMS)
            folder = hub.folder(data.glue, data.glue_revision, "dataset", files)
        except sources.SourceError as error:
            raise TaskError(
                f"task '{name}' could not be read from {data.glue}: {error}. Or set task_data.glue to the folder of a "
                "copy"
            ) from error
    return [tables.read(file, "parquet", columns) for file in _copied(folder, name, split)]


FORMS = ("{}/{}[.-]*parquet", "{}/{}/*.parquet")
"""The files of a task's split in GLUE's repository, and in copies of it."""


def _copied(folder: Path, name: str, split: str) -> list[Path]:
    """The files of a split in a copy of GLUE, as the hub lays them out."""
    files = sorted(file for form in FORMS for file in folder.glob(form.format(name, split)))
    if not files:
        there = sorted(p.name for p in (folder / name).glob("*"))
        raise TaskError(
            f"task '{name}' could not be read from {folder}: there is no file {name}/{split}-*.parquet (in {name}/: "
            f"{', '.join(there)[:300] or 'nothing'}); set task_data.glue to the folder of a copy laid out as on the hub"
        )
    declared = re.search(r"-of-(\d+)", files[0].name)
    if declared and len(files) != int(declared[1]):
        raise TaskError(
            f"task '{name}' could not be read from {folder}: {name}/ has {len(files)} files of its {split} split, and "
            f"by the name of the first, {files[0].name}, there are {int(declared[1])}"
        )
    return files


# Movie snippets --------------------------------------------------------------------------------------------------


def _snippets(study: params.Study, name: str) -> datasets.DatasetDict:
    rng = np.random.default_rng(study.seed)
    snippets = read_snippets()
    texts, ratings = zip(*(snippets[i] for i in rng.permutation(len(snippets))), strict=True)
    labels = (np.array(ratings) > 0).astype(int)
    if name == "acceptability":
        labels = rng.permutation(np.arange(len(texts)) % 2)
        texts = [t if keep else corrupt(t, rng) for t, keep in zip(texts, labels, strict=True)]
    elif name == "shuffled":
        labels = rng.permutation(labels)
    data = datasets.Dataset.from_dict({"text": texts, "label": labels})
    train, dev, test = np.split(np.arange(len(data)), [int(len(data) * 0.8), int(len(data) * 0.9)])
    return datasets.DatasetDict(train=data.select(train), dev=data.select(dev), test=data.select(test))


def read_snippets() -> list[tuple[str, float]]:
    """Movie snippets with the mean of people's ratings of valence (-4 … 4), as (text, rating).

    Kept are those rated beyond ±0.5, once each, in which words can be swapped (so that all tasks share all texts).
    """
    file = sources.fetch("movie-snippets") / "movieReviewSnippets_GroundTruth.txt"
    kept: dict[str, float] = {}
    for number, line in enumerate(file.read_text(encoding="latin-1").splitlines(), 1):
        cells = line.split("\t")
        if len(cells) != 3:
            raise TaskError(f"{file}:{number}: {len(cells)} columns, expected id, rating, text")
        words = cells[2].split()
        if abs(float(cells[1])) > 0.5 and _places(words):
            kept.setdefault(" ".join(words), float(cells[1]))
    return list(kept.items())


def corrupt(text: str, rng: np.random.Generator) -> str:
    """The same words, ungrammatical: at phrase boundaries, drawn by ``rng``, a function word swaps with the content
    word after it (*a splash even greater* → *splash a even greater*), at one place for every eight words.
    """
    words = text.split()
    swapped: set[int] = set()
    for i in rng.permutation(_places(words))[: max(1, len(words) // 8)]:
        if not swapped & {i, i + 1}:
            swapped |= {i, i + 1}
            words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def _places(words: list[str]) -> list[int]:
    """Where a lower-case function word is followed by a plain lower-case word that is none."""
    return [
        i
        for i, (a, b) in enumerate(zip(words, words[1:], strict=False))
        if a in FUNCTION_WORDS and b not in FUNCTION_WORDS and re.fullmatch(r"[a-z]+", b)
    ]

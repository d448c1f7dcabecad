"""Layer probes: how well each layer of a run tells each property."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from lib import encoders
from lib.encoders import activations
from lib.probes.labels import Labels, baselines, control, label_set, text_ids, word_groups
from lib.probes.linear import ProbeSpec, Scope, fit_specs, held
from lib.study import runs
from lib.study.runs import Run


def ensure_layer_counts(run: Run) -> pd.DataFrame:
    """Counts of correct predictions of a run's layer probes: read if they are up to date, else computed now.

    One row per property, target (real, control), layer, split (dev, test), word group and text: ``correct`` of
    ``total``. The baselines are rows too: layer -1, ``target`` = majority or lookup.
    """

    def compute(folder: Path) -> None:
        tables = [table for corpus in run.study.corpora_in_use for table in _counts_of_corpus(run, corpus)]
        pd.concat(tables).to_parquet(folder / "counts.parquet", index=False)

    return pd.read_parquet(runs.ensure(run, "layers", compute) / "counts.parquet")


def _counts_of_corpus(run: Run, corpus: str) -> list[pd.DataFrame]:
    study, stores = run.study, activations.ensure(run, corpus)
    words = {split: store.words for split, store in stores.items()}
    real = {name: label_set(words, name) for name in study.corpora_in_use[corpus][1]}
    sets = [*real.values(), *(control(words, labels, study.seed) for labels in real.values())]
    specs, sets = by_penalty(run, sets)
    device = encoders.device(study)
    fitted = fit_specs(stores["train"].vectors, specs, study.probe, study.seed, device, "layer probes")
    tables = []
    for split in ("dev", "test"):
        texts, X = text_ids(words[split]), held(stores[split].vectors, device)
        predicted = [layers for probe in fitted for layers in probe.predict(X)]
        for labels, by_layer in zip(sets, predicted, strict=True):
            guesses = [("control" if labels.control else "real", *cell) for cell in enumerate(by_layer)]
            if not labels.control:
                guesses += [(name, -1, guess) for name, guess in baselines(words, labels, split).items()]
            groups = word_groups(words, real[labels.property], split)
            for (target, layer, guess), (group, inside) in product(guesses, groups.items()):
                cell = {"property": labels.property, "target": target, "layer": layer, "split": split}
                right = (guess == labels.ids[split])[inside]
                tables.append(counts_by_text(texts[inside], right, cell | {"word_group": group}))
    return tables


def by_penalty(run: Run, sets: list[Labels], scope: Scope = "each layer") -> tuple[list[ProbeSpec], list[Labels]]:
    """One probe for all label sets that have a penalty in common, and the label sets in the order of the probes'."""
    architecture = encoders.architecture(run.study) if run.study.probe.penalties else ""
    alike: dict[tuple[float, float], list[Labels]] = {}
    for labels in sets:
        alike.setdefault(run.study.probe.penalty(architecture, labels.property), []).append(labels)
    specs = [ProbeSpec([s.target for s in own], scope, *penalty) for penalty, own in alike.items()]
    return specs, [labels for own in alike.values() for labels in own]


def counts_by_text(texts: pd.Categorical, right: np.ndarray, cell: dict[str, str | int]) -> pd.DataFrame:
    """How many predictions are right, of how many, in each text: columns text, correct, total and the cell."""
    names = texts.categories.astype(str)
    correct, total = (np.bincount(codes, minlength=len(names)) for codes in (texts.codes[right], texts.codes))
    return pd.DataFrame({"text": names, "correct": correct, "total": total, **cell})[total > 0]

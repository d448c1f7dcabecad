"""Layer probes: how well each layer of a run tells each property."""

import numpy as np
import pandas as pd

from lib import encoders
from lib.encoders import activations
from lib.probes.labels import Labels, baselines, label_sets, text_ids, word_groups
from lib.probes.linear import ProbeSpec, fit_specs
from lib.study import runs
from lib.study.runs import Run


def ensure_layer_counts(run: Run) -> pd.DataFrame:
    """Counts of correct predictions of a run's layer probes: read if they are up to date, else computed now.

    One row per property, target (real, control), layer, split (dev, test), word group and text: ``correct`` of
    ``total``. The baselines are rows too: layer -1, ``target`` = majority or lookup.
    """
    folder = runs.ensure(
        run, "layers", lambda part: _layer_counts(run).to_parquet(part / "counts.parquet", index=False)
    )
    return pd.read_parquet(folder / "counts.parquet")


def _layer_counts(run: Run) -> pd.DataFrame:
    """The counts of all corpora of the run, one after another."""
    tables = [table for corpus in run.study.corpora_in_use for table in _counts_of_corpus(run, corpus)]
    return pd.concat(tables, ignore_index=True)


def _counts_of_corpus(run: Run, corpus: str) -> list[pd.DataFrame]:
    study, stores = run.study, activations.ensure(run, corpus)
    words = {split: store.words for split, store in stores.items()}
    sets = label_sets(words, study.corpora_in_use[corpus][1], study.seed)
    spec, device = ProbeSpec([s.target for s in sets]), encoders.device(study)
    (probe,) = fit_specs(stores["train"].vectors, [spec], study.probe, study.seed, device, "layer probes")
    rows = []
    for split in ("dev", "test"):
        texts = text_ids(words[split])
        for labelled, predicted in zip(sets, probe.predict(stores[split].vectors), strict=True):
            real = next(s for s in sets if s.property == labelled.property)
            groups = word_groups(words, real, split)
            target = "control" if labelled.control else "real"
            for layer, guess in enumerate(predicted):
                rows += _counts(labelled, target, layer, split, groups, texts, guess)
            if not labelled.control:
                for target, guess in baselines(words, labelled, split).items():
                    rows += _counts(labelled, target, -1, split, groups, texts, guess)
    return rows


def _counts(
    labelled: Labels, target: str, layer: int, split: str, groups: dict[str, np.ndarray], texts: pd.Categorical,
    guess: np.ndarray,
) -> list[pd.DataFrame]:  # fmt: skip
    right = guess == labelled.ids[split]
    codes, size = texts.codes, len(texts.categories)
    out = []
    for name, inside in groups.items():
        counts = {"correct": np.bincount(codes[inside & right], minlength=size)}
        counts["total"] = np.bincount(codes[inside], minlength=size)
        present = counts["total"] > 0
        of = {"property": labelled.property, "target": target, "layer": layer, "split": split, "word_group": name}
        text = texts.categories.astype(str)[present]
        out.append(pd.DataFrame({"text": text, **{k: n[present] for k, n in counts.items()}, **of}))
    return out

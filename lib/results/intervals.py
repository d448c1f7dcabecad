"""Interval: accuracies and drops with 95 % bootstrap intervals over texts, paired."""

import numpy as np
import pandas as pd

from lib.study.variants import Variant

RESAMPLES = 1000
"""Bootstrap resamples of an interval; 95 % of them lie inside."""


VARIANT = list(Variant().columns())
"""What tables say of a variant: its name, and what the name means."""


CELL = ["study", *VARIANT, "property", "source", "target", "word_group", "layer"]
"""What names one accuracy."""


NAMED = ["study", "variant", "property"]


def accuracies(counts: pd.DataFrame, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """Accuracy of every probe with the 95 % bootstrap interval over texts.

    Parameters
    ----------
    counts : as ``layers`` gives them.

    Returns
    -------
    One row per study, variant, property, target (real, control, majority, lookup), word group and layer:
    ``accuracy``, ``low``, ``high``, ``n`` (words).
    """
    cells, correct, total = counts_by_text(counts, split)
    draws, accuracy = resampled(cells, correct, total, seed), correct.sum(1) / total.sum(1)
    return cells.assign(accuracy=accuracy, **_interval(draws), n=total.sum(1))


def drops(counts: pd.DataFrame, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """What fine-tuning cost: accuracy of the pre-trained encoder minus that of each variant, layer by layer.

    The interval is a paired one: both encoders are judged on the same resampled texts.

    Returns
    -------
    One row per fine-tuned variant, property, word group and layer: ``drop``, ``low``, ``high`` (fractions, not points).
    """
    cells, correct, total = counts_by_text(pick(counts, target="real"), split)
    draws, accuracy = resampled(cells, correct, total, seed), correct.sum(1) / total.sum(1)
    cells = cells.drop(columns="target").assign(row=range(len(cells)))
    before = pick(cells, condition="pretrained").drop(columns=VARIANT)
    pairs = cells[cells["task"] != ""].merge(before, on=list(before.columns.drop("row")), suffixes=("", "_before"))
    after, before = pairs.pop("row"), pairs.pop("row_before")
    return pairs.assign(drop=accuracy[before] - accuracy[after], **_interval(draws[before] - draws[after]))


def selectivity(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Accuracy minus that of the control task, over all words: one row per study, variant, property and layer."""
    probes = accuracy[(accuracy["word_group"] == "all") & (accuracy["layer"] >= 0)]
    wide = probes.pivot_table(index=[*NAMED, "layer"], columns="target", values="accuracy")
    return (wide["real"] - wide["control"]).rename("selectivity").reset_index()


def pick(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    return table[np.logical_and.reduce([table[k] == v for k, v in where.items()])]


def counts_by_text(counts: pd.DataFrame, split: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Cells and their correct and total counts per text: table [cells], [cells, texts], [cells, texts]."""
    rows = pick(counts, split=split)
    wide = rows.pivot_table(index=CELL, columns="text", values=["correct", "total"], fill_value=0, observed=True)
    cells = wide.index.to_frame(index=False)
    return cells, wide["correct"].to_numpy(float), wide["total"].to_numpy(float)


def resampled(cells: pd.DataFrame, correct: np.ndarray, total: np.ndarray, seed: int) -> np.ndarray:
    """Accuracies on texts drawn with replacement, the same draws for all cells of one corpus: [cells, RESAMPLES].

    ``cells``, ``correct``, ``total`` : as ``counts_by_text`` gives them.
    """
    out = np.empty((len(cells), RESAMPLES))
    for rows in cells.groupby(["study", "property"]).indices.values():
        inside = np.ix_(rows, total[rows].any(0))  # another property may be of another corpus, with its own texts
        texts = inside[1].size
        weight = np.random.default_rng(seed).multinomial(texts, np.full(texts, 1 / texts), RESAMPLES).T.astype(float)
        drawn = total[inside] @ weight
        out[rows] = (correct[inside] @ weight) / np.where(drawn > 0, drawn, np.nan)
    return out


def _interval(draws: np.ndarray) -> dict[str, np.ndarray]:
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=1).reshape(2, len(draws))  # of no cells too
    return {"low": low, "high": high}

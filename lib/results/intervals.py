"""Interval: accuracies and drops with 95 % bootstrap intervals over texts, paired."""

import numpy as np
import pandas as pd

RESAMPLES = 1000
"""Bootstrap resamples of an interval; 95 % of them lie inside."""


CELL = ["study", "variant", "property", "source", "labels", "words", "layer"]
"""What names one accuracy."""


def accuracies(counts: pd.DataFrame, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """Accuracy of every probe with the 95 % bootstrap interval over texts.

    Parameters
    ----------
    counts : as ``layers`` gives them.

    Returns
    -------
    One row per study, variant, property, labels (real, control, majority, lookup), words and layer: ``accuracy``,
    ``low``, ``high``, ``n`` (words).
    """
    cells, right, total = by_text(counts, split)
    return cells.assign(**_interval(resampled(right, total, seed), right.sum(1) / total.sum(1)), n=total.sum(1))


def drops(counts: pd.DataFrame, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """What fine-tuning cost: accuracy of the pre-trained encoder minus that of each variant, layer by layer.

    The interval is a paired one: both encoders are judged on the same resampled texts.

    Returns
    -------
    One row per fine-tuned variant, property, words and layer: ``drop``, ``low``, ``high`` (fractions, not points).
    """
    cells, right, total = by_text(counts[counts["labels"] == "real"], split)
    draws, point = resampled(right, total, seed), right.sum(1) / total.sum(1)
    place = {tuple(row): i for i, row in enumerate(cells[CELL].itertuples(index=False, name=None))}
    rows = []
    for i, (study, variant, *rest) in enumerate(cells[CELL].itertuples(index=False, name=None)):
        before = place.get((study, "pretrained", *rest))
        if before is not None and variant not in ("pretrained", "random"):
            found = _interval((draws[before] - draws[i])[None], np.array([point[before] - point[i]]), "drop")
            rows.append(
                dict(zip(CELL, (study, variant, *rest), strict=True)) | {k: float(v[0]) for k, v in found.items()}
            )
    return pd.DataFrame(rows, columns=[*CELL, "drop", "low", "high"]).drop(columns="labels")


def selectivity(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Accuracy minus that of the control task, over all words: one row per study, variant, property and layer."""
    wide = accuracy[(accuracy["words"] == "all") & (accuracy["layer"] >= 0)].pivot_table(
        index=["study", "variant", "property", "layer"], columns="labels", values="accuracy"
    )
    return (wide["real"] - wide["control"]).rename("selectivity").reset_index()


def pick(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    return table[np.logical_and.reduce([table[k] == v for k, v in where.items()])]


NAMED = ["study", "variant", "property"]


def by_text(counts: pd.DataFrame, split: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Cells and their correct and total counts per text: table [cells], [cells, texts], [cells, texts]."""
    mine = counts[counts["split"] == split]
    wide = mine.pivot_table(index=CELL, columns="text", values=["correct", "total"], fill_value=0, observed=True)
    cells = wide.index.to_frame(index=False)
    return cells, wide["correct"].to_numpy(float), wide["total"].to_numpy(float)


def resampled(right: np.ndarray, total: np.ndarray, seed: int) -> np.ndarray:
    """Accuracies on texts drawn with replacement, the same draws for every cell: [cells, RESAMPLES]."""
    texts = right.shape[1]
    weight = np.random.default_rng(seed).multinomial(texts, np.full(texts, 1 / texts), RESAMPLES).T.astype(float)
    drawn = total @ weight
    return (right @ weight) / np.where(drawn > 0, drawn, np.nan)


def _interval(draws: np.ndarray, point: np.ndarray, name: str = "accuracy") -> dict[str, np.ndarray]:
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=1)
    return {name: point, "low": low, "high": high}

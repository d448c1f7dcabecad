"""Spread: how far seeds differ, and where one more seed is to be expected."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def of_cells(values: pd.DataFrame, pools: Sequence[str], cell: list[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds in every cell.

    Parameters
    ----------
    values : one row per seed, with a column ``value`` and those named.
    pools : columns that tell pools of cells apart, the largest pools first, such as measures, then measures of a task.
        A deviation is that of the largest pool whose cells are alike (Bartlett's test at 10 %), else the cell's own;
        that of the largest pool where all seeds of the cell have one value.

    Returns
    -------
    One row per cell: ``mean``, ``seeds`` (how many), ``deviation`` (NaN with one seed), and its degrees of ``freedom``.
    """
    every = [*dict.fromkeys([*pools, *cell])]
    table = values.groupby(every, sort=False)["value"].agg(mean="mean", seeds="size", deviation="std").reset_index()
    table["freedom"] = table["seeds"] - 1
    for column in reversed(pools):  # the last word is the largest pool's
        for name, rows in table.groupby(column):
            inside = values[values[column] == name]
            samples = [own.to_numpy() for _, own in inside.groupby(every)["value"] if len(own) > 1]
            with np.errstate(all="ignore"):  # seeds that are all equal
                unlike = len(samples) > 1 and stats.bartlett(*samples).pvalue < 0.1
            freedom = sum(map(len, samples)) - len(samples)
            chosen = rows.index[table.loc[rows.index, "deviation"] == 0] if unlike else rows.index
            if freedom:
                pooled = np.sqrt(sum((len(own) - 1) * own.var(ddof=1) for own in samples) / freedom)
                table.loc[chosen, ["deviation", "freedom"]] = pooled, freedom
    return table


def reach(spread: pd.DataFrame, seeds: pd.Series | int, level: float) -> pd.Series:
    """How far from the mean the mean of other ``seeds`` (how many) may lie: half of their prediction interval, by
    Student's t. ``spread`` : rows of ``of_cells``. ``level`` : e.g. .95."""
    quantile = stats.t.ppf((1 + level) / 2, spread["freedom"])
    return quantile * spread["deviation"] * np.sqrt(1 / spread["seeds"] + 1 / seeds)

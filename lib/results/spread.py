"""Spread: how far seeds differ, and where one more seed is to be expected."""

import numpy as np
import pandas as pd
from scipy import stats


def of_cells(values: pd.DataFrame, measure: str, cell: list[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds in every cell.

    The deviation of a measure is pooled over its cells where these are alike (Bartlett's test at 1 %).

    Parameters
    ----------
    values : one row per seed, with the columns ``measure``, ``cell`` and ``value``.

    Returns
    -------
    One row per measure and cell: ``mean``, ``seeds`` (how many), ``deviation`` (NaN with one seed), and its degrees of
    ``freedom``.
    """
    seeds = values.groupby([measure, *cell], sort=False)["value"]
    table = seeds.agg(mean="mean", seeds="size", deviation="std").reset_index()
    table["freedom"] = table["seeds"] - 1
    for name, rows in table.groupby(measure):
        samples = [own.to_numpy() for _, own in values[values[measure] == name].groupby(cell)["value"] if len(own) > 1]
        with np.errstate(all="ignore"):  # seeds that are all equal
            unlike = len(samples) > 1 and stats.bartlett(*samples).pvalue < 0.01
        freedom = sum(map(len, samples)) - len(samples)
        if freedom and not unlike:
            pooled = np.sqrt(sum((len(own) - 1) * own.var(ddof=1) for own in samples) / freedom)
            table.loc[rows.index, ["deviation", "freedom"]] = pooled, freedom
    return table


def reach(spread: pd.DataFrame, seeds: pd.Series | int, level: float) -> pd.Series:
    """How far from the mean the mean of other ``seeds`` (how many) may lie: half of their prediction interval, by
    Student's t. ``spread`` : rows of ``of_cells``. ``level`` : e.g. .95."""
    quantile = stats.t.ppf((1 + level) / 2, spread["freedom"])
    return quantile * spread["deviation"] * np.sqrt(1 / spread["seeds"] + 1 / seeds)

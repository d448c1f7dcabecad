"""Result: tidy tables over many runs, with intervals; what the figures are drawn from and what is concluded."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import disk, neurons, probes
from lib.results.intervals import VARIANT
from lib.study import params, runs
from lib.study.runs import Run


def load(variants_of: dict[str, list[str]], size: str = "full", overrides: dict | None = None) -> list[Run]:
    """The runs of several studies. ``variants_of`` : study → names of its variants.

    At full size all results must be there already (``complete``); at a reduction what is missing is computed.
    """
    found = [runs.load(study, name, size, overrides) for study, names in variants_of.items() for name in names]
    if size == "full":
        complete(found)
    return found


def complete(wanted: Iterable[Run]) -> None:
    """Raise StaleResult with one list of all that is missing or of other parameters, and the command that makes it."""
    problems = []
    for run in wanted:
        if run.variant.task and not runs.is_current(run, "finetune"):
            problems.append(f"  {run.model} is missing, cut short, or of other parameters or code")
        for step, path in (("layers", run.layers), ("neurons", run.neurons)):
            try:
                disk.read_table(path, run.key(step))
            except disk.StaleResult as error:
                problems.append(f"  {str(error).split(': run')[0]}")
    if problems:
        raise disk.StaleResult("\n".join(["these results are not there:", *problems, "run 'make reproduce'"]))


def layers(wanted: Iterable[Run]) -> pd.DataFrame:
    """Counts of correct predictions of several runs (``probes.ensure_layer_counts``), with ``study``, ``source`` and
    the columns of the variant (``Variant.columns``)."""
    return pd.concat([_named(probes.ensure_layer_counts(run), run) for run in wanted])


def neuron_tests(wanted: Iterable[Run]) -> pd.DataFrame:
    """What the neurons of several runs can do (``neurons.table``), with ``study``, ``source`` and the columns of the
    variant."""
    return pd.concat([_named(neurons.table(run), run) for run in wanted])


def _named(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    source = np.where(table["property"].map(run.study.is_gold), "gold", "silver")
    return table.assign(study=run.study.name, **run.variant.columns(), source=source)


def from_csv(path: Path) -> pd.DataFrame:
    """A table as ``figures.save_table`` wrote it: what is empty in its columns of text stays so, and is no number."""
    text = [*VARIANT[:-1], "other", "against", "per_seed"]
    return pd.read_csv(path, dtype=dict.fromkeys(text, str)).fillna(dict.fromkeys(text, ""))


def figures_folder(scale: str, size: str = "full") -> Path:
    """Where the figures of a run are written: ``runs/figures/<scale>``, or ``runs/<size>/figures/<scale>``."""
    return runs.home() / "figures" / scale if size == "full" else runs.home() / size / "figures" / scale


def recorded(scale: str) -> Path:
    """Where the figures of the recorded run are: ``figures/<scale>``, which only ``make record`` writes."""
    return params.ROOT / "figures" / scale

"""Result: tidy tables over many runs, with intervals; what the figures are drawn from and what is concluded."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from lib import disk, neurons, probes
from lib.results.summary import pick, top_third
from lib.study import params, runs
from lib.study.runs import Run
from lib.study.steps import STEPS
from lib.study.variants import SHARES, written


def load(
    variants_of: dict[str, list[str]], preset: str = "full", overrides: dict | None = None, recorded: bool = False
) -> list[Run]:
    """The runs of several studies. ``variants_of`` : study → names of its variants.

    At the preset "full" all results must exist already (``complete``), in ``results/`` if they are ``recorded``; at a
    reduction, missing ones are computed.
    """
    loaded = [
        replace(runs.load(study, variant, preset, runs.RECORDED if recorded else overrides), recorded=recorded)
        for study, variants in variants_of.items()
        for variant in variants
    ]
    if preset == "full":
        complete(loaded)
    return loaded


def at_hand(
    variants_of: dict[str, list[str]], preset: str = "full", overrides: dict | None = None, recorded: bool = False
) -> list[Run]:
    """``load``, without the studies of which results are missing; a line says which."""
    found = []
    for study, variants in variants_of.items():
        try:
            found += load({study: variants}, preset, overrides, recorded)
        except disk.StaleResult as missing:
            print(f"not shown: {study}: {missing}")
    return found


def recorded_runs(suite: str) -> list[Run]:
    """The recorded runs of a suite: of each study pretrained, random, then its tasks in order, seed by seed.

    Raises StaleResult if there are none, or if one is not of today's parameters and code.
    """
    variants_of: dict[str, list[str]] = {}
    for folder in sorted(runs.recorded(suite).glob("[!.]*/[!.]*/")):
        variants_of.setdefault(folder.parent.name, []).append(folder.name)
    lacking = [name for name, variants in variants_of.items() if not {"pretrained", "random"} <= {*variants}]
    if lacking or not variants_of:
        lacks = f"pretrained or random of {', '.join(lacking)} is not recorded" if lacking else "nothing is recorded"
        raise disk.StaleResult(f"{lacks} in {runs.recorded(suite)}: run 'make record SCALE={suite}'")

    def rank(run: Run) -> tuple[str, int, str, int]:
        order = ["pretrained", "random", *run.study.tasks, run.variant.condition]
        return run.study.name, order.index(run.variant.condition), run.variant.condition, run.variant.seed or 0

    return sorted(load(variants_of, recorded=True), key=rank)


LISTED = 5
"""How many results are named, of all that are missing."""


def complete(wanted: Iterable[Run]) -> None:
    """Raise StaleResult with one list of all that is missing or of other parameters, and the command that makes it."""
    problems = []
    for run, step in tabled_steps(wanted):
        try:
            runs.manifest(run, step)
        except disk.StaleResult as error:
            problems.append(str(error))
    if problems:
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        told = ["these results are missing or not current:", *problems[:LISTED], *more]
        raise disk.StaleResult("\n".join(told))


def tabled_steps(wanted: Iterable[Run]) -> list[tuple[Run, str]]:
    """Each run with each of its steps that leaves tables."""
    return [(run, step.name) for run in wanted for step in STEPS.values() if step.tables and step.applies(run)]


def is_recorded(run: Run) -> bool:
    """Whether all tables of a run are recorded, of today's parameters and code."""
    return all(runs.is_current(*table) for table in tabled_steps([replace(run, recorded=True)]))


def ranked(wanted: Iterable[Run]) -> list[Run]:
    """The runs whose neurons are ranked: all but those of random weights."""
    return [run for run in wanted if STEPS["neurons"].applies(run)]


def layers(wanted: Iterable[Run], **where: object) -> pd.DataFrame:
    """Counts of correct predictions of several runs (``probes.ensure_layer_counts``), with ``study``, ``source`` and
    the columns of the variant (``Variant.columns``); text is categorical, as a run has hundreds of thousands of rows.
    ``where`` : those rows alone whose columns have these values."""
    tables = [_categorical(_named(pick(probes.ensure_layer_counts(run), **where), run)) for run in wanted]
    return pd.DataFrame({name: _joined([table[name] for table in tables]) for name in tables[0]}, copy=False)


def _categorical(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(dict.fromkeys(table.select_dtypes("str"), "category"))


def _joined(columns: list[pd.Series]) -> pd.Series:
    if columns[0].dtype == "category":
        return pd.Series(union_categoricals(columns, sort_categories=True))
    return pd.concat(columns, ignore_index=True)


def neuron_tests(wanted: Iterable[Run]) -> pd.DataFrame:
    """What the neurons of several runs can do (``neurons.ensure_tests``), with the columns that ``layers`` adds."""
    return pd.concat([_named(neurons.ensure_tests(run), run) for run in wanted])


def neuron_layers(wanted: Iterable[Run], end: str = "top") -> pd.DataFrame:
    """Where the ``top`` or ``bottom`` neurons of several runs lie (``neurons.ensure_layers``), with the columns that
    ``layers`` adds."""
    return pd.concat([_named(pick(neurons.ensure_layers(run), end=end).drop(columns="end"), run) for run in wanted])


def neuron_halves(wanted: Iterable[Run]) -> pd.DataFrame:
    """Where the neurons lie that rankings learnt from half-samples choose (``neurons.ensure_halves``), with the columns
    that ``layers`` adds."""
    return pd.concat([_named(neurons.ensure_halves(run), run) for run in wanted])


def neuron_sets(wanted: Iterable[Run]) -> pd.DataFrame:
    """Counts of correct predictions of probes on all, top and bottom neurons of several runs (``neurons.ensure_sets``),
    with the columns that ``layers`` adds."""
    return pd.concat([_named(neurons.ensure_sets(run), run) for run in wanted])


def _named(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    source = np.where(table["property"].map(run.study.is_gold), "gold", "silver")
    return table.assign(study=run.study.name, **run.variant.columns(), source=source)


def from_csv(path: Path) -> pd.DataFrame:
    """A table as ``figures.save_table`` wrote it: what is empty in its columns of text stays so, and is no number."""
    text = [
        *("variant", "condition", "task", "amount", "dropped", "rate", "study", "encoder", "architecture", "other"),
        *(
            "property",
            "compared",
            "expected",
            "per_seed",
            "variance",
            "doubt",
            "paper",
            "same direction",
            "ranking",
            "probe",
        ),
    ]
    table = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
    return table.fillna(dict.fromkeys(text, ""))


def recorded_table(suite: str, name: str) -> pd.DataFrame:
    """A table of the recorded figures of a suite; without rows if there is none."""
    path = figures_folder(suite, recorded=True) / f"{name}.csv"
    return from_csv(path) if path.exists() else pd.DataFrame()


def along_training(scores: pd.DataFrame, drop: pd.DataFrame, name: str, usual: dict[str, float]) -> pd.DataFrame:
    """Score of the task and loss of grammar at the checkpoints of each training, and at its end.

    ``scores``, ``drop`` : as ``results.task_scores`` and ``results.drops`` give them. ``name`` : the property.
    ``usual`` : study → its own learning rate.

    Returns
    -------
    One row per study, ``rate`` (as text), seed and number of ``updates``, of trainings that have
    checkpoints: ``score``, ``majority`` (fractions), ``loss`` over the top third of the layers (points).
    """
    points = _scores_and_losses(pick(scores, amount=""), drop, name, usual)
    probed = points.groupby(TRAINING)["checkpoint"].transform("max") > 0
    return points[probed].drop(columns="checkpoint").sort_values([*TRAINING, "updates"])


def by_rate(scores: pd.DataFrame, drop: pd.DataFrame, name: str, usual: dict[str, float]) -> pd.DataFrame:
    """Score of the task and loss of grammar at several learning rates and lengths of training.

    The parameters, and the columns of the rows, are those of ``along_training``: one row per study, task, ``rate``,
    seed and number of ``updates``, of tasks that an encoder was trained on at several rates, to the end.
    """
    points = _scores_and_losses(pick(scores, checkpoint=-1), drop, name, usual)
    several = points.groupby(["study", "task"])["rate"].transform("nunique") > 1
    return points[several].drop(columns="checkpoint").sort_values([*TRAINING, "updates"])


def by_examples(scores: pd.DataFrame, drop: pd.DataFrame, name: str, usual: dict[str, float]) -> pd.DataFrame:
    """Score of the task and loss of grammar after several numbers of training examples.

    The parameters, and the columns of the rows, are those of ``along_training``: one row per study, task, seed and
    number of training ``examples``, of all trainings to the end at the study's own rate, if a task was trained on
    several numbers of them.
    """
    whole = scores[~scores["amount"].isin(list(SHARES))]
    points = _scores_and_losses(pick(whole, checkpoint=-1, rate=""), drop, name, usual)
    several = (
        points.groupby(["study", "task"])["examples"].transform("nunique").groupby(points["study"]).transform("max")
    )
    return points[several > 1].drop(columns="checkpoint").sort_values([*TRAINING, "examples"])


TRAINING = ["study", "task", "rate", "seed"]


def _scores_and_losses(scores: pd.DataFrame, drop: pd.DataFrame, name: str, usual: dict[str, float]) -> pd.DataFrame:
    """The trainings of encoders with all layers, with their loss over the top third."""
    rows = pick(drop, property=name, word_group="all").sort_values("layer")
    loss = rows.groupby(["study", "variant"])["drop"].agg(top_third).mul(100.0).rename("loss").reset_index()
    points = pick(scores, dropped="").merge(loss, on=["study", "variant"]).rename(columns={"train": "examples"})
    points["rate"] = points["rate"].where(points["rate"] != "", points["study"].map(usual).map(written))
    return points[[*TRAINING, "checkpoint", "updates", "examples", "score", "majority", "learnt", "loss"]]


TUNED = ["rate", "task", "seed"]


def by_probe(wanted: Iterable[Run], drop: pd.DataFrame, name: str) -> pd.DataFrame:
    """The loss at each layer as several probes of one encoder see it.

    ``drop`` : as ``results.drops`` gives it. ``name`` : the property.

    Returns
    -------
    One row per ``encoder`` (checkpoint), ``probe`` (raw; standardised; converged: standardised, with a tolerance),
    ``rate``, task, seed and layer: ``loss`` in points. Only trainings that were probed in all ways that their encoder
    was; none of encoders that were probed in one way only.
    """
    kinds = {
        run.study.name: (
            run.study.encoder.checkpoint.removeprefix("models/"),
            "raw" if not run.study.probe.standardise else "converged" if run.study.probe.tolerance else "standardised",
            written(run.study.finetune.learning_rate),
        )
        for run in wanted
        if not run.study.probe.penalties
    }
    rows = pick(drop, property=name, word_group="all", amount="", checkpoint=-1)
    rows = rows[rows["study"].isin(list(kinds))]
    encoder, probe, usual = (rows["study"].map(lambda study, at=at: kinds[study][at]) for at in range(3))
    rate = rows["rate"].where(rows["rate"] != "", usual)
    rows = rows.assign(encoder=encoder, probe=probe, rate=rate, loss=100 * rows["drop"])
    ways, every = (rows.groupby(of)["probe"].transform("nunique") for of in (["encoder", *TUNED], "encoder"))
    return rows.loc[(every > 1) & (ways == every), ["encoder", "probe", "rate", "task", "seed", "layer", "loss"]]


def figures_folder(suite: str, preset: str = "full", recorded: bool = False) -> Path:
    """Where figures are written: ``runs/figures/<suite>``, or ``runs/<preset>/figures/<suite>``; those of recorded runs
    in ``figures/<suite>``."""
    if recorded:
        return params.ROOT / "figures" / suite
    return runs.home() / "figures" / suite if preset == "full" else runs.home() / preset / "figures" / suite


def computed_by(wanted: Iterable[Run]) -> pd.DataFrame:
    """What computed the results of these runs: one row per device, precision of the encoder, processor, ISA and version
    of PyTorch, with the number of ``steps``, the most first."""
    rows = []
    for run, step in tabled_steps(wanted):
        by = runs.manifest(run, step)["provenance"]
        device = by.get("device", "cpu")  # the first results that were recorded do not name it
        rows.append((device, run.study.precision, by["processor"], by["isa"], by["torch"]))
    columns = ["device", "precision", "processor", "isa", "torch"]
    return pd.DataFrame(rows, columns=columns).value_counts().rename("steps").reset_index()


def devices(wanted: Iterable[Run]) -> str:
    """In which precision and on which devices these runs were computed, in words."""
    by = computed_by(wanted)[["precision", "device"]].drop_duplicates()
    return " and ".join(f"{precision} on {device}" for precision, device in by.itertuples(index=False))


def times(wanted: Iterable[Run]) -> pd.DataFrame:
    """Seconds of each step of each run: of its executed notebook, or, of a recorded run, of the computation alone."""
    rows = []
    for run in wanted:
        for step in filter(lambda step: step.applies(run), STEPS.values()):
            notebook = disk.read_json(run.notebook(step.name)) or {"metadata": {}}
            seconds = notebook["metadata"].get("papermill", {}).get("duration")
            if run.recorded and step.tables:
                seconds = runs.manifest(run, step.name)["seconds"]
            rows.append((run.study.name, run.variant.name, step.notebook, seconds))
    return pd.DataFrame(rows, columns=["study", "variant", "step", "seconds"]).dropna()

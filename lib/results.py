"""Result: tidy tables over many runs, with intervals; what the figures are drawn from and what is concluded."""

import json
import os
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import corpora, disk, encoders, neurons, probes, runs, sources, surroundings, tasks
from lib.corpora import CorpusError
from lib.encoders import EncoderError
from lib.params import ROOT, ParameterError, Study, nearest
from lib.runs import Run
from lib.sources import SourceError
from lib.tasks import TaskError

RESAMPLES = 1000
"""Bootstrap resamples of an interval; 95 % of them lie inside."""


ERRORS = 3
"""Standard errors above the best constant answer from which a task counts as learnt; of many runs that learnt nothing,
two standard errors would let some pass by chance."""


def load(variants_of: dict[str, list[str]], size: str = "full", overrides: dict | None = None) -> list[Run]:
    """The runs of several studies. ``variants_of`` : study → names of its variants.

    At full size all results must be there already (``complete``); at a reduction what is missing is computed.
    """
    found = [runs.load(study, name, size, overrides) for study, names in variants_of.items() for name in names]
    if size == "full":
        complete(found)
    return found


def prepare(variants_of: dict[str, list[str]], overrides: dict, scale: str, given: bool, fetch: bool) -> None:
    """For Make, before any work: check all parameters and task names, fetch what is needed, write the steps' keys.

    Parameters
    ----------
    given : whether the tasks were given to Make; if not, they must be those of each study.
    fetch : whether to fetch sources, encoders of the hub and tasks' data that are not here, and to read the corpora.

    Raises
    ------
    ParameterError : no study, an unknown task (with the nearest name), tasks that Make could not read from a study.
    SourceError : one list of all that could not be fetched or read, each with what to do.
    """
    if not variants_of:
        raise ParameterError(f"no file in params/ has 'scale: {scale}'")
    wanted = [runs.load(study, name, overrides=overrides) for study, names in variants_of.items() for name in names]
    needed, downstream, checkpoints = set(), {}, {}
    for run in wanted:
        study, task = run.study, run.variant.task
        if task:
            tasks.task(study, task)
            if task in tasks.REGISTRY:
                needed.add("movie-snippets")
            elif not runs.made(run, "finetune"):
                downstream.setdefault((task, repr(study.task_data)), run)
        named = {v.rpartition("-s")[0] for v in variants_of[study.name]} - {""}
        if not given and named != set(study.tasks):
            raise ParameterError(f"params/{study.name}.yaml: write the tasks on one line, as tasks: [sentiment, rte]")
        needed |= {study.corpus.source, study.encoder.checkpoint} & set(sources.SOURCES)
        checkpoints[study.encoder.checkpoint, study.encoder.revision] = study
        needed |= {"wordnet"} if study.corpus.format == "brown" and "supersense" in study.properties else set()
        if study.corpus.source and study.corpus.source not in sources.SOURCES:
            raise ParameterError(
                f"corpus.source: there is no source '{study.corpus.source}'"
                f"{nearest(study.corpus.source, list(sources.SOURCES))}"
            )
    if fetch:
        hub = [s for s in checkpoints.values() if s.encoder.checkpoint not in needed]
        problems = _fetch(needed, hub, downstream.values())
        if not problems:
            unread = {run.study.name: run.study for run in wanted if not runs.made(run, "layers")}
            tuned = {run.study.name: run.study for run in wanted if run.variant.task and not runs.made(run, "finetune")}
            problems = _problems(unread.values(), _read) + _problems(tuned.values(), encoders.head)
        if problems:
            told = [*dict.fromkeys(problems), "Nothing was started. Fix it, then type the same command again."]
            raise SourceError("\n\n".join(told))
    runs.write_keys(wanted, f"figures/{scale}")


def _fetch(needed: set[str], hub: Iterable[Study], downstream: Iterable[Run]) -> list[str]:
    """Sources, checkpoints of the hub and the data of tasks; all are tried. Returns what went wrong."""
    return [
        *_problems(sorted(needed), lambda name: print("OK", name, sources.fetch(name))),
        *_problems(hub, encoders.fetch),
        *_problems(downstream, lambda run: tasks.load(run.study, run.variant)),
    ]


def _read(study: Study) -> None:
    """Try what a study is probed on: the encoder and the corpus."""
    encoders.check(study)
    corpora.check(study)


def _problems(wanted: Iterable[Any], get: Callable[[Any], Any]) -> list[str]:
    problems = []
    for one in wanted:
        try:
            get(one)
        except (SourceError, EncoderError, TaskError, CorpusError) as error:
            problems.append(str(error))
    return problems


def complete(wanted: Iterable[Run]) -> None:
    """Raise StaleResult with one list of all that is missing or of other parameters, and the command that makes it."""
    problems = []
    for run in wanted:
        if run.variant.task and not runs.made(run, "finetune"):
            problems.append(f"  {run.model} is missing, cut short, or of other parameters or code")
        for step, path in (("layers", run.layers), ("neurons", run.neurons)):
            try:
                disk.read_table(path, run.key(step))
            except disk.StaleResult as error:
                problems.append(f"  {str(error).split(': run')[0]}")
    if problems:
        raise disk.StaleResult("\n".join(["these results are not there:", *problems, "run 'make reproduce'"]))


def layers(wanted: Iterable[Run]) -> pd.DataFrame:
    """Counts of correct predictions (``probes.layers``) of several runs, with the columns study, variant and source."""
    return pd.concat([_named(probes.layers(run), run) for run in wanted])


def neuron_tests(wanted: Iterable[Run]) -> pd.DataFrame:
    """What the neurons of several runs can do (``neurons.table``), with the columns study, variant and source."""
    return pd.concat([_named(neurons.table(run), run) for run in wanted])


def _named(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    source = np.where(table["property"].isin(run.study.corpus.gold), "gold", "silver")
    return table.assign(study=run.study.name, variant=run.variant.name, source=source)


def scores(wanted: Iterable[Run]) -> pd.DataFrame:
    """How well each fine-tuned run does its task: one row per run. What is not trained, or otherwise, is trained now.

    ``majority`` : the score of the best constant answer. ``learnt`` : whether the score is more than ``ERRORS``
    standard errors above it (of a proportion for an accuracy; else of a correlation, 1/√n).
    """
    rows = []
    for run in wanted:
        if run.variant.task:
            if not runs.made(run, "finetune"):
                from lib import finetune  # here: Trainer takes two seconds to import, and all is trained as a rule

                finetune.load(run)
            meta = disk.read_meta(run.model)
            score, floor, tested = meta["scores"][meta["metric"]], meta["majority"]["test"], meta["examples"]["test"]
            error = np.sqrt((floor * (1 - floor) if meta["metric"] == "accuracy" else 1) / tested)
            rows.append(
                {"study": run.study.name, "variant": run.variant.name, "metric": meta["metric"], "score": score,
                 "majority": floor, "learnt": bool(score > floor + ERRORS * error), "updates": meta["updates"],
                 "train": meta["examples"]["train"], "test": tested}
            )  # fmt: skip
    columns = ["study", "variant", "metric", "score", "majority", "learnt", "updates", "train", "test"]
    return pd.DataFrame(rows, columns=columns)


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


def top_third(per_layer: np.ndarray) -> np.ndarray:
    """Mean over the top third of the layers: [layers, n] → [n]; NaN with fewer than three layers."""
    count = len(per_layer) // 3
    return per_layer[-count:].mean(0) if count else np.full(per_layer.shape[1], np.nan)


def gravity(per_layer: np.ndarray) -> np.ndarray:
    """Centre of gravity over the layers of what is above 0: [layers, n] → [n]; NaN where nothing is."""
    mass = np.maximum(per_layer, 0)
    return np.arange(len(mass)) @ mass / np.where(mass.any(0), mass.sum(0), np.nan)


def centre(per_layer: pd.DataFrame, value: str) -> pd.Series:
    """``gravity`` of a column: per study, variant and property."""
    wide = per_layer.pivot_table(index="layer", columns=NAMED, values=value, fill_value=0, observed=True)
    return pd.Series(gravity(wide.to_numpy(float)), wide.columns, name="centre")


def entropy(per_layer: pd.DataFrame, value: str) -> pd.Series:
    """Entropy (nats) of a quantity's distribution over layers: per study, variant and property; ln(layers) if even."""
    share = per_layer.assign(p=per_layer[value] / per_layer.groupby(NAMED)[value].transform("sum"))
    return share.assign(h=-share["p"] * np.log(share["p"].where(share["p"] > 0, 1))).groupby(NAMED)["h"].sum()


NAMED = ["study", "variant", "property"]


def summary(wanted: list[Run], counts: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """The headline table: one row per study, variant and property.

    ``task score`` and ``majority`` of the fine-tuning task; accuracy of the ``best layer``, of the ``top layer`` and on
    its ambiguous words; ``drop`` averaged over the top third of the layers (none for a run that did not learn its
    task); ``mean layer`` and ``entropy`` of the top neurons, which mean something only where ``top - random``, the test
    accuracy with all but the top tenth of the neurons zeroed minus that with a random tenth, is clearly above zero;
    ``minimal set``, the smallest share tried that keeps all but the smallest delta of the dev accuracy.
    """
    accuracy = accuracies(counts).query("labels == 'real'")
    drop = drops(counts)
    score = scores(wanted).set_index(["study", "variant"])
    top_layers = tests[tests["kind"] == "layer"]
    middle, spread = centre(top_layers, "neurons"), entropy(top_layers, "neurons")
    rows = []
    for run in wanted:
        for name in run.study.properties:
            where = {"study": run.study.name, "variant": run.variant.name, "property": name}
            mine = pick(accuracy, **where)
            every = mine[mine["words"] == "all"].set_index("layer")["accuracy"]
            learnt = score["learnt"].get((run.study.name, run.variant.name), False)
            deep = pick(drop, **where, words="all").sort_values("layer")[["drop"]].to_numpy()
            tried = pick(tests, **where, kind="retrain", split="dev").set_index("neurons")["accuracy"]
            fewest = neurons.minimal_set(tried.to_dict(), min(run.study.ranking.deltas))
            last = int(every.index.max())
            unclear = mine[(mine["words"] == "ambiguous") & (mine["layer"] == last)]["accuracy"]
            rows.append(
                {
                    **where,
                    "labels": "gold" if name in run.study.corpus.gold else "silver",
                    "task score": score["score"].get((run.study.name, run.variant.name)),
                    "majority": score["majority"].get((run.study.name, run.variant.name)),
                    "best layer": int(every.idxmax()),
                    "best accuracy": every.max(),
                    "top layer accuracy": every[last],
                    "top layer ambiguous": unclear.iloc[0] if len(unclear) else np.nan,
                    "drop, top third": top_third(deep)[0] if learnt else np.nan,
                    "mean layer of top neurons": middle[tuple(where.values())],
                    "entropy of top neurons": spread[tuple(where.values())],
                    "top - random": margin(pick(tests, **where, split="test")),
                    "minimal set": fewest / tried.index.max(),
                }
            )
    return pd.DataFrame(rows)


def margin(tests: pd.DataFrame) -> float:
    """Accuracy with all but the top tenth of the neurons zeroed minus that with all but a random tenth.

    ``tests`` : ``neuron_tests`` of one run, property and split.
    """
    kept = tests[tests["kind"].isin(["keep-top", "keep-random"])].pivot_table(
        index="neurons", columns="kind", values="accuracy"
    )
    near = (kept.index - kept.index.max() / 10).to_series().abs().argmin()
    return float(kept["keep-top"].iloc[near] - kept["keep-random"].iloc[near])


def times(wanted: Iterable[Run]) -> pd.DataFrame:
    """Seconds of each executed notebook of each run, from what papermill wrote into it."""
    rows = []
    for run in wanted:
        for notebook in runs.NOTEBOOKS.values():
            file = run.folder / f"{notebook}.ipynb"
            if file.exists():
                took = json.loads(file.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")
                rows.append({"study": run.study.name, "variant": run.variant.name, "step": notebook, "seconds": took})
    return pd.DataFrame(rows, columns=["study", "variant", "step", "seconds"])


def versions() -> pd.DataFrame:
    """What computes here: the machine, Python, the packages that the numbers come from, and the variables of the shell
    that they may depend on; one row each."""
    packages = ["torch", "transformers", "tokenizers", "datasets", "numpy", "pandas", "scikit-learn", "nltk", "seaborn"]
    found = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "system": platform.system()}
    found |= {"instructions": torch.backends.cpu.get_cpu_capability(), "python": platform.python_version()}
    found |= {name: version(name) for name in packages} | surroundings.remaining()
    return pd.Series(found, name="version").to_frame()


def figures_folder(scale: str, size: str = "full") -> Path:
    """Where the figures of a run are written: ``runs/figures/<scale>``, or ``runs/<size>/figures/<scale>``."""
    return runs.home() / "figures" / scale if size == "full" else runs.home() / size / "figures" / scale


def recorded(scale: str) -> Path:
    """Where the figures of the recorded run are: ``figures/<scale>``, which only ``make record`` writes."""
    return ROOT / "figures" / scale


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

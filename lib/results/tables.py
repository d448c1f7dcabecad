"""Result: tidy tables over many runs, with intervals; what the figures are drawn from and what is concluded."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import corpora, disk, encoders, neurons, probes, sources, tasks
from lib.corpora.sentences import CorpusError
from lib.encoders.checkpoints import EncoderError
from lib.sources import SourceError
from lib.study import params, runs
from lib.study.errors import ParameterError, nearest
from lib.study.params import Study
from lib.study.runs import Run
from lib.tasks import TaskError


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
    """Counts of correct predictions of several runs (``probes.ensure_layer_counts``), with ``study``, ``source`` and
    the columns of the variant (``Variant.columns``)."""
    return pd.concat([_named(probes.ensure_layer_counts(run), run) for run in wanted])


def neuron_tests(wanted: Iterable[Run]) -> pd.DataFrame:
    """What the neurons of several runs can do (``neurons.table``), with ``study``, ``source`` and the columns of the
    variant."""
    return pd.concat([_named(neurons.table(run), run) for run in wanted])


def _named(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    source = np.where(table["property"].isin(run.study.corpus.gold), "gold", "silver")
    return table.assign(study=run.study.name, **run.variant.columns(), source=source)


def figures_folder(scale: str, size: str = "full") -> Path:
    """Where the figures of a run are written: ``runs/figures/<scale>``, or ``runs/<size>/figures/<scale>``."""
    return runs.home() / "figures" / scale if size == "full" else runs.home() / size / "figures" / scale


def recorded(scale: str) -> Path:
    """Where the figures of the recorded run are: ``figures/<scale>``, which only ``make record`` writes."""
    return params.ROOT / "figures" / scale

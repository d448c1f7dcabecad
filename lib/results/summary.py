"""Summary: what is concluded from the tables of several runs, in a row per run and property."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from lib import disk, neurons
from lib.results.intervals import NAMED, VARIANT, accuracies, drops, pick
from lib.study import runs
from lib.study.runs import Run

LEARNT_STANDARD_ERRORS = 3
"""A task counts as learnt if the score is more than this many standard errors above the majority baseline. With two,
some untrained runs would pass by chance."""


def scores(wanted: Iterable[Run]) -> pd.DataFrame:
    """How well each fine-tuned run does its task: one row per run.

    ``majority`` : the score of the best constant answer. ``learnt`` : whether the score is more than
    ``LEARNT_STANDARD_ERRORS`` above it (of a proportion for an accuracy; else of a correlation, 1/√n).

    Raises
    ------
    StaleResult : a run is not fine-tuned, or with other parameters or code.
    """
    rows = []
    for run in (run for run in wanted if run.variant.task):
        if not runs.is_current(run, "finetune"):
            how = "run 'make reproduce'" if run.study.size == "full" else "fine-tune it in notebook 01"
            raise disk.StaleResult(f"{run.model} is missing, cut short, or of other parameters or code: {how}")
        meta = disk.read_meta(run.model)
        score, floor, tested = meta["scores"][meta["metric"]], meta["majority"]["test"], meta["examples"]["test"]
        error = np.sqrt((floor * (1 - floor) if meta["metric"] == "accuracy" else 1) / tested)
        rows.append(
            {"study": run.study.name, **run.variant.columns(), "metric": meta["metric"], "score": score,
             "majority": floor, "learnt": bool(score > floor + LEARNT_STANDARD_ERRORS * error),
             "updates": meta["updates"], "train": meta["examples"]["train"], "test": tested}
        )  # fmt: skip
    numbers = ["metric", "score", "majority", "learnt", "updates", "train", "test"]
    return pd.DataFrame(rows, columns=["study", *VARIANT, *numbers])


def train_missing(wanted: Iterable[Run]) -> None:
    """Fine-tune the runs that have no model of their parameters: for lessons, which need nothing done before."""
    for run in wanted:
        if run.variant.task and not runs.is_current(run, "finetune"):
            from lib import finetune  # here: Trainer takes two seconds to import

            finetune.ensure(run)


def top_third(per_layer: np.ndarray) -> np.ndarray:
    """Mean over the top third of the layers: [layers, n] → [n]; NaN with fewer than three layers."""
    count = len(per_layer) // 3
    return per_layer[-count:].mean(0) if count else np.full(per_layer.shape[1], np.nan)


def centre_of_gravity(per_layer: np.ndarray) -> np.ndarray:
    """Centre of gravity over the layers of what is above 0: [layers, n] → [n]; NaN where nothing is."""
    mass = np.maximum(per_layer, 0)
    return np.arange(len(mass)) @ mass / np.where(mass.any(0), mass.sum(0), np.nan)


def centres_of_gravity(per_layer: pd.DataFrame, value: str, by: Sequence[str] = NAMED) -> pd.Series:
    """``centre_of_gravity`` of a column: per study, variant and property, or ``by`` other columns."""
    wide = per_layer.pivot_table(index="layer", columns=by, values=value, fill_value=0, observed=True)
    return pd.Series(centre_of_gravity(wide.to_numpy(float)), wide.columns, name="centre")


def entropy(per_layer: pd.DataFrame, value: str, by: Sequence[str] = NAMED) -> pd.Series:
    """Entropy (nats) of a column's distribution over layers, ln(layers) if even: per study, variant and property, or
    ``by`` other columns."""
    share = per_layer.assign(p=per_layer[value] / per_layer.groupby(by)[value].transform("sum"))
    return share.assign(h=-share["p"] * np.log(share["p"].where(share["p"] > 0, 1))).groupby(by)["h"].sum()


def margin(tests: pd.DataFrame) -> float:
    """Accuracy with all but the top tenth of the neurons zeroed minus that with all but a random tenth.

    ``tests`` : ``neuron_tests`` of one run, property and split.
    """
    kept = tests[tests["kind"].isin(["keep-top", "keep-random"])].pivot_table(
        index="neurons", columns="kind", values="accuracy"
    )
    near = (kept.index - kept.index.max() / 10).to_series().abs().argmin()
    return float(kept["keep-top"].iloc[near] - kept["keep-random"].iloc[near])


def summary(wanted: list[Run], counts: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """The headline table: one row per study, variant and property.

    ``task score`` and ``majority`` of the fine-tuning task; accuracy of the ``best layer``, of the ``top layer`` and on
    its ambiguous words; ``drop`` averaged over the top third of the layers (none for a run that did not learn its
    task); ``mean layer`` and ``entropy`` of the top neurons, which mean something only where ``top - random``, the test
    accuracy with all but the top tenth of the neurons zeroed minus that with a random tenth, is clearly above zero;
    ``minimal set``, the smallest share tried that keeps all but the smallest delta of the dev accuracy.
    """
    accuracy, drop = pick(accuracies(counts), target="real"), drops(counts)
    score = scores(wanted).set_index(["study", "variant"])
    top_neurons = pick(tests, kind="layer")
    mean_layer, spread = centres_of_gravity(top_neurons, "neurons"), entropy(top_neurons, "neurons")
    rows = []
    for run in wanted:
        study, variant = run.study.name, run.variant.name
        for name in run.study.properties:
            where = {"study": study, "variant": variant, "property": name}
            every = pick(accuracy, **where, word_group="all").set_index("layer")["accuracy"]
            last = int(every.index.max())
            unclear = pick(accuracy, **where, word_group="ambiguous", layer=last)["accuracy"]
            learnt = score["learnt"].get((study, variant), False)
            lost = pick(drop, **where, word_group="all").sort_values("layer")[["drop"]].to_numpy()
            retrained = pick(tests, **where, kind="retrain", split="dev").set_index("neurons")["accuracy"]
            fewest = neurons.minimal_set(retrained.to_dict(), min(run.study.ranking.deltas))
            rows.append(
                {
                    "study": study,
                    **run.variant.columns(),
                    "property": name,
                    "source": "gold" if run.study.is_gold(name) else "silver",
                    "task score": score["score"].get((study, variant)),
                    "majority": score["majority"].get((study, variant)),
                    "best layer": int(every.idxmax()),
                    "best accuracy": every.max(),
                    "top layer accuracy": every[last],
                    "top layer ambiguous": unclear.iloc[0] if len(unclear) else np.nan,
                    "drop, top third": top_third(lost)[0] if learnt else np.nan,
                    "mean layer of top neurons": mean_layer[study, variant, name],
                    "entropy of top neurons": spread[study, variant, name],
                    "top - random": margin(pick(tests, **where, split="test")),
                    "minimal set": fewest / retrained.index.max(),
                }
            )
    return pd.DataFrame(rows)

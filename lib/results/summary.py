"""Summary: what is concluded from the tables of several runs, in a row per run and property."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib import disk, neurons
from lib.results.intervals import NAMED, accuracies, drops, pick
from lib.study import runs
from lib.study.runs import Run

ERRORS = 3
"""Standard errors above the best constant answer from which a task counts as learnt; of many runs that learnt nothing,
two standard errors would let some pass by chance."""


def scores(wanted: Iterable[Run]) -> pd.DataFrame:
    """How well each fine-tuned run does its task: one row per run. What is not trained, or otherwise, is trained now.

    ``majority`` : the score of the best constant answer. ``learnt`` : whether the score is more than ``ERRORS``
    standard errors above it (of a proportion for an accuracy; else of a correlation, 1/√n).
    """
    rows = []
    for run in wanted:
        if run.variant.task:
            if not runs.is_current(run, "finetune"):
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

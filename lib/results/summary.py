"""Summary: accuracies and drops with 95 % bootstrap intervals over texts, and the headline table of several runs."""

import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import entr

from lib import neurons
from lib.study import runs
from lib.study.runs import Run
from lib.study.variants import Variant

RESAMPLES = 1000
"""Bootstrap resamples of an interval; 95 % of them lie inside."""

VARIANT = list(Variant().columns())

CELL = ["study", *VARIANT, "property", "source", "target", "word_group", "layer"]

SET = ["study", *VARIANT, "property", "source", "ranking", "target", "neurons"]

NAMED = ["study", "variant", "property"]


def pick(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    every = np.ones(len(table), bool)
    return table[np.logical_and.reduce([every, *(table[column] == value for column, value in where.items())])]


# Accuracies ------------------------------------------------------------------------------------------------------


def accuracies(counts: pd.DataFrame, split: str = "test", seed: int = 0, cell: Sequence[str] = CELL) -> pd.DataFrame:
    """Accuracy of every probe with the 95 % bootstrap interval over texts.

    Parameters
    ----------
    counts : as ``results.layers`` gives them, or ``results.neuron_sets``, then with ``cell`` = ``SET``.

    Returns
    -------
    One row per study, variant, property, target (real, control, majority, lookup), word group and layer, or as ``cell``
    says: ``accuracy``, ``low``, ``high``, ``n`` (words).
    """
    cells, words, accuracy = resampled(counts, split, seed, cell)
    return cells.assign(accuracy=accuracy[:, 0], **_interval(accuracy), n=words)


def drops(counts: pd.DataFrame, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """What fine-tuning cost: accuracy of the pre-trained encoder minus that of each variant, layer by layer.

    The interval is paired: both encoders are judged on the same resampled texts. Encoders that lack layers are left
    out: their layers are not those of the whole one.

    Returns
    -------
    One row per fine-tuned variant, property, word group and layer: ``drop``, ``low``, ``high`` (fractions, not points).
    """
    cells, _, accuracy = resampled(pick(counts, target="real"), split, seed)
    cells = cells.drop(columns="target").assign(row=range(len(cells)))
    before = pick(cells, condition="pretrained").drop(columns=VARIANT)
    pairs = cells[(cells["task"] != "") & (cells["dropped"] == "")].merge(
        before, on=list(before.columns.drop("row")), suffixes=("", "_before")
    )
    drop = accuracy[pairs.pop("row_before")] - accuracy[pairs.pop("row")]
    return pairs.assign(drop=drop[:, 0], **_interval(drop))


def selectivity(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Accuracy minus that of the control task, over all words: one row per study, variant, property and layer."""
    probes = accuracy[(accuracy["word_group"] == "all") & (accuracy["layer"] >= 0)]
    wide = probes.pivot_table(index=[*NAMED, "layer"], columns="target", values="accuracy")
    return (wide["real"] - wide["control"]).rename("selectivity").reset_index()


def selectivity_of_sets(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, and selectivity (accuracy minus that of the control task), of probes on sets of neurons, in per cent.

    ``accuracy`` : ``accuracies`` of ``results.neuron_sets``. Returns one row per study, variant, property and
    ``neurons`` (all, top).
    """
    wide = accuracy.pivot_table(index=[*NAMED, "neurons"], columns="target", values="accuracy") * 100
    table = pd.DataFrame({"accuracy": wide["real"], "selectivity": wide["real"] - wide.get("control", np.nan)})
    return table.dropna().reset_index()


def resampled(
    counts: pd.DataFrame, split: str, seed: int, cell: Sequence[str] = CELL
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Accuracy in every cell, on all texts and on texts drawn with replacement, the same draws for all cells of one
    corpus.

    ``cell`` : the columns that tell the cells apart.

    Returns
    -------
    The cells (their columns), words [cells] and accuracy [cells, 1 + RESAMPLES], of all texts first.
    """
    of_runs = (pick(rows, split=split) for _, rows in counts.groupby(["study", "variant"]))
    found = [_resampled(rows, seed, cell) for rows in of_runs if len(rows)]
    if not found:
        return counts[[*cell]][:0], np.empty(0), np.empty((0, 1 + RESAMPLES))
    cells, words, accuracy = zip(*found, strict=True)
    return pd.concat(cells, ignore_index=True), np.concatenate(words), np.concatenate(accuracy)


def _resampled(counts: pd.DataFrame, seed: int, cell: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """As ``resampled``, of one run."""
    wide = counts.pivot_table(["correct", "total"], cell, "text", fill_value=0, observed=True)
    correct, total = (wide[column].to_numpy(float) for column in ("correct", "total"))
    cells = wide.index.to_frame(index=False)
    cells = cells.astype({name: str for name, kind in cells.dtypes.items() if kind == "category"})
    accuracy = np.column_stack([correct.sum(1) / total.sum(1), np.empty((len(cells), RESAMPLES))])
    for rows in cells.groupby("property").indices.values():
        inside = np.ix_(rows, total[rows].any(0))  # another property may be of another corpus, with its own texts
        weight = _draws(inside[1].size, RESAMPLES, seed)
        drawn = total[inside] @ weight
        accuracy[rows, 1:] = (correct[inside] @ weight) / np.where(drawn > 0, drawn, np.nan)
    return cells, total.sum(1), accuracy


@lru_cache(maxsize=8)
def _draws(texts: int, resamples: int, seed: int) -> np.ndarray:
    """[texts, resamples] how often each text is drawn."""
    return np.random.default_rng(seed).multinomial(texts, np.full(texts, 1 / texts), resamples).T.astype(float)


def _interval(values: np.ndarray) -> dict[str, np.ndarray]:
    low, high = np.nanquantile(values[:, 1:], [0.025, 0.975], axis=1).reshape(2, len(values))  # there may be no cells
    return {"low": low, "high": high}


# Conclusions -----------------------------------------------------------------------------------------------------


def task_scores(wanted: Iterable[Run]) -> pd.DataFrame:
    """How well each fine-tuned run does its task: one row per run.

    ``majority`` : the score of the best constant answer. ``learnt`` : whether the score is more than three standard
    errors above it (of a proportion for an accuracy; else of a correlation, 1/√n). With two, some untrained runs would
    pass by chance.

    Raises
    ------
    StaleResult : a run is not fine-tuned, or with other parameters or code.
    """
    rows = []
    for run in (run for run in wanted if run.variant.task):
        meta = runs.manifest(run, "finetune")
        score, majority, examples = meta["scores"][meta["metric"]], meta["majority"]["test"], meta["examples"]
        variance = majority * (1 - majority) if meta["metric"] == "accuracy" else 1
        learnt = bool(score > majority + 3 * np.sqrt(variance / examples["test"]))
        numbers = [meta["metric"], score, majority, learnt, meta["updates"], examples["train"], examples["test"]]
        rows.append([run.study.name, *run.variant.columns().values(), *numbers])
    columns = ["study", *VARIANT, "metric", "score", "majority", "learnt", "updates", "train", "test"]
    return pd.DataFrame(rows, columns=columns)


def resampled_scores(wanted: Iterable[Run]) -> dict[tuple[str, str, int], np.ndarray]:
    """Accuracy of each fine-tuned run on its task, on all test examples and on examples drawn with replacement, the
    same draws for all runs of a task: (study, condition, seed) → [1 + RESAMPLES]. Without runs of other metrics."""
    found, drawn = {}, {}
    for run in (run for run in wanted if run.variant.task and runs.manifest(run, "finetune")["metric"] == "accuracy"):
        table = pd.read_csv(run.result("finetune") / "predictions.csv")
        right, count = (table["gold"] == table["predicted"]).to_numpy(np.float32), len(table)
        if (run.variant.task, count) not in drawn:
            rng = np.random.default_rng(zlib.crc32(f"{run.variant.task} {count}".encode()))
            weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float32)
            drawn[run.variant.task, count] = weights
        resamples = drawn[run.variant.task, count] @ right
        found[run.study.name, run.variant.condition, run.variant.seed] = np.append(right.sum(), resamples) / count
    return found


def that_learnt(wanted: Iterable[Run]) -> list[Run]:
    """The runs without the trainings that failed: whole encoders, trained to the end at their study's rate, that did
    not learn their task, unless it is ``shuffled``, of which there is nothing to learn. Prints which these are."""
    wanted = list(wanted)
    scores = task_scores(wanted)
    whole = pick(scores, dropped="", rate="", checkpoint=-1)
    failed = whole[~whole["learnt"].astype(bool) & (whole["task"] != "shuffled")]
    names = {*zip(failed["study"], failed["variant"], strict=True)}
    for study, variant in sorted(names):
        print(f"left out of figures and verdicts, because it did not learn its task: {study}, {variant}")
    return [run for run in wanted if (run.study.name, run.variant.name) not in names]


def train_missing(wanted: Iterable[Run]) -> None:
    """Fine-tune the runs that have no model of their parameters: for lessons, which need nothing done before."""
    for run in wanted:
        if run.variant.task and not runs.is_current(run, "finetune"):
            from lib import finetune  # here: Trainer takes two seconds to import

            finetune.ensure(run)


def top_third(per_layer: np.ndarray) -> np.ndarray:
    """Mean over the top third of the layers: [layers, ...] → [...]; NaN with fewer than three layers."""
    count = len(per_layer) // 3
    return per_layer[-count:].mean(axis=0) if count else np.full(per_layer.shape[1:], np.nan)


def centre_of_gravity(per_layer: np.ndarray) -> np.ndarray:
    """Centre of gravity over the layers of what is above 0: [layers, n] → [n]; NaN where nothing is."""
    mass = np.maximum(per_layer, 0)
    return np.arange(len(mass)) @ mass / np.where(mass.any(0), mass.sum(0), np.nan)


def centres_of_gravity(per_layer: pd.DataFrame, value: str, by: Sequence[str] = NAMED) -> pd.Series:
    """``centre_of_gravity`` of a column: per study, variant and property, or ``by`` other columns.

    Raises ValueError if a layer has several values: those of two rankings must not be mixed.
    """
    wide = per_layer.pivot(index="layer", columns=by, values=value).fillna(0)
    return pd.Series(centre_of_gravity(wide.to_numpy(float)), wide.columns, name="centre")


def entropy(per_layer: pd.DataFrame, value: str, by: Sequence[str] = NAMED) -> pd.Series:
    """Entropy (nats) of a column's distribution over layers, ln(layers) if even; per what, and raises, as
    ``centres_of_gravity``."""
    wide = per_layer.pivot(index="layer", columns=by, values=value).fillna(0)
    return (wide / wide.sum()).apply(entr).sum()


def margin(tests: pd.DataFrame) -> float:
    """Accuracy with all but the top tenth of the neurons zeroed minus that with all but a random tenth.

    ``tests`` : ``neuron_tests`` of one run, property, ranking and split. NaN if no number of neurons between half and
    twice a tenth was tested.
    """
    kept = tests[tests["test"].isin(["keep-top", "keep-random"])].pivot(index="neurons", columns="test")["accuracy"]
    tenth = kept.index.max() / 10
    near = np.abs(kept.index - tenth).argmin()
    if not tenth / 2 <= kept.index[near] <= 2 * tenth:
        return np.nan
    return float(kept["keep-top"].iloc[near] - kept["keep-random"].iloc[near])


def summary(
    wanted: list[Run], counts: pd.DataFrame, tests: pd.DataFrame, neuron_layers: pd.DataFrame, ranking: str = "lca"
) -> pd.DataFrame:
    """The headline table: one row per study, variant and property; the neurons are those of one ``ranking``.

    ``task score`` and ``majority`` of the fine-tuning task; accuracy of the ``best layer``, of the ``top layer`` and on
    its ambiguous words; ``drop`` averaged over the top third of the layers (none for a run that did not learn its
    task); ``mean layer`` and ``entropy`` of the top neurons, which mean something only where ``top - random``, the test
    accuracy with all but the top tenth of the neurons zeroed minus that with a random tenth, is clearly above zero;
    ``minimal set``, the smallest share tried that keeps all but the smallest delta of the dev accuracy.
    """
    rows = [
        {
            "study": run.study.name,
            **run.variant.columns(),
            "property": name,
            "source": "gold" if run.study.is_gold(name) else "silver",
            "ranking": ranking,
        }
        for run in wanted
        for name in run.study.properties
    ]
    scores = task_scores(wanted)
    accuracy = pick(accuracies(counts), target="real")
    per_layer = pick(accuracy, word_group="all").set_index("layer").groupby(NAMED)["accuracy"]
    top_layer = accuracy[accuracy["layer"] == accuracy.groupby("study")["layer"].transform("max")]
    lost = pick(drops(counts), word_group="all").merge(pick(scores, learnt=True)[["study", "variant"]])
    tests, neuron_layers = pick(tests, ranking=ranking), pick(neuron_layers, ranking=ranking)
    delta = {run.study.name: min(run.study.ranking.deltas) for run in wanted}
    retrained = pick(tests, test="retrain", split="dev").set_index("neurons").groupby(NAMED)["accuracy"]
    fewest = {
        key: neurons.minimal_set(reached.to_dict(), delta[key[0]]) / reached.index.max() for key, reached in retrained
    }
    numbers = pd.DataFrame(
        {
            "best layer": per_layer.idxmax(),
            "best accuracy": per_layer.max(),
            "top layer accuracy": pick(top_layer, word_group="all").set_index(NAMED)["accuracy"],
            "top layer ambiguous": pick(top_layer, word_group="ambiguous").set_index(NAMED)["accuracy"],
            "drop, top third": lost.sort_values("layer").groupby(NAMED)["drop"].agg(top_third).astype(float),
            "mean layer of top neurons": centres_of_gravity(neuron_layers, "neurons"),
            "entropy of top neurons": entropy(neuron_layers, "neurons"),
            "top - random": pick(tests, split="test").groupby(NAMED).apply(margin),
            "minimal set": pd.Series(fewest),
        }
    )
    of_task = scores[["study", "variant", "score", "majority"]].rename(columns={"score": "task score"})
    return pd.DataFrame(rows).merge(of_task, "left").join(numbers, on=NAMED)

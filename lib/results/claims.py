"""Claims: the paper's claims (C1-C3) and the control (C4) as differences between runs, each judged by one rule.

They are about gold properties and all words of the test split. Accuracies are in points (per cent). A fine-tuned run
that did not learn its task (``results.task_scores``) tells nothing: it is left out, and the sentence of a row names it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np
import pandas as pd

from lib import encoders, results
from lib.results.summary import centre_of_gravity, pick, top_third
from lib.study.runs import Run
from lib.study.variants import SHARES

FORGET, KEEP = ("sst2", "qnli", "mnli"), ("stsb", "rte", "mrpc")
"""The GLUE tasks after which, the paper says, the higher layers forget or keep the properties."""

REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE = "reproduced", "not reproduced", "undecided", "not testable here"

MIN_SEEDS = 3
"""Without an interval, this many seeds are needed for a verdict."""

MIN_EFFECT = {"points": 1.0, "layers": 0.25, "nats": 0.05}
"""The smallest differences that matter: in accuracy, in layers, in entropy (exp(0.05): 5 % more layers in even use)."""

RUN = ["study", "condition", "seed", "property"]

ABLATION_MARGIN, NONE = "top - random", np.array([np.nan])


@dataclass(frozen=True)
class Measure:
    """A number of a run. ``needs`` : the sentence that says what a comparison of it takes. ``on_neurons`` : whether it
    depends on a ranking."""

    name: str
    unit: str
    needs: str
    on_neurons: bool = False


DROP = Measure(
    "drop over the top third of the layers",
    "points",
    "not testable without two fully trained tasks, the pretrained run and at least three layers",
)
KINDS = replace(
    DROP,
    needs=f"not testable without a learnt task among {', '.join(FORGET)} and one among {', '.join(KEEP)}, the "
    "pretrained run and at least three layers",
)
AMOUNTS = replace(
    DROP,
    needs="not testable without a task trained both in full and with fewer updates or examples, the pretrained run and "
    "at least three layers",
)
CENTRE_OF_GRAVITY = Measure(
    "centre of gravity over the layers",
    "layers",
    "not testable without a fully trained task, the runs pretrained and random, and a layer above random weights",
)
MEAN_LAYER = Measure(
    "mean layer of the top neurons",
    "layers",
    "not testable without a fully trained task, and ranked neurons of it and of the pretrained run",
    on_neurons=True,
)
LAYER_ENTROPY = replace(MEAN_LAYER, name="entropy of the top neurons", unit="nats")
DEPTH = Measure(
    "first layer from which all drop",
    "layers",
    "not testable without exactly one BERT, a RoBERTa or XLNet of as many layers, a task that both were fully trained "
    "on, and the runs pretrained and random of both",
)
GRAVITY_SHIFT = replace(DEPTH, name="shift of the centre of gravity")


@dataclass(frozen=True)
class Comparison:
    """A measure's mean over ``conditions`` of a study minus its mean over the conditions ``against`` them, of the same
    study or of an ``other``.

    ``expected`` : the sign that the claim expects (0: either one). Without conditions nothing can be compared, in this
    study or, without one, in any.
    """

    claim: str
    measure: Measure
    study: str = ""
    conditions: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    expected: int = 0
    other: str = ""

    @property
    def weights(self) -> dict[tuple[str, str], float]:
        """Study and condition of each run → its weight in the difference."""
        plus = {(self.study, condition): 1 / len(self.conditions) for condition in self.conditions}
        return plus | {(self.other or self.study, condition): -1 / len(self.against) for condition in self.against}

    def label(self, between: str = " vs ") -> str:
        """What is compared: ``a vs b``, ``forget (a) vs keep (b)``; of two encoders, the task."""
        left, right = ", ".join(self.conditions), ", ".join(self.against)
        if self.other or not self.conditions:
            return left
        return between.join([f"forget ({left})", f"keep ({right})"] if self.measure == KINDS else [left, right])


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged by.

    ``titles`` : study → title of its encoder. ``architectures`` : study → ``model_type`` of its encoder's config.json.
    ``layers`` : study → number of its layers. ``finetuned`` : as ``results.task_scores`` gives it. ``ranking`` : the
    ranking of the neurons. ``values`` : (measure, study, condition, seed, property) → [1 + resamples], the estimate
    first, or [1].
    """

    titles: dict[str, str]
    architectures: dict[str, str]
    layers: dict[str, int]
    finetuned: pd.DataFrame
    ranking: str
    values: dict[tuple[str, str, str, int, str], np.ndarray]

    def tasks(self, study: str) -> list[str]:
        """The tasks that a study's encoder was fine-tuned on in full, learnt or not."""
        return list(pick(self.finetuned, study=study, amount="")["task"].unique())

    def seeds(self, runs: Iterable[tuple[str, str]]) -> list[int]:
        """The seeds in which every fine-tuned one of ``runs`` (study, condition) learnt its task."""
        learnt = [
            set(pick(self.finetuned, study=study, condition=condition, learnt=True)["seed"])
            for study, condition in runs
            if condition != "pretrained"
        ]
        return sorted(set.intersection(*learnt)) if learnt else []

    def value(self, measure: str, run: tuple[str, str], seed: int, name: str) -> np.ndarray:
        """A measure of a study's condition in a seed, [1 + resamples] or [1]; NaN if it has none."""
        return self.values.get((measure, *run, -1 if run[1] == "pretrained" else seed, name), NONE)

    def effect(self, comparison: Comparison, seed: int, name: str) -> np.ndarray:
        """The difference in one seed, [1 + resamples] or [1]."""
        runs = comparison.weights.items()
        return sum(weight * self.value(comparison.measure.name, run, seed, name) for run, weight in runs)

    def encoder(self, comparison: Comparison, between: str = " vs ") -> str:
        """The title of the encoder that a comparison is about, or those of two; of all if it names none."""
        studies = filter(None, [comparison.study, comparison.other]) if comparison.study else self.titles
        return between.join(self.titles[study] for study in studies)


# The claims ------------------------------------------------------------------------------------------------------


def c1_tasks(evidence: Evidence) -> Iterator[Comparison]:
    """Each two tasks, in full or on equally many examples: drop over the top third of the layers; forget minus keep."""
    for study in evidence.titles:
        tuned = pick(evidence.finetuned, study=study)
        equal = tuned[~tuned["amount"].isin(SHARES)].groupby("amount")["condition"].unique()
        pairs = [pair for conditions in equal for pair in combinations(conditions, 2)]
        yield from [Comparison("C1", DROP, study, (a,), (b,)) for a, b in pairs] or [Comparison("C1", DROP, study)]
        learnt = [task for task in evidence.tasks(study) if evidence.seeds([(study, task)])]
        kinds = [tuple(task for task in kind if task in learnt) for kind in (FORGET, KEEP)]
        yield Comparison("C1", KINDS, study, *kinds, expected=1) if all(kinds) else Comparison("C1", KINDS, study)


def c2_lower(evidence: Evidence) -> Iterator[Comparison]:
    """After minus before fine-tuning: centre of gravity of the accuracy above the random encoder's; mean layer and
    entropy of the top neurons, undecided where they do no better than random neurons."""
    for study in evidence.titles:
        shifts = [
            Comparison("C2", measure, study, (task,), ("pretrained",), -1)
            for measure in (CENTRE_OF_GRAVITY, MEAN_LAYER, LAYER_ENTROPY)
            for task in evidence.tasks(study)
        ]
        yield from shifts or [Comparison("C2", CENTRE_OF_GRAVITY, study)]


def c3_architectures(evidence: Evidence) -> Iterator[Comparison]:
    """BERT minus RoBERTa or XLNet: ``depth`` of the drop and shift of the centre of gravity. Tokenizer, objective and
    positions vary together: such a difference is an observation, not the effect of one of them."""
    berts = [study for study in evidence.titles if evidence.architectures[study] == "bert"]
    others = [study for study in evidence.titles if evidence.architectures[study] in ("roberta", "xlnet")]
    if len(berts) != 1 or not others:
        yield Comparison("C3", DEPTH)
        return
    (bert,) = berts
    for other in others:
        alike = evidence.layers.get(bert) == evidence.layers.get(other)
        deeper = [
            Comparison("C3", measure, bert, (task,), (task,), 1, other)
            for measure in (DEPTH, GRAVITY_SHIFT)
            for task in dict.fromkeys(evidence.tasks(bert) + evidence.tasks(other))
            if alike
        ]
        yield from deeper or [Comparison("C3", DEPTH, bert, other=other)]


def c4_amounts(evidence: Evidence) -> Iterator[Comparison]:
    """The same task in full minus with fewer updates or fewer examples: drop over the top third of the layers."""
    for study in evidence.titles:
        tuned = pick(evidence.finetuned, study=study).drop_duplicates("condition")
        fewer = tuned[(tuned["amount"] != "") & tuned["task"].isin(evidence.tasks(study))]
        more = [Comparison("C4", AMOUNTS, study, (run.task,), (run.condition,), 1) for run in fewer.itertuples()]
        yield from more or [Comparison("C4", AMOUNTS, study)]


# Judging ---------------------------------------------------------------------------------------------------------


def judge(
    runs: list[Run], counts: pd.DataFrame, tests: pd.DataFrame, neuron_layers: pd.DataFrame, ranking: str = "lca"
) -> pd.DataFrame:
    """``judge_tables`` on runs and their tables (``results.layers``, ``neuron_tests`` and ``neuron_layers``).

    Raises ValueError if the studies have different corpora for a property.
    """
    for name in dict.fromkeys(name for run in runs for name in run.study.properties):
        first, *others = (run.study.corpus_of(name) for run in runs if name in run.study.properties)
        if any(corpus != first for corpus in others):
            raise ValueError(
                f"the studies have different corpora for '{name}': give them the same, or judge each alone"
            )
    titles = {run.study.name: run.study.title for run in runs}
    unlike = len(set(titles.values())) == len(titles)
    titles = {name: title if unlike else f"{title} ({name})" for name, title in titles.items()}
    architectures = {run.study.name: encoders.architecture(run.study) for run in runs}
    return judge_tables(titles, architectures, results.task_scores(runs), counts, tests, neuron_layers, ranking)


def judge_tables(
    titles: dict[str, str],
    architectures: dict[str, str],
    scores: pd.DataFrame,
    counts: pd.DataFrame,
    tests: pd.DataFrame,
    neuron_layers: pd.DataFrame,
    ranking: str = "lca",
) -> pd.DataFrame:
    """The verdict on every comparison of the claims (method, section 1), or what it lacks.

    ``titles`` : study → title of its encoder. ``architectures`` : study → ``model_type`` of its encoder's config.json.
    ``scores``, ``counts``, ``tests``, ``neuron_layers`` : as ``results`` gives them. ``ranking`` : the ranking whose
    neurons are judged.

    Returns
    -------
    One row per comparison and property. ``effect`` : mean over the ``seeds`` that all compared runs have
    (``per_seed``: each of them, as text); ``low``, ``high`` : its paired 95 % bootstrap interval over texts (NaN: there
    is none); all in ``unit``. ``ranking`` : empty where the measure is not about neurons. ``encoder``, ``compared``,
    ``sentence`` : for display.

    Raises
    ------
    ValueError : the studies were not probed on the same texts.
    """
    gold = pick(counts, source="gold", word_group="all", target="real", split="test")
    if gold.groupby(["property", "study"])["text"].agg(frozenset).groupby("property").nunique().gt(1).any():
        raise ValueError("the studies were not probed on the same test texts: judge each alone")
    evidence = Evidence(
        titles,
        architectures,
        layers=gold.groupby("study")["layer"].nunique().to_dict(),
        finetuned=scores,
        ranking=ranking,
        values=_of_layers(gold) | _of_neurons(pick(tests, ranking=ranking), pick(neuron_layers, ranking=ranking)),
    )
    comparisons = chain(*(claim(evidence) for claim in (c1_tasks, c2_lower, c3_architectures, c4_amounts)))
    return pd.DataFrame([row for comparison in comparisons for row in _rows(evidence, comparison)])


def verdict(per_seed: np.ndarray, low: float, high: float, threshold: float, expected: int) -> str:
    """The one rule: a two-sided test of equivalence within ``threshold`` of 0.

    ``reproduced`` : the interval lies beyond the threshold in the ``expected`` direction (1, -1; 0: in either one), and
    every seed has that sign. ``not reproduced`` : it and every seed lie within the thresholds, or it lies beyond them
    in the other direction with that sign in every seed. ``undecided`` : all else. Without an interval (NaN) the range
    of the seeds takes its place, if there are ``MIN_SEEDS``.

    ``per_seed`` : the effect in each seed, [seeds]. ``low``, ``high`` : the interval of their mean.
    """
    if np.isnan([low, high]).any():
        if len(per_seed) < MIN_SEEDS:
            return UNDECIDED
        low, high = per_seed.min(), per_seed.max()
    beyond = {s for s in (1, -1) if min(s * low, s * high) > threshold and (s * per_seed > 0).all()}
    if beyond & ({expected} if expected else {1, -1}):
        return REPRODUCED
    within = max(-low, high) <= threshold and (np.abs(per_seed) <= threshold).all()
    return NOT_REPRODUCED if beyond or within else UNDECIDED


def depth(drop: np.ndarray) -> np.ndarray:
    """First layer from which it and all higher ones drop by more than a point; top + 1 if none: [layers, n] → [n]."""
    return len(drop) - np.logical_and.accumulate(drop[::-1] > MIN_EFFECT["points"]).sum(0).astype(float)


def overview(judged: pd.DataFrame) -> pd.DataFrame:
    """One row per claim and measure, one column per encoder or pair: each verdict with the comparisons behind it and
    their effects. What could not be tested is named only where nothing could."""
    compared = judged["condition"].where(judged["against"] == "pretrained", judged["compared"])
    rows = judged.assign(compared=compared, measure=judged["measure"] + " (" + judged["unit"] + ")")
    cells = rows.groupby(["claim", "measure", "encoder"], sort=False).apply(_cell)
    wide = cells.unstack(fill_value="", sort=False)[judged["encoder"].unique()]
    return wide.rename_axis(columns=None).reset_index()


def _cell(judged: pd.DataFrame) -> str:
    """The verdicts of a claim on one encoder, each with the comparisons behind it and their effects."""
    testable = judged[judged["verdict"] != NOT_TESTABLE]
    names = ["compared", "property"] if testable["property"].nunique() > 1 else ["compared"]
    effects = [" ".join([*(row[name] for name in names), f"{row['effect']:+.2f}"]) for _, row in testable.iterrows()]
    listed = pd.Series(effects, testable["verdict"], dtype=str).groupby("verdict").agg(", ".join)
    order = [verdict for verdict in (REPRODUCED, NOT_REPRODUCED, UNDECIDED) if verdict in listed]
    return "; ".join(f"{verdict} ({listed[verdict]})" for verdict in order) or NOT_TESTABLE


def to_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, without its index."""
    rows = [[*table.columns], ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows)


def _of_layers(counts: pd.DataFrame) -> dict:
    """The measures on accuracies, as ``Evidence.values``."""
    if counts.empty:
        return {}
    cells, _, fractions = results.resampled(counts, "test", seed=0)
    accuracy = {key: 100 * fractions[rows.sort_values("layer").index] for key, rows in cells.groupby(RUN)}
    values = {}
    for run, after in accuracy.items():
        study, *_, name = run
        before, random = (accuracy.get((study, start, -1, name)) for start in ("pretrained", "random"))
        if before is not None:
            values |= {(DROP.name, *run): top_third(before - after), (DEPTH.name, *run): depth(before - after)}
        if before is not None and random is not None:
            centre = centre_of_gravity(after - random)
            values[CENTRE_OF_GRAVITY.name, *run] = centre
            values[GRAVITY_SHIFT.name, *run] = centre - centre_of_gravity(before - random)
    return values


def _of_neurons(tests: pd.DataFrame, neuron_layers: pd.DataFrame) -> dict:
    """The measures on ranked neurons, as ``Evidence.values``."""
    layers, tests = pick(neuron_layers, source="gold"), pick(tests, source="gold", split="test")
    measured = {
        MEAN_LAYER.name: results.centres_of_gravity(layers, "neurons", RUN),
        LAYER_ENTROPY.name: results.entropy(layers, "neurons", RUN),
        ABLATION_MARGIN: {run: results.margin(rows) for run, rows in tests.groupby(RUN)},
    }
    return {(name, *run): np.array([value]) for name, of in measured.items() for run, value in of.items()}


def _rows(evidence: Evidence, comparison: Comparison) -> list[dict]:
    """One row per property; or one row that says what is lacking."""
    seeds, studies = evidence.seeds(comparison.weights), {study for study, _ in comparison.weights}
    names = {key[-1] for key in evidence.values if key[0] == comparison.measure.name and key[1] in studies}
    return [_row(evidence, comparison, name, seeds) for name in (sorted(names) if seeds and names else [""])]


def _row(evidence: Evidence, comparison: Comparison, name: str, seeds: list[int]) -> dict:
    measure, threshold = comparison.measure, MIN_EFFECT[comparison.measure.unit]
    draws = [evidence.effect(comparison, seed, name) for seed in seeds] or [NONE]
    effect, per_seed = sum(draws) / len(draws), np.array([draw[0] for draw in draws])
    low, high, doubtful, outcome = np.nan, np.nan, [], NOT_TESTABLE
    if np.isfinite(effect[0]):
        low, high = np.nanquantile(effect[1:], [0.025, 0.975]) if len(effect) > 1 else (np.nan, np.nan)
        doubtful = _doubtful(evidence, comparison, name, seeds)
        outcome = UNDECIDED if doubtful else verdict(per_seed, low, high, threshold, comparison.expected)
    row = {
        "claim": comparison.claim,
        "encoder": evidence.encoder(comparison),
        "study": comparison.study,
        "other": comparison.other,
        "architecture": evidence.architectures.get(comparison.study, ""),
        "compared": comparison.label(),
        "condition": ", ".join(comparison.conditions),
        "against": ", ".join(comparison.against),
        "property": name,
        "measure": measure.name,
        "ranking": evidence.ranking if measure.on_neurons else "",
        "effect": effect[0],
        "low": low,
        "high": high,
        "unit": measure.unit,
        "threshold": threshold,
        "seeds": len(seeds),
        "same_sign": abs(np.sign(per_seed).sum()) == len(per_seed),
        "per_seed": " ".join(f"{value:+.3f}" for value in per_seed[: len(seeds)]),
        "verdict": outcome,
    }
    return row | {"sentence": _sentence(evidence, comparison, row, doubtful)}


def _doubtful(evidence: Evidence, comparison: Comparison, name: str, seeds: list[int]) -> list[str]:
    """The conditions whose top neurons do no better than random ones, so that their layers mean nothing."""
    if not comparison.measure.on_neurons:
        return []
    return [
        run[1]
        for run in comparison.weights
        if not all(evidence.value(ABLATION_MARGIN, run, seed, name)[0] > 0 for seed in seeds)
    ]


def _sentence(evidence: Evidence, comparison: Comparison, row: dict, doubtful: list[str]) -> str:
    """A row in words: what was compared, what came out and of which runs, or what is lacking."""
    if row["verdict"] == NOT_TESTABLE and comparison.conditions and not row["seeds"]:
        found = "not testable: in no seed did every compared run learn its task"
    elif row["verdict"] == NOT_TESTABLE:
        found = comparison.measure.needs
    else:
        interval = f"95 % interval {row['low']:+.2f} to {row['high']:+.2f}"
        if np.isnan(row["low"]):
            interval = f"no interval: {MIN_SEEDS} seeds decide"
        hope = {1: "more than ", -1: "less than -", 0: "beyond ±"}[comparison.expected]
        found = (
            f"{row['effect']:+.2f} {row['unit']} ({interval}; per seed {row['per_seed']}); "
            f"the claim expects {hope}{row['threshold']:g}"
        )
    compared = [pick(evidence.finetuned, study=study, condition=condition) for study, condition in comparison.weights]
    runs = [run for table in compared for run in table.itertuples()]
    remarks = {
        "updates": dict.fromkeys(f"{run.condition} {run.updates}" for run in runs),
        "left out, task not learnt": [f"{evidence.titles[run.study]} {run.variant}" for run in runs if not run.learnt],
        "neurons no better than random": doubtful,
    }
    parts = [found, *(f"{about}: {', '.join(names)}" for about, names in remarks.items() if names)]
    encoder, label = evidence.encoder(comparison, " minus "), comparison.label(" minus ")
    what = filter(None, [row["measure"].capitalize(), encoder, label, row["property"]])
    return f"{', '.join(what)}: {'; '.join(parts)}."

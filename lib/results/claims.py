"""Claim: the paper's claims (C1-C3) and the control (C4) as differences between runs, each with a verdict by one rule.

All is about gold properties, all words of the test split. Accuracies are in points (per cent). A fine-tuned run that
did not learn its task (``results.scores``) says nothing about it: it is left out, and the sentence of a row names it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pandas as pd

from lib import encoders, results
from lib.results.intervals import pick
from lib.results.summary import centre_of_gravity, top_third
from lib.study.runs import Run
from lib.study.variants import SHARES

FORGET, KEEP = ("sst2", "qnli", "mnli"), ("stsb", "rte", "mrpc")
"""The GLUE tasks after which, the paper says, the higher layers forget or keep the properties."""


BERT, OTHERS = "bert", ("roberta", "xlnet")
"""The architectures that the paper compares, as ``model_type`` of config.json names them; no other counts as one."""


REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE = "reproduced", "not reproduced", "undecided", "not testable here"


ORDER = [REPRODUCED, NOT_REPRODUCED, UNDECIDED]
"""The verdicts on what could be tested."""


MIN_SEEDS = 3
"""Seeds from which a measure without an interval is decided."""


MIN_EFFECT = {"points": 1.0, "layers": 0.25, "nats": 0.05}
"""The smallest differences that matter: in accuracy, in layers, in entropy (exp(0.05): 5 % more layers in even use)."""


ABLATION_MARGIN, NONE = "top - random", np.array([np.nan])


RUN = ["study", "condition", "seed", "property"]
"""What names a value."""


@dataclass(frozen=True)
class Measure:
    """A number of a run, its unit, and what it takes to compare it."""

    name: str
    unit: str
    needs: str


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
)


LAYER_ENTROPY = replace(MEAN_LAYER, name="entropy of the top neurons", unit="nats")


DEPTH = Measure(
    "first layer from which all drop",
    "layers",
    "not testable without exactly one BERT, a RoBERTa or XLNet of as many layers, a task that both were fully trained "
    "on, and the runs pretrained and random of both",
)


GRAVITY_SHIFT = replace(DEPTH, name="shift of the centre of gravity")


UNLEARNT = "not testable: in no seed did every compared run learn its task"


@dataclass(frozen=True)
class Comparison:
    """A measure's mean over ``conditions`` of a study minus its mean over those ``against`` them, of the same study or
    of an ``other``.

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
    def after(self) -> list[tuple[str, str]]:
        """Study and condition of what the rest is subtracted from."""
        return [(self.study, condition) for condition in self.conditions]

    @property
    def before(self) -> list[tuple[str, str]]:
        """Study and condition of what is subtracted."""
        return [(self.other or self.study, condition) for condition in self.against]

    def label(self, between: str = " vs ") -> str:
        """What is compared: ``a vs b``, ``forget (a) vs keep (b)``; of two encoders, the task."""
        sides = [", ".join(self.conditions), ", ".join(self.against)]
        if self.other or not self.conditions:
            return sides[0]
        if self.measure == KINDS:
            sides = [f"forget ({sides[0]})", f"keep ({sides[1]})"]
        return between.join(sides)


@dataclass(frozen=True)
class Evidence:
    """What the claims are about.

    ``titles`` : study → title of its encoder. ``architectures`` : study → ``model_type`` of its encoder's config.json.
    ``layers`` : study → number of its layers. ``finetuned`` : as ``results.scores`` gives it. ``values`` : (measure,
    study, condition, seed, property) → [1 + resamples], the estimate first, or [1].
    """

    titles: dict[str, str]
    architectures: dict[str, str]
    layers: dict[str, int]
    finetuned: pd.DataFrame
    values: dict[tuple[str, str, str, int, str], np.ndarray]

    def tasks(self, study: str) -> list[str]:
        """The tasks that a study's encoder was fine-tuned on in full, learnt or not."""
        return list(pick(self.finetuned, study=study, amount="")["task"].unique())

    def seeds(self, runs: list[tuple[str, str]]) -> list[int]:
        """The seeds of which each of ``runs`` (study, condition), if it is fine-tuned, has one that learnt its task."""
        tuned = [(study, condition) for study, condition in runs if condition != "pretrained"]
        learnt = [set(pick(self.finetuned, study=s, condition=c, learnt=True)["seed"]) for s, c in tuned]
        return sorted(set.intersection(*learnt)) if learnt else []

    def value(self, measure: str, run: tuple[str, str], seed: int, name: str) -> np.ndarray:
        """A measure of a study's condition in a seed, [1 + resamples] or [1]; NaN if it has none."""
        return self.values.get((measure, *run, -1 if run[1] == "pretrained" else seed, name), NONE)

    def effect(self, asked: Comparison, seed: int, name: str) -> np.ndarray:
        """The difference that is asked for in one seed, [1 + resamples] or [1]."""
        after = [self.value(asked.measure.name, run, seed, name) for run in asked.after]
        before = [self.value(asked.measure.name, run, seed, name) for run in asked.before]
        return sum(after) / len(after) - sum(before) / len(before)

    def encoder(self, asked: Comparison, between: str = " vs ") -> str:
        """The title of the encoder that a comparison is about, or those of two; of all if none is named."""
        studies = filter(None, [asked.study, asked.other]) if asked.study else self.titles
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
    entropy of the top neurons, undecided where keeping these is no better than keeping random ones."""
    for study in evidence.titles:
        measures = (CENTRE_OF_GRAVITY, MEAN_LAYER, LAYER_ENTROPY)
        asked = [Comparison("C2", m, study, (t,), ("pretrained",), -1) for m in measures for t in evidence.tasks(study)]
        yield from asked or [Comparison("C2", CENTRE_OF_GRAVITY, study)]


def c3_architectures(evidence: Evidence) -> Iterator[Comparison]:
    """BERT minus RoBERTa or XLNet: ``depth`` of the drop and shift of the centre of gravity. Tokenizer, objective and
    positions vary together: such a difference is an observation, not the effect of one of them."""
    berts = [study for study in evidence.titles if evidence.architectures[study] == BERT]
    others = [study for study in evidence.titles if evidence.architectures[study] in OTHERS]
    pairs = list(product(berts, others)) if len(berts) == 1 else []
    for bert, other in pairs:
        tasks = dict.fromkeys(evidence.tasks(bert) + evidence.tasks(other))
        alike = evidence.layers.get(bert) == evidence.layers.get(other)
        both = [(measure, (task,)) for measure in (DEPTH, GRAVITY_SHIFT) for task in tasks if alike]
        asked = [Comparison("C3", measure, bert, task, task, 1, other) for measure, task in both]
        yield from asked or [Comparison("C3", DEPTH, bert, other=other)]
    if not pairs:
        yield Comparison("C3", DEPTH)


def c4_amounts(evidence: Evidence) -> Iterator[Comparison]:
    """The same task in full minus with fewer updates or fewer examples: drop over the top third of the layers."""
    for study in evidence.titles:
        tuned = pick(evidence.finetuned, study=study).drop_duplicates("condition")
        fewer = tuned[(tuned["amount"] != "") & tuned["task"].isin(evidence.tasks(study))]
        asked = [Comparison("C4", AMOUNTS, study, (r.task,), (r.condition,), 1) for r in fewer.itertuples()]
        yield from asked or [Comparison("C4", AMOUNTS, study)]


CLAIMS = [c1_tasks, c2_lower, c3_architectures, c4_amounts]


# Judging ---------------------------------------------------------------------------------------------------------


def judge(runs: list[Run], counts: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """``judge_tables`` on runs and their tables (``results.layers``, ``results.neuron_tests``).

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
    return judge_tables(titles, architectures, results.scores(runs), counts, tests)


def judge_tables(
    titles: dict[str, str], architectures: dict[str, str], scores: pd.DataFrame, counts: pd.DataFrame,
    tests: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    """The verdict on every comparison of ``CLAIMS`` (method, section 1), or what it lacks.

    ``titles`` : study → title of its encoder. ``architectures`` : study → ``model_type`` of its encoder's config.json.
    ``scores``, ``counts``, ``tests`` : as ``results`` makes them.

    Returns
    -------
    One row per comparison and property. ``effect`` : mean over the ``seeds`` that all compared runs have
    (``per_seed``: each of them, as text); ``low``, ``high`` : its paired 95 % bootstrap interval over texts (NaN: there
    is none); all in ``unit``. ``encoder``, ``compared``, ``sentence`` : for display.

    Raises
    ------
    ValueError : the studies were not probed on the same texts.
    """
    gold = pick(counts, source="gold", word_group="all", target="real", split="test")
    if gold.groupby(["property", "study"])["text"].agg(frozenset).groupby("property").nunique().gt(1).any():
        raise ValueError("the studies were not probed on the same test texts: judge each alone")
    layers = gold.groupby("study")["layer"].nunique().to_dict()
    evidence = Evidence(titles, architectures, layers, scores, _of_layers(gold) | _of_neurons(tests))
    return pd.DataFrame([row for claim in CLAIMS for asked in claim(evidence) for row in _rows(evidence, asked)])


def verdict(per_seed: np.ndarray, low: float, high: float, threshold: float, expected: int) -> str:
    """The one rule: a two-sided test of equivalence within ``threshold`` of 0.

    ``reproduced`` : the interval lies beyond the threshold in the ``expected`` direction (1, -1; 0: in either one), and
    every seed has that sign. ``not reproduced`` : it and every seed lie within the thresholds, or it lies beyond them
    in the other direction with that sign in every seed. ``undecided`` : all else. Without an interval (NaN) the range
    of the seeds takes its place, if they are ``MIN_SEEDS``.

    ``per_seed`` : the effect in each seed, [seeds]. ``low``, ``high`` : the interval of their mean.
    """
    hoped = {expected} if expected else {1, -1}
    if np.isnan([low, high]).any():
        if len(per_seed) < MIN_SEEDS:
            return UNDECIDED
        low, high = per_seed.min(), per_seed.max()
    beyond = {s for s in (1, -1) if min(s * low, s * high) > threshold and (s * per_seed > 0).all()}
    if beyond & hoped:
        return REPRODUCED
    within = max(-low, high) <= threshold and (np.abs(per_seed) <= threshold).all()
    return NOT_REPRODUCED if beyond or within else UNDECIDED


def depth(drop: np.ndarray) -> np.ndarray:
    """First layer from which it and all higher ones drop by more than a point; top + 1 if none: [layers, n] → [n]."""
    return len(drop) - np.logical_and.accumulate(drop[::-1] > MIN_EFFECT["points"]).sum(0).astype(float)


def overview(judged: pd.DataFrame) -> pd.DataFrame:
    """One row per claim and measure, one column per encoder or pair: each verdict with the comparisons that came to it
    and their effects. What could not be tested is named only where nothing could."""
    what = judged["condition"].where(judged["against"] == "pretrained", judged["compared"])
    measure = judged["measure"] + " (" + judged["unit"] + ")"
    named, keys = judged.assign(compared=what, measure=measure), ["claim", "measure", "encoder"]
    cells = [(*key, _cell(rows)) for key, rows in named.groupby(keys, sort=False)]
    table = pd.DataFrame(cells, columns=[*keys, "verdicts"])
    wide = table.pivot_table("verdicts", keys[:2], "encoder", aggfunc="first", fill_value="", sort=False)
    return wide[judged["encoder"].unique()].rename_axis(columns=None).reset_index()


def _cell(judged: pd.DataFrame) -> str:
    """The verdicts of a claim on one encoder, each with what came to it and the effects."""
    testable, said = judged[judged["verdict"] != NOT_TESTABLE], {}
    several = testable["property"].nunique() > 1
    for row in testable.itertuples():
        name = f"{row.compared} {row.property}" if several else row.compared
        said.setdefault(row.verdict, []).append(f"{name} {row.effect:+.2f}")
    return "; ".join(f"{v} ({', '.join(said[v])})" for v in ORDER if v in said) or NOT_TESTABLE


def to_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, without its index."""
    rows = [[*table.columns], ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows)


def _of_layers(counts: pd.DataFrame) -> dict:
    """The measures on accuracies, as ``Evidence.values``."""
    if counts.empty:
        return {}
    cells, correct, total = results.counts_by_text(counts, "test")
    points = 100 * np.column_stack([correct.sum(1) / total.sum(1), results.resampled(cells, correct, total, seed=0)])
    accuracy = {key: points[rows.sort_values("layer").index] for key, rows in cells.groupby(RUN)}
    values = {}
    for run, after in accuracy.items():
        study, _, _, name = run
        before = accuracy.get((study, "pretrained", -1, name))
        random = accuracy.get((study, "random", -1, name))
        if before is not None:
            values |= {(DROP.name, *run): top_third(before - after), (DEPTH.name, *run): depth(before - after)}
        if before is not None and random is not None:
            centre = centre_of_gravity(after - random)
            values[CENTRE_OF_GRAVITY.name, *run] = centre
            values[GRAVITY_SHIFT.name, *run] = centre - centre_of_gravity(before - random)
    return values


def _of_neurons(tests: pd.DataFrame) -> dict:
    """The measures on ranked neurons, as ``Evidence.values``."""
    order, kept = pick(tests, source="gold", kind="layer"), pick(tests, source="gold", split="test")
    measured = {
        MEAN_LAYER.name: results.centres_of_gravity(order, "neurons", RUN),
        LAYER_ENTROPY.name: results.entropy(order, "neurons", RUN),
        ABLATION_MARGIN: {run: results.margin(rows) for run, rows in kept.groupby(RUN)},
    }
    return {(name, *run): np.array([value]) for name, of in measured.items() for run, value in of.items()}


def _rows(evidence: Evidence, asked: Comparison) -> list[dict]:
    """One row per property; or one on what is lacking."""
    runs = asked.after + asked.before
    seeds, studies = evidence.seeds(runs), {study for study, _ in runs}
    names = {key[-1] for key in evidence.values if key[0] == asked.measure.name and key[1] in studies}
    return [_row(evidence, asked, name, seeds) for name in (sorted(names) if seeds and names else [""])]


def _row(evidence: Evidence, asked: Comparison, name: str, seeds: list[int]) -> dict:
    threshold = MIN_EFFECT[asked.measure.unit]
    draws = [evidence.effect(asked, seed, name) for seed in seeds] or [NONE]
    effect, per_seed = sum(draws) / len(draws), np.array([draw[0] for draw in draws])
    low, high, doubtful, outcome = np.nan, np.nan, [], NOT_TESTABLE
    if np.isfinite(effect[0]):
        low, high = np.nanquantile(effect[1:], [0.025, 0.975]) if len(effect) > 1 else (np.nan, np.nan)
        doubtful = _doubtful(evidence, asked, name, seeds)
        outcome = UNDECIDED if doubtful else verdict(per_seed, low, high, threshold, asked.expected)
    row = {
        "claim": asked.claim, "encoder": evidence.encoder(asked), "study": asked.study, "other": asked.other,
        "compared": asked.label(), "condition": ", ".join(asked.conditions), "against": ", ".join(asked.against),
        "property": name, "measure": asked.measure.name, "effect": effect[0], "low": low, "high": high,
        "unit": asked.measure.unit, "threshold": threshold, "seeds": len(seeds),
        "same_sign": abs(np.sign(per_seed).sum()) == len(per_seed),
        "per_seed": " ".join(f"{effect:+.3f}" for effect in per_seed[: len(seeds)]), "verdict": outcome,
    }  # fmt: skip
    return row | {"sentence": _sentence(evidence, asked, row, doubtful)}


def _doubtful(evidence: Evidence, asked: Comparison, name: str, seeds: list[int]) -> list[str]:
    """The conditions whose top neurons do no better than random ones, so that it says nothing where they lie."""
    runs = asked.after + asked.before if asked.measure in (MEAN_LAYER, LAYER_ENTROPY) else []
    margins = [[evidence.value(ABLATION_MARGIN, run, seed, name)[0] for seed in seeds] for run in runs]
    return [condition for (_, condition), each in zip(runs, margins, strict=True) if not np.greater(each, 0).all()]


def _sentence(evidence: Evidence, asked: Comparison, row: dict, doubtful: list[str]) -> str:
    """A row in words: what was compared, what came out and of which runs, or what is lacking."""
    what = [row["measure"].capitalize(), evidence.encoder(asked, " minus "), asked.label(" minus "), row["property"]]
    interval = f"95 % interval {row['low']:+.2f} to {row['high']:+.2f}"
    if np.isnan(row["low"]):
        interval = f"no interval: {MIN_SEEDS} seeds decide"
    hope = {1: "more than ", -1: "less than -", 0: "beyond ±"}[asked.expected]
    found = (f"{row['effect']:+.2f} {row['unit']} ({interval}; per seed {row['per_seed']}); "
             f"the claim expects {hope}{row['threshold']:g}")  # fmt: skip
    if row["verdict"] == NOT_TESTABLE:
        found = UNLEARNT if asked.conditions and not row["seeds"] else asked.measure.needs
    tuned = [pick(evidence.finetuned, study=s, condition=c).itertuples() for s, c in asked.after + asked.before]
    runs = [run for side in tuned for run in side]
    remarks = {
        "updates": dict.fromkeys(f"{run.condition} {run.updates}" for run in runs),
        "left out, task not learnt": [f"{evidence.titles[run.study]} {run.variant}" for run in runs if not run.learnt],
        "neurons no better than random": doubtful,
    }
    said = [found, *(f"{about}: {', '.join(names)}" for about, names in remarks.items() if names)]
    return f"{', '.join(filter(None, what))}: {'; '.join(said)}."

"""Claim: the paper's claims (C1-C3) and the control (C4) as differences between runs, each with a verdict by one rule.

All is about gold properties, all words of the test split. Accuracies are in points (per cent). A fine-tuned run that
did not learn its task (``results.scores``) says nothing about it: it is left out, and the sentence of a row names it.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from lib import encoders, results
from lib.results.intervals import pick
from lib.results.summary import gravity, top_third
from lib.study.runs import Run
from lib.study.variants import Variant

FORGET, KEEP = ("sst2", "qnli", "mnli"), ("stsb", "rte", "mrpc")
"""The GLUE tasks after which, the paper says, the higher layers forget or keep the properties."""


REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE = "reproduced", "not reproduced", "undecided", "not testable here"


ORDER = [REPRODUCED, NOT_REPRODUCED, UNDECIDED]
"""The verdicts on what could be tested."""


MIN_SEEDS = 3
"""Seeds from which a measure without an interval is decided."""


POINT, LAYER, NATS = 1.0, 0.25, 0.05
"""Differences that matter: points of accuracy, layers, nats of entropy (exp(0.05): 5 % more layers in even use)."""


Key = tuple[str, str, str, str]  # measure, study, variant, property


@dataclass(frozen=True)
class Measure:
    """A number of a run, the sign that a claim expects of its differences (0: either one), and what it needs."""

    claim: str
    name: str
    unit: str
    threshold: float
    expected: int
    needs: str


TASKS = Measure("C1", "drop over the top third of the layers", "points", POINT, 0, "2 full tasks, pretrained, 3 layers")


GROUPS = replace(TASKS, expected=1, needs=f"learnt tasks of both kinds, {'/'.join(FORGET)} and {'/'.join(KEEP)}")


UPDATES = replace(TASKS, claim="C4", expected=1, needs="a task with all and with a half or quarter of its updates")


RUNS = "a task in full, runs pretrained and random, a layer above random"


CENTRE = Measure("C2", "centre of gravity over the layers", "layers", LAYER, -1, RUNS)


MIDDLE = Measure("C2", "mean layer of the top neurons", "layers", LAYER, -1, "a task in full, ordered neurons")


SPREAD = replace(MIDDLE, name="entropy of the top neurons", unit="nats", threshold=NATS)


PAIR = "one BERT, a RoBERTa or XLNet of as many layers"


BERT, OTHERS = "bert", ("roberta", "xlnet")
"""The architectures that the paper compares, as ``model_type`` of config.json names them; no other counts as one."""


DEPTH = Measure("C3", "first layer from which all drop", "layers", LAYER, 1, f"{PAIR}, a task in full, runs pretrained")


SHIFT = Measure("C3", "shift of the centre of gravity", "layers", LAYER, 1, f"{PAIR}, {RUNS}")


LAYERS, MARGIN, NAN = "number of layers", "top - random", np.array([np.nan])


@dataclass(frozen=True)
class Comparison:
    """A measure's mean over ``these`` minus its mean over ``those``: (study, condition), a variant without its seed."""

    measure: Measure
    encoder: str
    compared: str = ""
    these: tuple[tuple[str, str], ...] = ()
    those: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """``values`` : [1 + resamples] each, the estimate first, or [1]. ``tuned`` : one row per fine-tuned run.
    ``architectures`` : study → the ``model_type`` of its encoder."""

    titles: dict[str, str]
    values: dict[Key, np.ndarray]
    tuned: pd.DataFrame
    architectures: dict[str, str]


def judge(wanted: list[Run], counts: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """``verdicts`` on runs and their tables (``results.layers``, ``results.neuron_tests``).

    Raises ValueError if the studies do not share one corpus.
    """
    if any(run.study.corpus != wanted[0].study.corpus for run in wanted):
        raise ValueError("the studies have different corpora: give them the same section 'corpus', or judge each alone")
    titles = {run.study.name: run.study.title for run in wanted}
    unlike = len(set(titles.values())) == len(titles)
    titles = {name: title if unlike else f"{title} ({name})" for name, title in titles.items()}
    architectures = {run.study.name: encoders.architecture(run.study) for run in wanted}
    return verdicts(titles, results.scores(wanted), counts, tests, architectures)


def verdicts(
    titles: dict[str, str], scores: pd.DataFrame, counts: pd.DataFrame, tests: pd.DataFrame,
    architectures: dict[str, str],
) -> pd.DataFrame:  # fmt: skip
    """The verdict on every comparison that the claims ask for (method, section 1), or what it lacks.

    C1 : each two tasks, drop over the top third of the layers; and the paper's named tasks, forget minus keep.
    C2 : after minus before fine-tuning: ``results.gravity`` of the accuracy above the random encoder's; mean layer and
    entropy of the top neurons, undecided where keeping these is no better than keeping random ones.
    C3 : BERT minus RoBERTa or XLNet, ``depth`` of the drop and shift of the centre of gravity. Tokenizer, objective and
    positions vary together: such a difference is an observation, not the effect of one of them.
    C4 : the same task, all minus some of its updates.

    ``titles`` : study → title of its encoder. ``scores``, ``counts``, ``tests`` : as ``results`` makes them.
    ``architectures`` : study → ``model_type`` of its encoder's config.json.

    Returns
    -------
    One row per comparison and property. ``effect`` : mean over the ``seeds`` that all compared runs have
    (``per_seed``: each of them, as text); ``low``, ``high`` : its paired 95 % bootstrap interval over texts (NaN: there
    is none); all in ``unit``.

    Raises
    ------
    ValueError : the studies were not probed on the same texts.
    """
    named = [Variant.parse(name) for name in scores["variant"]]
    tuned = scores.assign(task=[v.task for v in named], share=[v.share for v in named], seed=[v.seed for v in named],
                          condition=[v.name.rpartition("-s")[0] for v in named])  # fmt: skip
    known = Evidence(titles, _of_layers(counts) | _of_neurons(tests), tuned, architectures)
    asked = [a for study in titles for a in _within(known, study)] + _between_architectures(known)
    return pd.DataFrame([row for a in sorted(asked, key=lambda a: a.measure.claim) for row in _judged(known, a)])


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
    return len(drop) - np.logical_and.accumulate(drop[::-1] > POINT).sum(0).astype(float)


def overview(judged: pd.DataFrame) -> pd.DataFrame:
    """One row per claim and measure, one column per encoder or pair: each verdict with the comparisons that came to it
    and their effects. What could not be tested is named only where nothing could."""

    def cell(found: pd.DataFrame) -> str:
        testable = found[found["verdict"] != NOT_TESTABLE]
        said = []
        for verdict, rows in testable.groupby(pd.Categorical(testable["verdict"], ORDER), observed=True):
            named = rows["compared"].str.removesuffix(" vs pretrained")
            if testable["property"].nunique() > 1:
                named += " " + rows["property"]
            effects = (f"{name} {effect:+.2f}" for name, effect in zip(named, rows["effect"], strict=True))
            said.append(f"{verdict} ({', '.join(effects)})")
        return "; ".join(said) or NOT_TESTABLE

    named = judged.assign(measure=judged["measure"] + " (" + judged["unit"] + ")")
    keys = ["claim", "measure", "encoder"]
    cells = [(*key, cell(rows)) for key, rows in named.groupby(keys, sort=False)]
    table = pd.DataFrame(cells, columns=[*keys, "verdicts"])
    wide = table.pivot_table("verdicts", keys[:2], "encoder", aggfunc="first", fill_value="", sort=False)
    return wide[judged["encoder"].unique()].rename_axis(columns=None).reset_index()


def to_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, without its index."""
    rows = [[*table.columns], ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows)


def _of_layers(counts: pd.DataFrame) -> dict[Key, np.ndarray]:
    mine = pick(counts, source="gold", words="all", labels="real", split="test")
    if mine.groupby("study")["text"].agg(frozenset).nunique() > 1:
        raise ValueError("the studies were not probed on the same test texts: judge each alone")
    if mine.empty:
        return {}
    cells, right, total = results.by_text(mine, "test")
    points = 100 * np.column_stack([right.sum(1) / total.sum(1), results.resampled(right, total, seed=0)])
    accuracy = {key: points[rows.sort_values("layer").index] for key, rows in cells.groupby(results.NAMED)}
    values = {}
    for (study, variant, name), now in accuracy.items():
        before, floor = (accuracy.get((study, v, name)) for v in ("pretrained", "random"))
        found = {LAYERS: np.array([len(now)])}
        if before is not None:
            found |= {TASKS.name: top_third(before - now), DEPTH.name: depth(before - now)}
        if before is not None and floor is not None:
            found |= {CENTRE.name: gravity(now - floor), SHIFT.name: gravity(now - floor) - gravity(before - floor)}
        values |= {(measure, study, variant, name): value for measure, value in found.items()}
    return values


def _of_neurons(tests: pd.DataFrame) -> dict[Key, np.ndarray]:
    order, kept = pick(tests, source="gold", kind="layer"), pick(tests, source="gold", split="test")
    kept = kept[kept["kind"].isin(["keep-top", "keep-random"])]
    found = {MIDDLE.name: results.centre(order, "neurons"), SPREAD.name: results.entropy(order, "neurons")}
    found[MARGIN] = {key: results.margin(rows) for key, rows in kept.groupby(results.NAMED)}
    return {(measure, *key): np.array([value]) for measure, of in found.items() for key, value in of.items()}


def _value(known: Evidence, measure: str, side: tuple, seed: int, name: str) -> np.ndarray:
    """Mean of a measure over the runs of one seed, [1 + resamples] or [1]; NaN where one has none."""
    keys = [(measure, s, c if c == "pretrained" else f"{c}-s{seed}", name) for s, c in side]
    return sum(known.values.get(key, NAN) for key in keys) / len(keys)


def _tasks(known: Evidence, study: str) -> list[str]:
    """The tasks that a study's encoder was fine-tuned on in full, learnt or not."""
    return list(dict.fromkeys(pick(known.tuned, study=study).query("task == condition")["task"]))


def _seeds(known: Evidence, parts: tuple) -> list[int]:
    """The seeds of which each of these conditions has a run that learnt its task."""
    each = [set(pick(known.tuned, study=s, condition=c, learnt=True)["seed"]) for s, c in parts if c != "pretrained"]
    return sorted(set.intersection(*each)) if each else []


def _within(known: Evidence, study: str) -> list[Comparison]:
    """What C1, C2 and C4 compare in one encoder; what they cannot, as a comparison of nothing."""

    def compare(measure: Measure, these: list[str], those: list[str]) -> Comparison:
        sides = (tuple((study, condition) for condition in side) for side in (these, those))
        return Comparison(measure, known.titles[study], f"{', '.join(these)} vs {', '.join(those)}", *sides)

    tasks, mine = _tasks(known, study), pick(known.tuned, study=study)
    forget, keep = ([t for t in group if t in tasks and _seeds(known, ((study, t),))] for group in (FORGET, KEEP))
    fewer = mine[(mine["share"] < 1) & mine["task"].isin(tasks)]
    asked = [compare(TASKS, [a], [b]) for a, b in combinations(tasks, 2)]
    named = f"forget ({', '.join(forget)}) vs keep ({', '.join(keep)})"
    asked += [replace(compare(GROUPS, forget, keep), compared=named)] if forget and keep else []
    asked += [compare(m, [task], ["pretrained"]) for m in (CENTRE, MIDDLE, SPREAD) for task in tasks]
    asked += [compare(UPDATES, [a], [b]) for a, b in dict.fromkeys(zip(fewer["task"], fewer["condition"], strict=True))]
    absent = [m for m in (TASKS, GROUPS, CENTRE, UPDATES) if m not in [a.measure for a in asked]]
    return asked + [Comparison(measure, known.titles[study]) for measure in absent]


def _between_architectures(known: Evidence) -> list[Comparison]:
    """What C3 compares; a pair that it cannot compare, or that there is no pair, as a comparison of nothing."""
    berts, others = ([s for s in known.titles if known.architectures[s] in kind] for kind in ((BERT,), OTHERS))
    if len(berts) != 1 or not others:
        return [Comparison(DEPTH, " vs ".join(known.titles.values()))]
    asked, bert = [], berts[0]
    layers = {study: int(value[0]) for (measure, study, *_), value in known.values.items() if measure == LAYERS}
    for other in others:
        pair = f"{known.titles[bert]} vs {known.titles[other]}"
        tasks = dict.fromkeys(_tasks(known, bert) + _tasks(known, other))
        every = [(m, t) for m in (DEPTH, SHIFT) for t in tasks if layers.get(bert) == layers.get(other)]
        asked += [Comparison(m, pair, t, ((bert, t),), ((other, t),)) for m, t in every] or [Comparison(DEPTH, pair)]
    return asked


def _judged(known: Evidence, asked: Comparison) -> list[dict]:
    parts = asked.these + asked.those
    studies, seeds = {study for study, _ in parts}, _seeds(known, parts)
    names = {name for measure, study, _, name in known.values if measure == asked.measure.name and study in studies}
    return [_row(known, asked, name, seeds) for name in sorted(names) if seeds] or [_row(known, asked, "", seeds)]


def _row(known: Evidence, asked: Comparison, name: str, seeds: list[int]) -> dict:
    m, sides = asked.measure, (asked.these, asked.those)
    draws = [np.subtract(*(_value(known, m.name, side, s, name) for side in sides)) for s in seeds] or [NAN]
    per_seed, mean = np.array([d[0] for d in draws]), sum(draws) / len(draws)
    low, high = np.nanquantile(mean[1:], [0.025, 0.975]) if len(mean) > 1 and np.isfinite(mean[0]) else (np.nan, np.nan)
    weak = [c for s, c in sum(sides, ()) if name and m in (MIDDLE, SPREAD)
            and not all(_value(known, MARGIN, ((s, c),), seed, name)[0] > 0 for seed in seeds)]  # fmt: skip
    decided = UNDECIDED if weak else verdict(per_seed, low, high, m.threshold, m.expected)
    row = {
        "claim": m.claim, "encoder": asked.encoder, "compared": asked.compared, "property": name, "measure": m.name,
        "effect": mean[0], "low": low, "high": high, "unit": m.unit, "threshold": m.threshold, "seeds": len(seeds),
        "same_sign": abs(np.sign(per_seed).sum()) == len(draws),
        "per_seed": " ".join(f"{effect:+.3f}" for effect in per_seed[: len(seeds)]),
        "verdict": NOT_TESTABLE if np.isnan(mean[0]) else decided,
    }  # fmt: skip
    return row | {"sentence": f"{_said(row, m, asked)}{_remarks(known, asked, weak)}."}


def _said(row: dict, m: Measure, asked: Comparison) -> str:
    where = [part.replace(" vs ", " minus ") for part in (asked.encoder, asked.compared, row["property"]) if part]
    what = f"{m.name[0].upper()}{m.name[1:]}, {', '.join(where)}: "
    if row["verdict"] == NOT_TESTABLE:
        lacking = asked.these and not row["seeds"]
        return what + ("there is no seed in which each of them was learnt" if lacking else f"it needs {m.needs}")
    interval = f"95 % interval {row['low']:+.2f} to {row['high']:+.2f}"
    interval = f"no interval: {MIN_SEEDS} seeds decide" if np.isnan(row["low"]) else interval
    signs = f"{row['seeds']} seeds {'' if row['same_sign'] else 'not '}of one sign" if row["seeds"] > 1 else "1 seed"
    hope = {1: "more than ", -1: "less than -", 0: "beyond ±"}[m.expected]
    return f"{what}{row['effect']:+.2f} {m.unit} ({interval}; {signs}); the claim expects {hope}{m.threshold:g}"


def _remarks(known: Evidence, asked: Comparison, weak: list[str]) -> str:
    runs = [(s, pick(known.tuned, study=s, condition=c)) for s, c in asked.these + asked.those if c != "pretrained"]
    updates = [f"{mine['condition'].iloc[0]} {mine['updates'].max()}" for _, mine in runs if len(mine)]
    failed = [f"{known.titles[s]} {v}" for s, mine in runs for v in pick(mine, learnt=False)["variant"]]
    found = {"updates": updates, "left out, task not learnt": failed, "neurons no better than random": weak}
    found["different tasks at the same number of updates"] = ["C1"] if asked.measure == UPDATES else []
    return "".join(f"; {what}: {', '.join(names)}" for what, names in found.items() if names)

"""Evidence: what is known of runs, our own or as printed, in the form that claims are judged by."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd

from lib import encoders, neurons, results
from lib.results.summary import VARIANT, pick
from lib.study.runs import Run

REFERENCE = "bert"
"""The architecture that others are compared with."""

WHOLE = {"amount": "", "dropped": "", "rate": "", "checkpoint": -1}
"""The columns of a variant with all layers, examples and updates, at the study's learning rate."""


Key = tuple[str, str, str, int, str]


@dataclass(frozen=True)
class Evidence:
    """Numbers of runs, our own or as printed.

    ``titles`` : study → title of its encoder. ``architectures`` : study → ``model_type`` of its encoder's config.json.
    ``tuned`` : one row per fine-tuned run: study, the columns of the variant, ``learnt``. ``values`` : (measure, study,
    condition, seed, property) → [layers, 1 + resamples], of all texts first; one layer if the measure has none, seed -1
    before fine-tuning, no property of a score. ``words`` : the same keys → [layers, half-samples], by rankings learnt
    from half of the words, two halves after each other. ``printed`` : means without a spread; effect and margin decide
    alone.

    Measures, in per cent or counts: ``layer`` (accuracy of its probe); ``all``, ``top``, ``bottom`` (of a probe on
    these neurons), ``selected`` (``top``, beside ``all`` in one table); ``top per layer``, ``bottom per layer`` (how
    many); ``ranked`` (keep-top minus keep-random); ``score``.
    """

    titles: dict[str, str]
    architectures: dict[str, str]
    tuned: pd.DataFrame
    values: dict[Key, np.ndarray]
    words: dict[Key, np.ndarray] = field(default_factory=dict)
    printed: bool = False

    @property
    def measures(self) -> set[str]:
        """All measures that there are."""
        return {key[0] for key in self.values}

    def conditions(self, study: str, measure: str, **where: object) -> dict[str, str]:
        """Condition → its task, of a study's trainings that have a measure; ``where`` : columns of the variant, of all
        layers, updates and examples if none is given."""
        rows = pick(self.tuned, study=study, **(where or WHOLE)).drop_duplicates("condition")
        known = {key[2] for key in self.values if key[:2] == (measure, study)}
        return {row.condition: row.task for row in rows.itertuples() if row.condition in known}

    def learnt(self, tasks: Iterable[str], *studies: str) -> list[str]:
        """The tasks that these studies all learnt in some seed."""
        return [task for task in tasks if self.seeds(*product(studies, [task]))]

    def each(self, measure: str) -> Iterator[tuple[str, str, list[str]]]:
        """Study, property, and the tasks that were trained in full, where there are any."""
        for study in self.titles:
            if tasks := [*self.conditions(study, measure)]:
                for name in self.properties(measure, study):
                    yield study, name, tasks

    @property
    def berts(self) -> list[str]:
        """The studies of BERT's architecture."""
        return [study for study in self.titles if self.architectures[study] == REFERENCE]

    def pairs(self, measure: str) -> Iterator[tuple[str, str, str, list[str]]]:
        """RoBERTa or XLNet, the only BERT, property, and the tasks of both; encoders of unlike depth are no pair."""
        others = [study for study in self.titles if self.architectures[study] in ("roberta", "xlnet")]
        for other, bert in product(others, self.berts if len(self.berts) == 1 else []):
            tasks = [task for task in self.conditions(other, measure) if task in self.conditions(bert, measure)]
            if tasks and self.depth(other) == self.depth(bert):
                for name in self.properties(measure, other, bert):
                    yield other, bert, name, tasks

    def depth(self, study: str) -> int:
        """How many layers the probes of a study's whole encoder read; 0 if there are none."""
        return next((len(v) for key, v in self.values.items() if key[:3] == ("layer", study, "pretrained")), 0)

    def properties(self, measure: str, *studies: str) -> list[str]:
        """The properties that all these studies have a measure of."""
        return sorted(set.intersection(*({k[4] for k in self.values if k[:2] == (measure, s)} for s in studies)))

    def seeds(self, *runs: tuple[str, str]) -> list[int]:
        """The seeds in which every fine-tuned one of ``runs`` (study, condition) learnt its task; [-1] if none is
        fine-tuned. An encoder without some of its layers need not have: whether it can is what is asked of it."""
        found = []
        for study, condition in runs:
            if condition != "pretrained":
                rows = pick(self.tuned, study=study, condition=condition)
                found.append({*rows.loc[rows["learnt"].astype(bool) | (rows["dropped"] != ""), "seed"]})
        return sorted(set.intersection(*found)) if found else [-1]

    def numbers(self, measure: str, name: str, *runs: tuple[str, str]) -> list[np.ndarray]:
        """A measure of each run in all ``seeds`` of them, [layers, seeds, 1 + resamples]."""
        return self._of(self.values, measure, name, runs)

    def halves(self, measure: str, name: str, *runs: tuple[str, str]) -> list[np.ndarray] | None:
        """As ``numbers``, [layers, seeds, half-samples]; None if a run has not two of them."""
        try:
            found = self._of(self.words, measure, name, runs)
        except KeyError:
            return None
        return found if all(own.shape[-1] > 1 for own in found) else None

    def _of(self, known: dict[Key, np.ndarray], measure: str, name: str, runs: Iterable[tuple[str, str]]) -> list:
        seeds, found = self.seeds(*runs), []
        for study, condition in runs:
            every = sorted(pick(self.tuned, study=study, condition=condition)["seed"]) or [-1]
            stacked = np.stack([known[measure, study, condition, seed, name] for seed in every], 1)
            found.append(stacked[:, np.isin(every, seeds)] if every != [-1] else stacked.repeat(len(seeds), 1))
        return found

    def losses(self, measure: str, name: str, *runs: tuple[str, str]) -> list[np.ndarray]:
        """A measure before minus after the fine-tuning of each run, [layers, seeds, 1 + resamples]."""
        before = {study: self.values[measure, study, "pretrained", -1, name][:, None] for study, _ in runs}
        after = self.numbers(measure, name, *runs)
        return [before[study] - own for (study, _), own in zip(runs, after, strict=True)]


def evidence(wanted: list[Run], ranking: str = "lca") -> Evidence:
    """What is known of these runs: gold properties, all words of the test split, the neurons of one ranking.

    Raises
    ------
    ValueError : the studies have different corpora for a property, were not probed on the same texts, or one lacks the
        encoder before fine-tuning.
    """
    for name in dict.fromkeys(name for run in wanted for name in run.study.properties):
        first, *others = (run.study.corpus_of(name) for run in wanted if name in run.study.properties)
        if any(corpus != first for corpus in others):
            raise ValueError(
                f"the studies have different corpora for '{name}': give them the same, or judge each alone"
            )
    titles = {run.study.name: run.study.title for run in wanted}
    if lacking := sorted({*titles} - {run.study.name for run in wanted if run.variant.name == "pretrained"}):
        raise ValueError(f"{', '.join(lacking)}: every claim needs the variant pretrained; add it")
    unlike, ranked = len(set(titles.values())) == len(titles), results.ranked(wanted)
    found = evidence_of(
        {name: title if unlike else f"{title} ({name})" for name, title in titles.items()},
        {run.study.name: encoders.architecture(run.study) for run in wanted},
        results.task_scores(wanted),
        results.resampled_scores(wanted),
        results.layers(wanted, target="real", word_group="all", split="test"),
        results.neuron_sets(ranked),
        {end: results.neuron_layers(ranked, end) for end in neurons.ENDS},
        results.neuron_halves(ranked),
        results.neuron_tests(ranked),
        ranking,
    )
    if 1 < len(berts := found.berts) < len(titles):
        print(f"nothing is compared with BERT (P2, P3, P8): {', '.join(berts)} all are. Select one of them: STUDIES=")
    return found


def evidence_of(
    titles: dict[str, str],
    architectures: dict[str, str],
    scores: pd.DataFrame,
    resampled_scores: dict[tuple[str, str, int], np.ndarray],
    counts: pd.DataFrame,
    sets: pd.DataFrame,
    neuron_layers: dict[str, pd.DataFrame],
    halves: pd.DataFrame,
    tests: pd.DataFrame,
    ranking: str = "lca",
) -> Evidence:
    """``evidence`` of tables as ``results`` gives them; ``resampled_scores`` : of the runs that have an accuracy,
    ``neuron_layers`` : of the top and of the bottom neurons, ``halves`` : of both, of half-samples of the words."""
    gold, run = {"source": "gold", "target": "real"}, ["study", "condition", "seed", "property"]
    counts, sets = pick(counts, **gold, word_group="all", split="test"), pick(sets, **gold, ranking=ranking)
    texts = counts.groupby(["property", "study"])["text"].agg(frozenset)
    if texts.groupby("property").nunique().gt(1).any():
        raise ValueError("the studies were not probed on the same test texts: judge each alone")
    values, words = {}, {}
    if len(counts):
        cells, _, accuracy = results.resampled(counts, "test", seed=0)
        for key, rows in cells.groupby(run):
            values["layer", *key] = 100 * accuracy[rows.sort_values("layer").index]
    if len(sets):
        cells, _, accuracy = results.resampled(sets, "test", 0, ["study", *VARIANT, "property", "neurons"])
        for (which, *key), rows in cells.groupby(["neurons", *run]):
            values[which, *key] = 100 * accuracy[rows.index]
            if which == "top":
                values["selected", *key] = values[which, *key]
    for end, table_of_end in neuron_layers.items():
        for key, rows in pick(table_of_end, source="gold", ranking=ranking).groupby(run):
            values[f"{end} per layer", *key] = rows.sort_values("layer")[["neurons"]].to_numpy(float)
    for (end, *key), rows in pick(halves, source="gold", ranking=ranking).groupby(["end", *run]):
        drawn = rows.pivot(index="layer", columns="sample", values="neurons").to_numpy(float)
        words[f"{end} per layer", *key] = drawn
        if "accuracy" in rows and rows["accuracy"].notna().all():
            words[end, *key] = 100 * rows.groupby("sample")["accuracy"].first().to_numpy()[None]
            words["selected" if end == "top" else end, *key] = words[end, *key]
    for key, rows in pick(tests, source="gold", ranking=ranking, split="test").groupby(run):
        values["ranked", *key] = np.array([[results.margin(rows)]])
    for row in scores.itertuples():
        key = (row.study, row.condition, row.seed)
        noise = np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal(results.RESAMPLES)
        of_correlation = row.score + np.append(0, noise) / np.sqrt(row.test)
        values["score", *key, ""] = 100 * resampled_scores.get(key, of_correlation)[None]
    return Evidence(titles, architectures, scores, values, words)

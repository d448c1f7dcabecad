"""Neurons: which of them carry a property (Linguistic Correlation Analysis, Dalvi et al. 2019), and where they lie.

A neuron is (layer, unit), numbered ``layer · width + unit``. One elastic-net probe is trained on all neurons of all
layers. A ranking orders the neurons; it is tested by retraining on its first n and by zeroing all but n.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import encoders, probes
from lib.encoders import activations
from lib.encoders.activations import Activations
from lib.probes.labels import Labels
from lib.probes.linear import Probe, ProbeSpec, Vectors
from lib.study import runs
from lib.study.params import RankingSettings
from lib.study.runs import Run

ENDS = ("top", "bottom")
"""The ends of a ranking whose neurons are counted, and tested by a probe of their own."""

# Rankings -------------------------------------------------------------------------------------------------------


def mass_at_entry(weight: np.ndarray, steps: int) -> np.ndarray:
    """When each neuron enters the ranking, if it is ordered by growing mass.

    At mass p, a label's top neurons are the shortest prefix of its neurons, sorted by |weight|, whose summed |weight|
    reaches p of the label's total (at p = 0 still one neuron). A neuron enters at the first p = s/steps at which it is
    in the prefix of some label.

    Parameters
    ----------
    weight : [labels, neurons].

    Returns
    -------
    [neurons] the step s in 0 … steps, or steps + 1 for a neuron that no label needs even at p = 1 (all weights 0).
    """
    size = np.abs(weight)
    by_size = np.argsort(-size, axis=1, kind="stable")
    ranked = np.take_along_axis(size, by_size, 1).astype(np.float64)
    before = np.cumsum(ranked, 1) - ranked  # the mass that precedes each neuron in its label's order
    total = ranked.sum(1, keepdims=True)
    entry = np.floor(before / np.where(total > 0, total, 1) * steps + 1e-9) + 1
    entry[:, 0] = 0
    entry[(ranked == 0) | (before >= total)] = steps + 1  # no label needs it
    return np.take_along_axis(entry, np.argsort(by_size, axis=1), 1).min(0).astype(int)


def ordering(weight: np.ndarray, steps: int = 1000) -> np.ndarray:
    """All neurons, most important first: [neurons] numbers, a permutation.

    Neurons are sorted by the mass step at which they enter (``mass_at_entry``), within a step by their largest
    |weight|, then by number: unlike in the authors' toolkit the order is total.
    """
    return np.lexsort((np.arange(weight.shape[1]), -np.abs(weight).max(0), mass_at_entry(weight, steps)))


@dataclass(frozen=True)
class Ranked:
    """A ranking of one property.

    ``order`` : [neurons] numbers, most important first. ``weight`` : [ranked labels, neurons] of the all-neuron probe.
    ``labels`` : the names of the rows (labels frequent enough to be ranked). ``shape`` : layers, width.
    """

    property: str
    ranking: str
    order: np.ndarray
    weight: np.ndarray
    labels: list[str]
    shape: tuple[int, int]

    def count(self, fraction: float) -> int:
        """How many neurons a fraction of all is; at least one."""
        return max(1, round(fraction * len(self.order)))

    def from_(self, end: str) -> "Ranked":
        """The same neurons, ordered from the ``top`` or from the ``bottom``."""
        return self if end == "top" else replace(self, order=self.order[::-1])

    def per_layer(self, fraction: float) -> np.ndarray:
        """[layers] how many of the top ``fraction`` lie in each layer."""
        layers, width = self.shape
        return np.bincount(self.order[: self.count(fraction)] // width, minlength=layers)

    def top(self, mass: float) -> dict[str, np.ndarray]:
        """Label → its top neurons: the shortest prefix of its neurons, by |weight|, that reaches this ``mass``."""
        size = np.abs(self.weight)
        order = np.argsort(-size, axis=1, kind="stable")
        reached = np.cumsum(np.take_along_axis(size, order, 1), axis=1)
        needed = [np.searchsorted(r, mass * row.sum() * (1 - 1e-9)) + 1 for r, row in zip(reached, size, strict=True)]
        return {label: row[:n] for label, row, n in zip(self.labels, order, needed, strict=True)}


def lca(weight: np.ndarray, X: np.ndarray, y: np.ndarray, settings: RankingSettings) -> np.ndarray:
    """Linguistic Correlation Analysis (Dalvi et al. 2019): the probe's weights order the neurons."""
    return ordering(weight, settings.mass_steps)


RANKINGS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, RankingSettings], np.ndarray]] = {"lca": lca}
"""Name → a total order of all neurons: [neurons] numbers, most important first. Its arguments: ``weight`` [labels,
neurons] of the all-neuron probe, ``X`` [layers, words, width], the training words, ``y`` [words] label numbers (-1: too
rare to be ranked), and the settings."""


def rank(labels: Labels, weight: np.ndarray, X: np.ndarray, settings: RankingSettings) -> list[Ranked]:
    """All rankings of a property, by the labels that are frequent enough. ``weight``, ``X`` : as in ``RANKINGS``.

    Raises ValueError if no label is frequent enough.
    """
    ids, least = labels.ids["train"], settings.min_label_words
    frequent = np.flatnonzero(np.bincount(ids, minlength=len(labels.names)) >= least)
    if not len(frequent):
        raise ValueError(
            f"property '{labels.property}': no label has {least} training words; lower ranking.min_label_words"
        )
    y = pd.Index(frequent).get_indexer(ids)
    weight, shape = weight[frequent].astype(np.float32), (len(X), X.shape[2])
    names = [labels.names[i] for i in frequent]
    return [
        Ranked(labels.property, name, order(weight, X, y, settings), weight, names, shape)
        for name, order in RANKINGS.items()
    ]


def minimal_set(accuracy: dict[int, float], delta: float) -> int:
    """The smallest number of neurons whose accuracy exceeds (1 - delta) of that with all neurons."""
    full = accuracy[max(accuracy)]
    return min(n for n, reached in accuracy.items() if reached > (1 - delta) * full or n == max(accuracy))


def search_score(top: float, bottom: float, free: float, penalised: float) -> float:
    """LCA's score of a penalty: ½(A_top - A_bottom) - ½(A_unpenalised - A_penalised)."""
    return 0.5 * (top - bottom) - 0.5 * (free - penalised)


# The rankings of a run, and their tests --------------------------------------------------------------------------


def ensure_tests(run: Run) -> pd.DataFrame:
    """What the neurons of a run can do: read if it is up to date, else computed now.

    One row per property, ranking, test, number of neurons and split (dev, test), with its accuracy. ``test`` : retrain
    (a probe on the ranking's first ``neurons``), or keep-top, keep-random, keep-bottom (the all-neuron probe with all
    other neurons zeroed). ``l1`` is the penalty of all these probes: the probe retrained on all neurons is therefore
    the all-neuron probe itself.
    """
    return pd.read_parquet(_ensure(run) / "tests.parquet")


def ensure_rankings(run: Run, ranking: str = "lca") -> dict[str, Ranked]:
    """A ranking of the neurons for each of a run's properties: read if it is up to date, else computed now."""
    saved = np.load(_ensure(run) / "rankings.npz", allow_pickle=False)
    shape = tuple(saved["shape"].tolist())
    return {
        name: Ranked(
            name,
            ranking,
            saved[f"{name}.{ranking}.order"],
            saved[f"{name}.weight"],
            saved[f"{name}.labels"].tolist(),
            shape,
        )
        for name in run.study.properties
    }


def ensure_layers(run: Run) -> pd.DataFrame:
    """How many of a ranking's top and bottom neurons (``ranking.top``) lie in each layer: property, ranking, end (top,
    bottom), layer, neurons."""
    return pd.read_parquet(_ensure(run) / "layers.parquet")


def ensure_halves(run: Run) -> pd.DataFrame:
    """As ``ensure_layers``, of rankings that are learnt from half of the training texts: ``sample``, numbered from 0,
    each odd one from the texts that the one before it lacks; ``accuracy`` on the test words, of a probe retrained on
    these top or bottom neurons (on all training words). Without rows unless ``ranking.half_samples`` asks for them."""
    return pd.read_parquet(_ensure(run) / "halves.parquet")


def ensure_sets(run: Run) -> pd.DataFrame:
    """Counts of correct predictions of probes retrained on all, on the top and on the bottom neurons.

    One row per property, ranking, neurons (all, top, bottom), target, split (dev, test) and text: ``correct`` of
    ``total``. Where nothing was fine-tuned, ``target`` is real or control, so that selectivity can be told; else real.
    """
    return pd.read_parquet(_ensure(run) / "sets.parquet")


def _ensure(run: Run) -> Path:
    """The folder of the step's result: ``tests``, ``layers``, ``halves`` and ``sets.parquet``, and ``rankings.npz``."""
    return runs.ensure(run, "neurons", lambda folder: _rank_and_test(run, folder))


def _rank_and_test(run: Run, folder: Path) -> None:
    """Rank and test the neurons on all corpora of the run, one after another, and write the five files."""
    tested = [_rank_and_test_on(run, corpus) for corpus in run.study.corpora_in_use]
    pd.concat([tests for tests, *_ in tested]).to_parquet(folder / "tests.parquet", index=False)
    pd.concat([sets for _, sets, *_ in tested]).to_parquet(folder / "sets.parquet", index=False)
    ranks = [ranked for _, _, ranks, _ in tested for ranked in ranks]
    halves = [halves for *_, halves in tested if halves is not None]
    _per_layer(run, [(0, ranked) for ranked in ranks]).drop(columns="sample").to_parquet(
        folder / "layers.parquet", index=False
    )
    (pd.concat(halves) if halves else _per_layer(run, [])).to_parquet(folder / "halves.parquet", index=False)
    arrays = {f"{r.property}.{r.ranking}.order": r.order for r in ranks}
    arrays |= {f"{r.property}.weight": r.weight for r in ranks} | {f"{r.property}.labels": r.labels for r in ranks}
    np.savez_compressed(folder / "rankings.npz", allow_pickle=False, shape=ranks[0].shape, **arrays)


@dataclass(frozen=True)
class _AllNeurons:
    """A label set, the probe of it on all neurons, and λ1 and λ2 of that probe and of those retrained on some."""

    labels: Labels
    probe: Probe
    penalty: tuple[float, float]


def _rank_and_test_on(run: Run, corpus: str) -> tuple[pd.DataFrame, pd.DataFrame, list[Ranked], pd.DataFrame | None]:
    """The tests, the counts of the sets, the rankings, and the table of half-samples (None where there are none), of
    the properties of one corpus."""
    study, stores = run.study, activations.ensure(run, corpus)
    words = {split: store.words for split, store in stores.items()}
    vectors = {split: probes.held(store.vectors, encoders.device(study)) for split, store in stores.items()}
    learnt = _all_neuron_probes(run, vectors, words, study.corpora_in_use[corpus][1])
    ranks = [
        ranked
        for (_, target), own in learnt.items()
        if target == "real"
        for ranked in rank(own.labels, own.probe.weight[0].cpu().numpy(), stores["train"].vectors, study.ranking)
    ]
    sizes = sorted({ranks[0].count(fraction) for fraction in study.ranking.sizes})
    retrained = _retrain(run, vectors["train"], _chosen(run, ranks, learnt, sizes))
    on_halves, tests, sets = _on_halves(run, stores["train"], vectors["train"], learnt), [], []
    for split, ranked in product(("dev", "test"), ranks):
        X, texts, name = vectors[split], probes.text_ids(words[split]), ranked.property
        shuffled = np.random.default_rng(study.seed).permutation(ranked.order)
        orders = {"keep-top": ranked.order, "keep-random": shuffled, "keep-bottom": ranked.order[::-1]}
        real, cell = learnt[name, "real"], {"property": name, "ranking": ranked.ranking, "split": split}
        guesses = {key[2:]: p.predict(X)[0][0] for key, p in retrained.items() if key[:2] == (name, ranked.ranking)}
        predicted = ablate(real.probe, X, orders, sizes)
        guesses["real", "all", sizes[-1]] = predicted["keep-top"][-1]
        predicted["retrain"] = np.array([guesses["real", "all" if n == sizes[-1] else "top", n] for n in sizes])
        for test, by_size in predicted.items():
            accuracy = (by_size == real.labels.ids[split]).mean(1)
            penalty = dict(zip(("l1", "l2"), real.penalty, strict=True))
            tests.append(pd.DataFrame({**cell, "test": test, "neurons": sizes, "accuracy": accuracy, **penalty}))
        if (name, "control") in learnt:
            guesses["control", "all", sizes[-1]] = learnt[name, "control"].probe.predict(X)[0][0]
        for (target, which, n), guess in guesses.items():
            if which != "top" or n == ranked.count(study.ranking.top_of(name)):
                right = guess == learnt[name, target].labels.ids[split]
                sets.append(probes.counts_by_text(texts, right, cell | {"neurons": which, "target": target}))
    halves = _tested_halves(run, vectors, on_halves, learnt) if on_halves else None
    return pd.concat(tests), pd.concat(sets), ranks, halves


def _per_layer(run: Run, ranks: list[tuple[int, Ranked]]) -> pd.DataFrame:
    """How many of the top and of the bottom neurons lie in each layer. ``ranks`` : with the number of their sample."""
    rows = [
        [r.property, r.ranking, sample, end, layer, int(neurons)]
        for sample, r in ranks
        for end in ENDS
        for layer, neurons in enumerate(r.from_(end).per_layer(run.study.ranking.top_of(r.property)))
    ]
    return pd.DataFrame(rows, columns=["property", "ranking", "sample", "end", "layer", "neurons"])


def _on_halves(
    run: Run, store: Activations, vectors: Vectors, learnt: dict[tuple[str, str], _AllNeurons]
) -> list[tuple[int, Ranked]]:
    """Rankings that are learnt from half of the texts, with the numbers of their samples. ``vectors`` : the store's."""
    study, found = run.study, []
    real = [own for (_, target), own in learnt.items() if target == "real"]
    specs = [ProbeSpec([own.labels.target], "all", *own.penalty) for own in real]
    codes = probes.text_ids(store.words).codes
    for sample in range(study.ranking.half_samples):
        shuffled = np.random.default_rng([study.seed, sample // 2]).permutation(codes.max() + 1)
        half = np.array_split(shuffled, 2)[sample % 2]
        chosen, device = np.flatnonzero(np.isin(codes, half)), encoders.device(study)
        title = f"half-sample {sample + 1} of {study.ranking.half_samples}"
        fitted = probes.fit_specs(vectors, specs, study.probe, study.seed, device, title, chosen)
        for own, probe in zip(real, fitted, strict=True):
            weight = probe.weight[0].cpu().numpy()
            found += [(sample, ranked) for ranked in rank(own.labels, weight, store.vectors, study.ranking)]
    return found


def _tested_halves(
    run: Run,
    vectors: dict[str, Vectors],
    halves: list[tuple[int, Ranked]],
    learnt: dict[tuple[str, str], _AllNeurons],
) -> pd.DataFrame:
    """Where the neurons lie that half-samples choose, and how well probes do on them: as ``ensure_halves``."""
    chosen = {}
    for (sample, ranked), end in product(halves, ENDS):
        scope = ranked.from_(end).order[: ranked.count(run.study.ranking.top_of(ranked.property))]
        chosen[ranked.property, ranked.ranking, sample, end] = (learnt[ranked.property, "real"], scope)
    rows = [
        (*key, (probe.predict(vectors["test"])[0][0] == chosen[key][0].labels.ids["test"]).mean())
        for key, probe in _retrain(run, vectors["train"], chosen, "retrained, by half-samples").items()
    ]
    cell = ["property", "ranking", "sample", "end"]
    return _per_layer(run, halves).merge(pd.DataFrame(rows, columns=[*cell, "accuracy"]), on=cell)


def _all_neuron_probes(
    run: Run, vectors: dict[str, Vectors], words: dict[str, pd.DataFrame], properties: list[str]
) -> dict[tuple[str, str], _AllNeurons]:
    """Property and target (real; control too where nothing was fine-tuned) → the probe on all neurons. Of several
    penalties, the best by LCA's search score on the dev split."""
    study, grid = run.study, run.study.ranking.l1
    real = [probes.label_set(words, name) for name in properties]
    sets = real + ([] if run.variant.task else [probes.control(words, labels, study.seed) for labels in real])
    if tried := sorted({0.0, *grid}) if len(grid) > 1 else grid:
        specs = [ProbeSpec([s.target for s in sets], "all", value, value) for value in tried]
    else:
        specs, sets = probes.by_penalty(run, sets, "all")
    device = encoders.device(study)
    fitted = probes.fit_specs(vectors["train"], specs, study.probe, study.seed, device, "all-neuron probe")
    if len(grid) > 1:
        best = _best(tried, fitted, real, vectors["dev"], study.ranking)
        specs, fitted = [specs[best]], [fitted[best]]
    own = [(probe, (spec.l1, spec.l2)) for spec, every in zip(specs, fitted, strict=True) for probe in every.split()]
    return {
        (labels.property, "control" if labels.control else "real"): _AllNeurons(labels, *one)
        for labels, one in zip(sets, own, strict=True)
    }


def _best(tried: list[float], fitted: list[Probe], real: list[Labels], dev: Vectors, settings: RankingSettings) -> int:
    """Which of the penalties ``tried``, the first of them 0, has the best search score on the real labels."""
    accuracy, scores = [_mean_accuracy(probe, real, dev) for probe in fitted], {}
    for value, probe, penalised in zip(tried, fitted, accuracy, strict=True):
        order = ordering(probe.weight[0].cpu().numpy(), settings.mass_steps)
        edge = len(order) // 5
        top = _mean_accuracy(_only(probe, order[:edge]), real, dev)
        bottom = _mean_accuracy(_only(probe, order[-edge:]), real, dev)
        scores[value] = search_score(top, bottom, accuracy[0], penalised)
    return tried.index(max(settings.l1, key=lambda value: scores[value]))


def _only(probe: Probe, neurons: np.ndarray) -> Probe:
    """The probe with all neurons but these zeroed."""
    scope = torch.from_numpy(neurons).to(probe.weight.device)
    return replace(probe, weight=probe.weight[:, :, scope], scope=scope)


def _mean_accuracy(probe: Probe, real: list[Labels], X: Vectors) -> float:
    predicted = probe.predict(X)[: len(real)]  # control tasks come after them
    return float(np.mean([(p[0] == s.ids["dev"]).mean() for p, s in zip(predicted, real, strict=True)]))


def _chosen(
    run: Run, ranks: list[Ranked], learnt: dict[tuple[str, str], _AllNeurons], sizes: list[int]
) -> dict[tuple[str, str, str, str, int], tuple[_AllNeurons, np.ndarray]]:
    """Property, ranking, target, end, number of neurons → the labels and the neurons to retrain a probe on.

    Of the real labels the top n for each size but the last, and the top and the bottom set; of a control task the top
    set.
    """
    chosen = {}
    for ranked in ranks:
        top = ranked.count(run.study.ranking.top_of(ranked.property))
        wanted = [("real", "top", n) for n in (*sizes[:-1], top)] + [("real", "bottom", top), ("control", "top", top)]
        for target, end, n in wanted:
            if own := learnt.get((ranked.property, target)):
                chosen[ranked.property, ranked.ranking, target, end, n] = (own, ranked.from_(end).order[:n])
    return chosen


def _retrain(
    run: Run,
    vectors: Vectors,
    chosen: Mapping[Any, tuple[_AllNeurons, np.ndarray]],
    title: str = "retrained on some neurons",
) -> dict[Any, Probe]:
    """Probes on some neurons only, all in one pass. ``chosen`` : their labels and neurons."""
    specs = [
        ProbeSpec([own.labels.target], torch.from_numpy(scope.copy()), *own.penalty) for own, scope in chosen.values()
    ]
    fitted = probes.fit_specs(vectors, specs, run.study.probe, run.study.seed, encoders.device(run.study), title)
    return dict(zip(chosen, fitted, strict=True))


def ablate(probe: Probe, X: Vectors, orders: dict[str, np.ndarray], sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """Predictions of an all-neuron probe with all but the first n neurons of an order zeroed, without retraining.

    ``orders`` : name → [neurons] numbers. ``sizes`` : the n, ascending. Returns name → [sizes, words] label numbers.
    """
    device = probe.weight.device
    steps = {
        name: [torch.from_numpy(n).to(device) for n in np.split(order.copy(), sizes)[: len(sizes)]]
        for name, order in orders.items()
    }
    out = {name: np.empty((len(sizes), X.shape[1]), np.int32) for name in orders}
    for rows, block in probes.blocks(X, probe.standardiser, device):
        network = probes.select(block, "all")[0]
        for name, added in steps.items():
            scores = probe.bias[0].expand(-1, len(network))
            for predicted, neurons in zip(out[name], added, strict=True):
                scores = torch.addmm(scores, probe.weight[0][:, neurons], network.index_select(1, neurons).T)
                predicted[rows] = scores.argmax(0).cpu().numpy()
    return out

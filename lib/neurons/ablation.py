"""Ablation: a run's rankings, tested by retraining on their first neurons and by zeroing all but some."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from lib import disk, encoders, probes
from lib.encoders import activations
from lib.encoders.activations import Activations
from lib.neurons.rankings import RANKINGS, Ranked, ordering, rank, search_score
from lib.probes.labels import Labels
from lib.probes.linear import Probe, ProbeSpec
from lib.study.runs import Run


def ensure_tests(run: Run) -> pd.DataFrame:
    """What the neurons of a run can do: read if it is up to date, else computed now.

    One row per property, ranking, test, number of neurons and split (dev, test), with its accuracy. ``test`` : retrain
    (a probe on the ranking's first ``neurons``), or keep-top, keep-random, keep-bottom (the all-neuron probe with all
    other neurons zeroed). ``l1`` is the penalty of all these probes; so the one retrained on all neurons is the
    all-neuron probe itself.
    """
    key = run.key("neurons")
    if disk.archive_key(run.ranking) != key:
        disk.remove(run.neurons)
    return disk.table(run.neurons, key, lambda: _rank_and_test(run))


def ensure_rankings(run: Run, ranking: str = "lca") -> dict[str, Ranked]:
    """A ranking of the neurons for each of a run's properties: read if it is up to date, else computed now."""
    ensure_tests(run)
    saved = np.load(run.ranking, allow_pickle=False)
    layers, width = saved["shape"].tolist()
    return {
        name: Ranked(
            name,
            ranking,
            saved[f"{name}.{ranking}.order"],
            saved[f"{name}.weight"],
            saved[f"{name}.labels"].tolist(),
            (layers, width),
        )
        for name in run.study.properties
    }


def ensure_layers(run: Run) -> pd.DataFrame:
    """How many of a ranking's top neurons (``ranking.top``) lie in each layer: property, ranking, layer, neurons."""
    rows = [
        {"property": name, "ranking": ranking, "layer": layer, "neurons": int(neurons)}
        for ranking in RANKINGS
        for name, ranked in ensure_rankings(run, ranking).items()
        for layer, neurons in enumerate(ranked.per_layer(run.study.ranking.top))
    ]
    return pd.DataFrame(rows)


def table(run: Run) -> pd.DataFrame:
    """LCA's rows of ``ensure_layers`` and ``ensure_tests`` in one table: ``kind`` is "layer" or the test."""
    tests = ensure_tests(run).rename(columns={"test": "kind"})
    layers = ensure_layers(run).assign(kind="layer", split="train")
    layers["l1"] = layers["property"].map(tests.groupby("property")["l1"].first())
    both = pd.concat([layers, tests]).query("ranking == 'lca'")
    return both[["property", "kind", "layer", "neurons", "split", "accuracy", "l1"]].reset_index(drop=True)


def _rank_and_test(run: Run) -> pd.DataFrame:
    """The tests of all corpora of the run, one after another; saves the rankings."""
    tested = [_rank_and_test_corpus(run, corpus) for corpus in run.study.corpora_in_use]
    _save(run, [ranked for _, ranks in tested for ranked in ranks])
    return pd.concat([tests for tests, _ in tested], ignore_index=True)


def _rank_and_test_corpus(run: Run, corpus: str) -> tuple[pd.DataFrame, list[Ranked]]:
    study, stores = run.study, activations.ensure(run, corpus)
    words = {split: store.words for split, store in stores.items()}
    sets = [probes.label_set(words, name) for name in study.corpora_in_use[corpus][1]]
    probe, l1 = _all_neuron_probe(stores, sets, run)
    cases = [
        (labels, own, ranked)
        for labels, own in zip(sets, probe.split(), strict=True)
        for ranked in rank(labels, own.weight[0].cpu().numpy(), stores["train"].vectors, study.ranking)
    ]
    sizes = sorted({cases[0][2].count(fraction) for fraction in study.ranking.sizes})
    retrained = _retrain(stores["train"], cases, sizes[:-1], l1, run)
    rows = []
    for labels, own, ranked in cases:
        first, retrained = retrained[: len(sizes) - 1], retrained[len(sizes) - 1 :]
        shuffled = np.random.default_rng(study.seed).permutation(ranked.order)
        orders = {"keep-top": ranked.order, "keep-random": shuffled, "keep-bottom": ranked.order[::-1]}
        for split in ("dev", "test"):
            X, ids = stores[split].vectors, labels.ids[split]
            predicted = ablate(own, X, orders, sizes)
            predicted["retrain"] = [*(p.predict(X)[0][0] for p in first), predicted["keep-top"][-1]]
            rows += [
                (labels.property, ranked.ranking, test, n, split, float((guess == ids).mean()), l1)
                for test, by_size in predicted.items()
                for n, guess in zip(sizes, by_size, strict=True)
            ]
    columns = ["property", "ranking", "test", "neurons", "split", "accuracy", "l1"]
    return pd.DataFrame(rows, columns=columns), [ranked for *_, ranked in cases]


def _save(run: Run, ranks: list[Ranked]) -> None:
    arrays = {f"{r.property}.{r.ranking}.order": r.order for r in ranks}
    arrays |= {f"{r.property}.weight": r.weight for r in ranks} | {f"{r.property}.labels": r.labels for r in ranks}
    with disk.being_made(run.ranking) as part, part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, key=run.key("neurons"), shape=ranks[0].shape, **arrays)


def _all_neuron_probe(stores: dict[str, Activations], sets: list[Labels], run: Run) -> tuple[Probe, float]:
    """One probe on all neurons, and its penalty: of several, the best by LCA's search score on the dev split."""
    study, grid, targets = run.study, run.study.ranking.l1, [s.target for s in sets]
    tried = sorted({0.0, *grid}) if len(grid) > 1 else grid
    specs = [ProbeSpec(targets, "all", value, value) for value in tried]
    X, device = stores["train"].vectors, encoders.device(study)
    fitted = probes.fit_specs(X, specs, study.probe, study.seed, device, "all-neuron probe")
    if len(tried) == 1:
        return fitted[0], tried[0]
    dev = stores["dev"].vectors
    accuracy = [_mean_accuracy(probe, sets, dev) for probe in fitted]
    scores = {}
    for value, probe, penalised in zip(tried, fitted, accuracy, strict=True):
        order = ordering(probe.weight[0].cpu().numpy(), study.ranking.mass_steps)
        edge = len(order) // 5
        top, bottom = (_mean_accuracy(_only(probe, part), sets, dev) for part in (order[:edge], order[-edge:]))
        scores[value] = search_score(top, bottom, accuracy[0], penalised)
    best = max(grid, key=lambda value: scores[value])
    return fitted[tried.index(best)], best


def _only(probe: Probe, neurons: np.ndarray) -> Probe:
    """The probe with all neurons but these zeroed: it reads only these."""
    scope = torch.from_numpy(neurons).to(probe.weight.device)
    return replace(probe, weight=probe.weight[:, :, scope], scope=scope)


def _mean_accuracy(probe: Probe, sets: list[Labels], X: np.ndarray) -> float:
    predicted = probe.predict(X)
    return float(np.mean([(p[0] == s.ids["dev"]).mean() for p, s in zip(predicted, sets, strict=True)]))


def _retrain(
    store: Activations, cases: list[tuple[Labels, Probe, Ranked]], sizes: list[int], l1: float, run: Run
) -> list[Probe]:
    """For each ranking, a probe on its first n neurons for each size, all in one pass."""
    firsts = [(labels, torch.from_numpy(ranked.order[:n])) for labels, _, ranked in cases for n in sizes]
    specs = [ProbeSpec([labels.target], first, l1, l1) for labels, first in firsts]
    settings, seed, device = run.study.probe, run.study.seed, encoders.device(run.study)
    title = "retrained on the first n neurons"
    return probes.fit_specs(store.vectors, specs, settings, seed, device, title) if specs else []


def ablate(probe: Probe, X: np.ndarray, orders: dict[str, np.ndarray], sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """Predictions of an all-neuron probe with all neurons zeroed but the first n of an order, without retraining.

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

"""Ablation: a run's ranking, tested by retraining on its first neurons and by zeroing all but some."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from lib import disk, encoders, probes
from lib.encoders import activations
from lib.encoders.activations import Activations
from lib.neurons.rankings import Ranked, ordering, search_score
from lib.probes.labels import Labels
from lib.probes.linear import Head, Probe
from lib.study.params import Ranking
from lib.study.runs import Run


def load(run: Run) -> dict[str, Ranked]:
    """The rankings of a run's properties, computed now (with ``table``) where they are missing."""
    table(run)
    found = np.load(run.ranking, allow_pickle=False)
    shape = tuple(int(n) for n in found["shape"])
    return {
        name: Ranked(name, found[f"{name}.order"], found[f"{name}.weight"], list(found[f"{name}.labels"]), shape)
        for name in run.study.properties
    }  # type: ignore[misc]


def table(run: Run) -> pd.DataFrame:
    """What the neurons of a run can do, read if it is there, else computed now.

    One row per property, split (dev, test) and test: ``kind`` retrain (a probe on the ordering's first ``neurons``),
    keep-top, keep-random, keep-bottom (the all-neuron probe with all others zeroed), with ``accuracy``; or ``kind``
    layer (``neurons`` of the top fraction that lie in ``layer``). ``l1`` is the penalty that was used, for all of
    these probes; so the one retrained on all neurons is the all-neuron probe itself.
    """
    key = run.key("neurons")
    if disk.archive_key(run.ranking) != key:
        disk.remove(run.neurons)
    return disk.table(run.neurons, key, lambda: _table(run))


def _table(run: Run) -> pd.DataFrame:
    study, place, settings = run.study, encoders.device(run.study), run.study.ranking
    stores = activations.load(run)
    words = {split: s.words for split, s in stores.items()}
    sets = [probes.label_set(words, name) for name in study.properties]
    probe, chosen = _all_neuron_probe(stores, sets, run)
    weight = probe.weight[0].cpu().numpy()
    shape = (stores["train"].layers, stores["train"].width)
    ranks = [_rank(labelled, weight[part], shape, settings) for labelled, part in zip(sets, probe.parts, strict=True)]
    *some, every = sorted({ranks[0].count(fraction) for fraction in settings.sizes})
    rankings = [torch.from_numpy(rank.order) for rank in ranks]
    heads = [Head([s], order, chosen, chosen, some) for s, order in zip(sets, rankings, strict=True)]
    title = "retrained on the first n neurons"
    retrained = probes.fit(stores["train"], heads, study.probe, study.seed, place, title) if some else []
    rows = [
        {"property": rank.property, "kind": "layer", "layer": layer, "neurons": int(n), "split": "train"}
        for rank in ranks
        for layer, n in enumerate(rank.per_layer(settings.top))
    ]
    for split in ("dev", "test"):
        for labelled, found in zip(sets, retrained, strict=False):
            right = found.predict(stores[split])[0] == labelled.ids[split]
            rows += [_row(labelled.property, "retrain", n, split, r.mean()) for n, r in zip(some, right, strict=True)]
        zeroed = _zeroed(stores[split], split, sets, ranks, probe, [*some, every], study.seed)
        whole = [row for row in zeroed if row["neurons"] == every and row["kind"] == "keep-top"]
        rows += zeroed + [{**row, "kind": "retrain"} for row in whole]
    kept = {f"{r.property}.{part}": getattr(r, part) for r in ranks for part in ("order", "weight", "labels")}
    with disk.being_made(run.ranking) as part_file, part_file.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, key=run.key("neurons"), shape=np.array(shape), **kept)
    return pd.DataFrame(rows).assign(l1=chosen)


def _row(name: str, kind: str, neurons: int, split: str, accuracy: float) -> dict:
    return {"property": name, "kind": kind, "neurons": neurons, "split": split, "accuracy": float(accuracy)}


def _rank(labelled: Labels, weight: np.ndarray, shape: tuple[int, int], settings: Ranking) -> Ranked:
    counts = np.bincount(labelled.ids["train"], minlength=len(labelled.names))
    frequent = counts >= settings.min_label_words
    if not frequent.any():
        raise ValueError(
            f"property '{labelled.property}': no label has {settings.min_label_words} training words; "
            "lower ranking.min_label_words"
        )
    own = weight[frequent].astype(np.float32)
    names = [name for name, often in zip(labelled.names, frequent, strict=True) if often]
    return Ranked(labelled.property, ordering(own, settings.mass_steps), own, names, shape)


def _all_neuron_probe(stores: dict[str, Activations], sets: list[Labels], run: Run) -> tuple[Probe, float]:
    """One probe on all neurons; with several penalties to try, the best by LCA's search score on the dev split."""
    study, grid = run.study, run.study.ranking.l1
    tried = sorted({0.0, *grid}) if len(grid) > 1 else grid
    heads = [Head(sets, slice(None), value, value) for value in tried]
    found = probes.fit(stores["train"], heads, study.probe, study.seed, encoders.device(study), "all-neuron probe")
    if len(tried) == 1:
        return found[0], tried[0]
    free, edge = _mean_accuracy(found[0], sets, stores["dev"]), found[0].weight.shape[2] // 5
    scores = {}
    for value, probe in zip(tried, found, strict=True):
        order = torch.from_numpy(ordering(probe.weight[0].cpu().numpy(), study.ranking.mass_steps).copy())
        top, bottom = (
            _mean_accuracy(_only(probe, part), sets, stores["dev"]) for part in (order[:edge], order[-edge:])
        )
        scores[value] = search_score(top, bottom, free, _mean_accuracy(probe, sets, stores["dev"]))
    best = max(grid, key=lambda value: scores[value])
    return found[tried.index(best)], best


def _only(probe: Probe, neurons: torch.Tensor) -> Probe:
    """The probe with all neurons but these zeroed: it reads only these."""
    neurons = neurons.to(probe.weight.device)
    return replace(probe, weights=[probe.weight[:, :, neurons]], neurons=neurons)


def _mean_accuracy(probe: Probe, sets: list[Labels], dev: Activations) -> float:
    found = probe.predict(dev)
    return float(np.mean([(f[0] == s.ids["dev"]).mean() for f, s in zip(found, sets, strict=True)]))


def _zeroed(
    store: Activations, split: str, sets: list[Labels], ranks: list[Ranked], probe: Probe, sizes: list[int], seed: int
) -> list[dict]:
    """Accuracy of the all-neuron probe with all but n neurons zeroed, without retraining."""
    tests = []
    for labelled, part, rank in zip(sets, probe.parts, ranks, strict=True):
        shuffled = np.random.default_rng(seed).permutation(rank.order)
        for kind, order in (("top", rank.order), ("random", shuffled), ("bottom", rank.order[::-1])):
            slices = [torch.from_numpy(n).to(probe.weight.device) for n in np.split(order.copy(), sizes)[: len(sizes)]]
            steps = [(size, n, probe.weight[0, part, n]) for size, n in zip(sizes, slices, strict=True)]
            tests.append((labelled, part, f"keep-{kind}", steps))
    right, start = {}, 0
    for block in probes.blocks(store, probe.scale, probe.weight.device):
        every = probes.select(block, slice(None))[0]
        wanted = slice(start, start + len(every))
        for labelled, part, kind, steps in tests:
            scores = probe.bias[0, part].expand(-1, len(every))
            for size, neurons, weight in steps:
                scores = torch.addmm(scores, weight, every.index_select(1, neurons).T)
                guess = scores.argmax(0).cpu().numpy()
                key = labelled.property, kind, size
                right[key] = right.get(key, 0) + (guess == labelled.ids[split][wanted]).sum()
        start = wanted.stop
    return [_row(*key, split, count / len(store.words)) for key, count in right.items()]

"""Ranking: which neurons carry a property (Linguistic Correlation Analysis, Dalvi et al. 2019), and where they lie.

A neuron is (layer, unit), numbered ``layer · width + unit``. One elastic-net probe is trained on all neurons of all
layers; its weights order the neurons; the order is tested by retraining on its first n and by zeroing all but n.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib.probes.labels import Labels
from lib.study.params import RankingSettings


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
    entry = np.where(total > 0, np.floor(before / np.where(total > 0, total, 1) * steps + 1e-9) + 1, steps + 1)
    entry[(ranked == 0) | (before >= total)] = steps + 1
    entry = np.minimum(entry, steps + 1)
    entry[:, 0] = np.where(total[:, 0] > 0, 0, steps + 1)
    first = np.full(size.shape, steps + 1.0)
    np.put_along_axis(first, by_size, entry, 1)
    return first.min(0).astype(int)


def ordering(weight: np.ndarray, steps: int = 1000) -> np.ndarray:
    """All neurons, most important first: [neurons] numbers, a permutation.

    Neurons are sorted by the mass step at which they enter (``mass_at_entry``), within a step by their largest
    |weight|, then by number: unlike in the authors' toolkit the order is total.
    """
    entry = mass_at_entry(weight, steps)
    return np.lexsort((np.arange(weight.shape[1]), -np.abs(weight).max(0), entry))


def lca(weight: np.ndarray, X: np.ndarray, y: np.ndarray, settings: RankingSettings) -> np.ndarray:
    """Linguistic Correlation Analysis (Dalvi et al. 2019): the weights of a probe say which neurons count."""
    return ordering(weight, settings.mass_steps)


RANKINGS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, RankingSettings], np.ndarray]] = {"lca": lca}
"""Name → an order of all neurons, total: [neurons] numbers, most important first. Each is given the same: ``weight``
[labels, neurons] of the all-neuron probe, ``X`` [layers, words, width], the training words, ``y`` [words] label numbers
(-1: too rare to be ranked), and the settings."""


def rank(labels: Labels, weight: np.ndarray, X: np.ndarray, settings: RankingSettings) -> list["Ranked"]:
    """Every ranking of a property, by the labels that are frequent enough. ``weight``, ``X`` : as in ``RANKINGS``.

    Raises ValueError if no label is.
    """
    ids, least = labels.ids["train"], settings.min_label_words
    frequent = np.flatnonzero(np.bincount(ids, minlength=len(labels.names)) >= least)
    if not len(frequent):
        raise ValueError(
            f"property '{labels.property}': no label has {least} training words; lower ranking.min_label_words"
        )
    row_of = np.full(len(labels.names), -1)
    row_of[frequent] = np.arange(len(frequent))
    own, names, shape = weight[frequent].astype(np.float32), [labels.names[i] for i in frequent], (len(X), X.shape[2])
    return [
        Ranked(labels.property, name, ranking(own, X, row_of[ids], settings), own, names, shape)
        for name, ranking in RANKINGS.items()
    ]


def top_per_label(weight: np.ndarray, mass: float) -> list[np.ndarray]:
    """For each label of ``weight`` [labels, neurons], the shortest prefix of its neurons that reaches ``mass``."""
    size = np.abs(weight)
    out = []
    for row in size:
        order = np.argsort(-row, kind="stable")
        need = int(np.searchsorted(np.cumsum(row[order]), mass * row.sum() * (1 - 1e-9))) + 1
        out.append(order[: min(need, len(order))])
    return out


def distribution(order: np.ndarray, count: int, layers: int) -> np.ndarray:
    """How many of the first ``count`` neurons of an ordering lie in each layer: [layers]."""
    return np.bincount(order[:count] // (len(order) // layers), minlength=layers)


def minimal_set(accuracy: dict[int, float], delta: float) -> int:
    """The smallest number of neurons whose accuracy exceeds (1 - delta) of that with all neurons."""
    full = accuracy[max(accuracy)]
    return min(n for n, found in accuracy.items() if found > (1 - delta) * full or n == max(accuracy))


def search_score(top: float, bottom: float, free: float, penalised: float) -> float:
    """LCA's score of a penalty: ½(A_top - A_bottom) - ½(A_unpenalised - A_penalised)."""
    return 0.5 * (top - bottom) - 0.5 * (free - penalised)


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

    def per_layer(self, fraction: float) -> np.ndarray:
        """[layers] how many of the top ``fraction`` lie in each layer."""
        return distribution(self.order, self.count(fraction), self.shape[0])

    def top(self, mass: float) -> dict[str, np.ndarray]:
        """Label → its top neurons at this mass."""
        return dict(zip(self.labels, top_per_label(self.weight, mass), strict=True))

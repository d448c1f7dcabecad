"""A probe on arrays of your own: ``fit(X, y)``, without a study or a run."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib.probes.linear import Probe, ProbeSpec, fit_specs
from lib.study import loading, params


@dataclass(frozen=True)
class Classifier:
    """What ``fit`` returns: a linear probe of one label set, or of several groups of features.

    ``labels`` : the labels, in the order of the rows of ``weight``. ``grouped`` : whether the data have groups.
    """

    probe: Probe
    labels: pd.Index
    grouped: bool

    @property
    def weight(self) -> np.ndarray:
        """[labels, features], with groups before them if the data have any: as ``neurons.ordering`` takes it."""
        return self._own(self.probe.weight.cpu().numpy())

    @property
    def bias(self) -> np.ndarray:
        """[labels], or [groups, labels]."""
        return self._own(self.probe.bias[..., 0].cpu().numpy())

    def predict(self, X: np.ndarray | torch.Tensor) -> np.ndarray:
        """The predicted label of each word: [words], or [groups, words]."""
        return self.labels.to_numpy()[self._predict(X)]

    def accuracy(self, X: np.ndarray | torch.Tensor, y: Iterable[Hashable]) -> Any:
        """The share of right predictions: a number, or one per group. A label never seen in training is an error."""
        return (self._predict(X) == self.labels.get_indexer(_index(y))).mean(-1)

    def _predict(self, X: np.ndarray | torch.Tensor) -> np.ndarray:
        return self._own(self.probe.predict(_grouped(X))[0])

    def _own(self, values: np.ndarray) -> np.ndarray:
        return values if self.grouped else values[0]


def fit(
    X: np.ndarray | torch.Tensor,
    y: Iterable[Hashable],
    seed: int = 0,
    device: torch.device | str = "cpu",
    **settings: Any,
) -> Classifier:
    """Train a probe on your own vectors and labels.

    Parameters
    ----------
    X : [words, features], or [groups, words, features] for one probe per group, e.g. per layer; of any float type, in
        memory or mapped (it is read batch by batch).
    y : [words] labels of any hashable type.
    settings : those of ``params.ProbeSettings``; the others are as in ``params/base.yaml``.
    """
    labels, given = _index(y), np.ndim(X) == 3
    names = labels.unique()
    base = loading.read_yaml(params.ROOT / "params" / "base.yaml")["probe"]
    spec = ProbeSpec([(names.get_indexer(labels), len(names))])
    (probe,) = fit_specs(_grouped(X), [spec], params.ProbeSettings(**(base | settings)), seed, device)
    return Classifier(probe, names, given)


def _grouped(X: np.ndarray | torch.Tensor) -> np.ndarray:
    X = np.asarray(X)
    return X if X.ndim == 3 else X[None]


def _index(y: Iterable[Hashable]) -> pd.Index:
    return pd.Index(y if hasattr(y, "__array__") else list(y), tupleize_cols=False)

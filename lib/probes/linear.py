"""Linear probes on plain arrays: elastic-net classifiers. ``fit(X, y)`` needs neither a study nor a run.

All layers and all label sets are trained in one batched product. Scores are [groups, labels, words]: a group is a
layer, or one set of neurons of the network; the labels of all properties and control tasks lie side by side. A step is
two batched products, forward and gradient, in closed form, without autograd. Layer probes and the all-neuron probe read
views of one buffer. This was the fastest layout that we timed.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.optim.adam import adam
from tqdm.auto import tqdm

from lib.study import loading, params
from lib.study.params import ProbeSettings

BLOCK = 8192
"""How many words are read at once where their order does not matter; it bounds the memory."""

Scope = Literal["each layer", "all"] | torch.Tensor
"""What a probe reads: each layer by itself (one group per layer), all neurons, or the neurons of these numbers (one
group). A neuron's number is ``layer · width + unit``."""

Vectors = np.ndarray | torch.Tensor
"""[layers, words, width]: an array, in memory or mapped, or a tensor that a GPU holds (``held``)."""


def held(X: Vectors, device: torch.device | str) -> Vectors:
    """The vectors in the memory of a GPU, if they take at most a quarter of what is free there; else as they are."""
    device = torch.device(device)
    if isinstance(X, torch.Tensor) or device.type != "cuda" or X.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return X
    return torch.from_numpy(np.require(X, requirements="W")).to(device)


def _part(X: Vectors, rows: slice | np.ndarray, layers: slice | int = slice(None)) -> torch.Tensor:
    """Some words of some layers, where they are."""
    if isinstance(X, torch.Tensor):
        return X[layers, _index_on(rows, X.device)]
    return torch.from_numpy(np.require(X[layers, rows], requirements="W"))


def _index_on(rows: slice | np.ndarray, device: torch.device) -> slice | torch.Tensor:
    return rows if isinstance(rows, slice) else torch.from_numpy(rows).to(device)


@dataclass(frozen=True)
class Standardiser:
    """Per neuron, mean and deviation over the training words: both [layers, 1, width] float32."""

    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def of(cls, X: Vectors) -> "Standardiser":
        """From [layers, words, width], one layer and one block at a time. A neuron that never varies becomes 0."""
        layers, words, width = X.shape
        device = X.device if isinstance(X, torch.Tensor) else torch.device("cpu")
        mean, deviation = torch.zeros(layers, 1, width), torch.ones(layers, 1, width)
        for layer in range(layers):
            total, square = (torch.zeros(width, dtype=torch.float64, device=device) for _ in range(2))
            shift = _part(X, slice(BLOCK), layer).float().mean(0)
            for start in range(0, words, BLOCK):
                block = _part(X, slice(start, start + BLOCK), layer).float() - shift
                total += block.sum(0)
                square += block.square_().sum(0)
            variance = (square / words - (total / words) ** 2).cpu().numpy()
            mean[layer, 0] = (shift + total / words).float()
            # NumPy's root: that of torch is of a library whose last digit depends on the processor
            deviation[layer, 0] = torch.from_numpy(np.sqrt(np.where(variance > 1e-12, variance, np.inf)))
        return cls(mean.to(device), deviation.to(device))


def read_block(
    X: Vectors,
    rows: slice | np.ndarray,
    standardiser: Standardiser | None,
    device: torch.device,
    into: torch.Tensor | None = None,
) -> torch.Tensor:
    """Some words of ``X`` [layers, words, width]: [layers, n, width] float32 on ``device``, standardised if there is a
    ``standardiser``.

    The memory is laid out [n, layers, width], so that all neurons of a word lie side by side (``select``). ``into`` :
    [at least n, layers, width], a buffer to fill; without it, a new one.
    """
    block = _part(X, rows).to(device)
    layers, words, width = block.shape
    out = (torch.empty(words, layers, width, device=device) if into is None else into[:words]).transpose(0, 1)
    out.copy_(block)
    if standardiser:
        out.sub_(standardiser.mean.to(device)).div_(standardiser.deviation.to(device))
    return out


def blocks(
    X: Vectors, standardiser: Standardiser | None, device: torch.device, size: int = 2048
) -> Iterator[tuple[slice, torch.Tensor]]:
    """All words in order, some at a time: their numbers and ``read_block``; a block overwrites the last."""
    layers, words, width = X.shape
    buffer = torch.empty(min(size, words), layers, width, device=device)
    for start in range(0, words, size):
        rows = slice(start, min(start + size, words))
        yield rows, read_block(X, rows, standardiser, device, buffer)


def batches(words: int, size: int, order: str, epochs: int, seed: int) -> Iterator[np.ndarray | slice]:
    """The word numbers of each step. The order depends on ``seed`` and ``words`` only, so all variants share it."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        shuffled = rng.permutation(words) if order == "shuffled" else None
        for start in range(0, words, size):
            rows = slice(start, min(start + size, words))
            yield rows if shuffled is None else np.sort(shuffled[rows])


@dataclass(frozen=True)
class ProbeSpec:
    """What one batched probe learns, and from what.

    ``targets`` : per label set, [words] label numbers and how many labels there are. ``l1``, ``l2`` : the penalties,
    None for those of the settings.
    """

    targets: Sequence[tuple[np.ndarray, int]]
    scope: Scope = "each layer"
    l1: float | None = None
    l2: float | None = None


@dataclass(frozen=True)
class Probe:
    """A trained probe: one linear classifier per group and label set.

    ``weight`` : [groups, labels of all sets, features]. ``bias`` : [groups, labels of all sets, 1]. ``sizes`` : the
    number of labels of each set. ``standardiser`` : None if the probe reads the vectors as they are.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    sizes: list[int]
    scope: Scope
    standardiser: Standardiser | None

    def scores(self, block: torch.Tensor) -> torch.Tensor:
        """[groups, n, features] → [groups, labels of all sets, n]"""
        return torch.baddbmm(self.bias, self.weight, block.transpose(1, 2))

    def split(self) -> list["Probe"]:
        """One probe per label set: views, no copies."""
        own = zip(self.weight.split(self.sizes, 1), self.bias.split(self.sizes, 1), self.sizes, strict=True)
        return [replace(self, weight=weight, bias=bias, sizes=[size]) for weight, bias, size in own]

    def predict(self, X: Vectors) -> list[np.ndarray]:
        """Per label set, the predicted label numbers for ``X`` [layers, words, width]: [groups, words]."""
        # Before all blocks: kept between them, the parts would leave holes in the heap, which grows with the corpus.
        out = [np.empty((len(self.bias), X.shape[1]), np.int32) for _ in self.sizes]
        for rows, block in blocks(X, self.standardiser, self.bias.device):
            scores = self.scores(select(block, self.scope)).split(self.sizes, 1)
            for predicted, own in zip(out, scores, strict=True):
                predicted[:, rows] = own.argmax(1).cpu().numpy()
        return out


def select(block: torch.Tensor, scope: Scope) -> torch.Tensor:
    """What a probe of this scope reads of a block [layers, n, width]: [groups, n, features]."""
    network = block.transpose(0, 1).flatten(1)  # no copy: ``read_block`` has them in this order
    if isinstance(scope, torch.Tensor):
        return network.index_select(1, scope)[None]  # in two dimensions: twice as fast as in three
    return block if scope == "each layer" else network[None]


def fit_specs(
    X: Vectors,
    specs: Sequence[ProbeSpec],
    settings: ProbeSettings,
    seed: int,
    device: torch.device | str = "cpu",
    title: str = "probes",
    chosen: np.ndarray | None = None,
) -> list[Probe]:
    """Train one probe per spec, all in one pass over the words: every batch is read once, for all of them.

    The loss of each group and label set is the cross-entropy, averaged over the batch, plus the elastic net
    λ1·Σ|W| + λ2·‖W‖₂ of its own weights (the norm is not squared, as in the authors' toolkit, unless the settings say
    so). Adam; weights from zero.

    Parameters
    ----------
    X : [layers, words, width], the training words, in memory or mapped: it is read batch by batch, and held in float32.
        A GPU holds all of it (``held``).
    title : of the progress bar.
    chosen : the numbers of the words to learn from, ascending; default: all. Neurons are standardised over all.

    Raises
    ------
    ValueError : a label set has another number of words, or a word without a label.
    """
    device, (layers, words, width) = torch.device(device), X.shape
    X = held(X, device)
    targets = [torch.from_numpy(ids).long() for spec in specs for ids, _ in spec.targets]
    for ids in targets:
        if (ids < 0).any() or len(ids) != words:
            raise ValueError(f"{int((ids >= 0).sum())} labels do not match the {words} words")
    stacked, sets = torch.stack(targets).to(device), [len(spec.targets) for spec in specs]
    penalties = [
        (settings.l1 if spec.l1 is None else spec.l1, settings.l2 if spec.l2 is None else spec.l2) for spec in specs
    ]
    standardiser = Standardiser.of(X) if settings.standardise else None
    buffer = torch.empty(settings.batch_size, layers, width, device=device)
    probes = [initial_probe(buffer[:0].transpose(0, 1), spec, standardiser) for spec in specs]
    update = _adam([w for probe in probes for w in (probe.weight, probe.bias)], settings.learning_rate)
    used = words if chosen is None else len(chosen)
    order = batches(used, settings.batch_size, settings.order, settings.epochs, seed)
    steps = -(-used // settings.batch_size) * settings.epochs
    torch.empty(1 << 22)  # glibc from now on keeps 16 MB that are freed, instead of giving them back at every step
    losses: list[np.ndarray] = []
    for step, rows in enumerate(tqdm(order, total=steps, desc=title, unit="step", leave=False)):
        if settings.tolerance and step % (steps // settings.epochs) == 0:
            losses.append(_loss(X, probes, stacked.split(sets)))
            if len(losses) > 5 and (losses[-1] > losses[-6] * (1 - settings.tolerance)).all():
                break
        rows = rows if chosen is None else chosen[rows]
        block = read_block(X, rows, standardiser, device, buffer)
        labels, gradients = stacked[:, _index_on(rows, device)].split(sets), []
        for probe, ids, (l1, l2) in zip(probes, labels, penalties, strict=True):
            weight, bias = gradient(probe, select(block, probe.scope), ids)
            penalise(weight, probe, l1, l2, settings.squared)
            gradients += [weight, bias]
        update(gradients)
    else:
        if settings.tolerance:
            warnings.warn(
                f"{title}: not converged after {settings.epochs} epochs, where the loss still falls by more than "
                f"{settings.tolerance:g} of itself in five of them; raise probe.epochs",
                stacklevel=2,
            )
    return probes


def _loss(X: Vectors, probes: list[Probe], labels: Sequence[torch.Tensor]) -> np.ndarray:
    """Cross-entropy of each probe, layer and label set on the first training words, in nats."""
    _, block = next(blocks(X, probes[0].standardiser, probes[0].weight.device))
    found = []
    for probe, own in zip(probes, labels, strict=True):
        scores = probe.scores(select(block, probe.scope)).split(probe.sizes, 1)
        for part, ids in zip(scores, own[:, : block.shape[1]], strict=True):
            found.append(cross_entropy(part, ids.expand(len(part), -1), reduction="none").mean(1).cpu().numpy())
    return np.concatenate(found)


def _adam(weights: list[torch.Tensor], learning_rate: float) -> Callable[[list[torch.Tensor]], None]:
    """A step of Adam on the weights, given their gradients. (``torch.optim.Adam``, the class around the same function,
    imports PyTorch's compiler: more than a second.)"""
    moments = [[torch.zeros_like(w) for w in weights] for _ in range(2)]
    steps = [torch.zeros((), device=w.device) for w in weights]
    settings = {"lr": learning_rate, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    flags = {"amsgrad": False, "maximize": False, "fused": weights[0].device.type in ("cpu", "cuda") or None}
    return lambda gradients: adam(weights, gradients, *moments, [], steps, **settings, **flags)


def initial_probe(empty: torch.Tensor, spec: ProbeSpec, standardiser: Standardiser | None) -> Probe:
    """The probe before training, all weights 0. ``empty`` : a block without words, [layers, 0, width]."""
    scope = spec.scope.to(empty.device) if isinstance(spec.scope, torch.Tensor) else spec.scope
    groups, _, features = select(empty, scope).shape
    sizes = [count for _, count in spec.targets]
    weight, bias = (torch.zeros(groups, sum(sizes), n, device=empty.device) for n in (features, 1))
    return Probe(weight, bias, sizes, scope, standardiser)


def gradient(probe: Probe, block: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of the cross-entropy by weight and bias, in closed form.

    ``block`` : [groups, n, features]; ``labels`` : [label sets, n] label numbers.
    """
    error = probe.scores(block)  # becomes softmax minus one-hot
    for own, ids in zip(error.split(probe.sizes, 1), labels, strict=True):
        own.copy_(torch.softmax(own, 1))
        own.scatter_(1, ids.expand(len(own), 1, -1), -1.0, reduce="add")
    weight = torch.baddbmm(probe.weight, error, block, beta=0, alpha=1 / block.shape[1])
    return weight, torch.mean(error, 2, keepdim=True)


def penalise(gradient: torch.Tensor, probe: Probe, l1: float, l2: float, squared: bool = False) -> None:
    """Add the elastic net's part to the gradient of the weights, label set by label set."""
    if l1:
        gradient.add_(probe.weight.sign(), alpha=l1)
    if l2 and squared:
        gradient.add_(probe.weight, alpha=2 * l2)
    elif l2:
        norms = torch.linalg.vector_norm(probe.weight, dim=2, keepdim=True).square_()  # of each label, squared
        for own in norms.split(probe.sizes, 1):
            own.copy_(own.sum(1, keepdim=True))
        gradient.addcmul_(probe.weight, norms.clamp_min_(1e-24).rsqrt_(), value=l2)


@dataclass(frozen=True)
class Classifier:
    """A probe of your own labels, as ``fit`` returns it.

    ``labels`` : in the order of the rows of ``weight``. ``grouped`` : whether the data have groups.
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
    settings : fields of ``params.ProbeSettings``; those left out are as in ``params/base.yaml``.
    """
    labels = _index(y)
    names = labels.unique()
    base = loading.read_yaml(params.ROOT / "params" / "base.yaml")["probe"]
    spec = ProbeSpec([(names.get_indexer(labels), len(names))])
    (probe,) = fit_specs(_grouped(X), [spec], ProbeSettings(**(base | settings)), seed, device)
    return Classifier(probe, names, np.ndim(X) == 3)


def _grouped(X: np.ndarray | torch.Tensor) -> np.ndarray:
    X = np.asarray(X)
    return X if X.ndim == 3 else X[None]


def _index(y: Iterable[Hashable]) -> pd.Index:
    return pd.Index(y if hasattr(y, "__array__") else list(y), tupleize_cols=False)

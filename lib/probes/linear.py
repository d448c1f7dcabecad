"""Probe: elastic-net linear classifiers on frozen activations, all layers and all label sets in one batched product.

The unit of work is all layers of one variant at once: weights [groups, labels, features], where a group is a layer (or
one set of neurons of the whole network) and the labels of every property and of its control task lie side by side. One
step is two batched matrix products, forward and gradient, in closed form: no autograd. Of the possible layouts this one
(labels before words, and one buffer of words that layers and the whole network are both views of) is the fastest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.optim.adam import adam
from tqdm.auto import tqdm

from lib.encoders.activations import Activations
from lib.probes.labels import Labels
from lib.study import params

BLOCK = 8192
"""Words read at once where order does not matter; bounds the memory."""


@dataclass(frozen=True)
class Scale:
    """Per neuron, mean and deviation over the training words: both [layers, 1, width] float32."""

    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def of(cls, vectors: np.ndarray) -> "Scale":
        """From a store [layers, words, width], one layer and one block at a time. A neuron that never varies is kept
        at 0."""
        layers, words, width = vectors.shape
        mean, deviation = torch.zeros(layers, 1, width), torch.ones(layers, 1, width)
        for layer in range(layers):
            total, square = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
            shift = torch.from_numpy(vectors[layer, :BLOCK].astype(np.float32)).mean(0)
            for start in range(0, words, BLOCK):
                block = torch.from_numpy(vectors[layer, start : start + BLOCK].astype(np.float32)).sub_(shift)
                total += block.sum(0)
                square += block.square_().sum(0)
            variance = square / words - (total / words) ** 2
            mean[layer, 0] = (shift + total / words).float()
            deviation[layer, 0] = torch.where(variance > 1e-12, variance, torch.inf).sqrt().float()
        return cls(mean, deviation)


def read(
    store: Activations, rows: slice | np.ndarray, scale: Scale | None, place: torch.device,
    into: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Words of a store: [layers, n, width] float32 on ``place``, scaled if a scale is given.

    The memory is laid out [n, layers, width], so that all neurons of a word lie side by side (``select``). ``into`` :
    [at least n, layers, width], a buffer to fill; without it, a new one.
    """
    block = torch.from_numpy(np.asarray(store.vectors)[:, rows]).to(place)
    layers, words, width = block.shape
    out = (torch.empty(words, layers, width, device=place) if into is None else into[:words]).transpose(0, 1)
    out.copy_(block)
    return out if scale is None else out.sub_(scale.mean.to(place)).div_(scale.deviation.to(place))


def blocks(store: Activations, scale: Scale | None, place: torch.device, size: int = 2048) -> Iterator[torch.Tensor]:
    """All words of a store in order, some at a time, each block in the memory of the one before."""
    buffer = torch.empty(min(size, len(store.words)), store.layers, store.width, device=place)
    for start in range(0, len(store.words), size):
        yield read(store, slice(start, start + size), scale, place, buffer)


def batches(words: int, size: int, order: str, epochs: int, seed: int) -> Iterator[np.ndarray | slice]:
    """The word numbers of each step. The order depends on ``seed`` and ``words`` only, so all variants share it."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        shuffled = rng.permutation(words) if order == "shuffled" else None
        for start in range(0, words, size):
            yield (
                slice(start, min(start + size, words)) if shuffled is None else np.sort(shuffled[start : start + size])
            )


@dataclass(frozen=True)
class Head:
    """What one batched probe learns.

    ``sets`` : the label sets. ``neurons`` : the numbers of the neurons that it reads, in one group (``slice(None)``:
    all); None: one group per layer. ``l1``, ``l2`` : the penalties, None for those of the settings. ``sizes`` :
    ascending; instead of one probe on all ``neurons``, one on each of their first ``sizes``.
    """

    sets: Sequence[Labels]
    neurons: torch.Tensor | slice | None = None
    l1: float | None = None
    l2: float | None = None
    sizes: Sequence[int] = ()


@dataclass(frozen=True)
class Probe:
    """Trained probes, nested: the first reads the first neurons, the next these and some more.

    ``weights`` : one [groups, rows, neurons] per slice of neurons, for the probes that read it, which are the last
    ones: the first has all rows. ``bias`` : [groups, rows, 1]; a row is a label of a set of a probe. ``parts`` : the
    rows of each label set within a probe. ``neurons`` : what is read, as in Head. ``scale`` : None for raw vectors.
    """

    weights: list[torch.Tensor]
    bias: torch.Tensor
    parts: list[slice]
    neurons: torch.Tensor | slice | None
    scale: Scale | None

    @property
    def weight(self) -> torch.Tensor:
        """[groups, labels of all sets, features] of a probe that is not nested."""
        (weight,) = self.weights
        return weight

    def scores(self, block: torch.Tensor) -> torch.Tensor:
        """What each label gets: [groups, n, features] → [groups, probes, labels of all sets, n]."""
        scores, start = self.bias, 0
        for weight in self.weights:
            here = block[:, :, start : start + weight.shape[2]].transpose(1, 2)
            if start:
                scores[:, -weight.shape[1] :].baddbmm_(weight, here)
            else:
                scores = torch.baddbmm(self.bias, weight, here)
            start += weight.shape[2]
        return scores.unflatten(1, (len(self.weights), -1))

    def predict(self, store: Activations) -> list[np.ndarray]:
        """Predicted labels of every label set: [groups, words] each; [groups · probes, words] if nested."""
        groups, words = len(self.bias) * len(self.weights), len(store.words)
        out = [np.empty((groups, words), np.int32) for _ in self.parts]  # before all blocks: kept between them, their
        start = 0  # parts would leave holes in the heap, which then grows with the corpus
        for block in blocks(store, self.scale, self.bias.device):
            here = slice(start, start := start + block.shape[1])
            scores = self.scores(select(block, self.neurons))
            for found, part in zip(out, self.parts, strict=True):
                found[:, here] = scores[:, :, part].argmax(2).flatten(0, 1).cpu().numpy()
        return out


def select(block: torch.Tensor, neurons: torch.Tensor | slice | None) -> torch.Tensor:
    """What a head reads of a block [layers, n, width]: [groups, n, features]. Neuron ``layer · width + unit``."""
    if neurons is None:
        return block
    every = block.transpose(0, 1).flatten(1)[None]  # no copy: ``read`` has them in this order
    return every if isinstance(neurons, slice) else every.index_select(2, neurons)


def fit(
    store: Activations, heads: Sequence[Head], settings: params.Probe, seed: int, place: torch.device | str = "cpu",
    title: str = "probes",
) -> list[Probe]:  # fmt: skip
    """Train all heads in one pass over the words: every batch is read once, for all of them.

    The loss of each group, probe and label set is the cross-entropy, averaged over the batch, plus the elastic net
    λ1·Σ|W| + λ2·‖W‖₂ of its own weights (the norm is not squared, as in the authors' toolkit). Adam; weights from zero.
    ``store`` holds the training words, to which the ``train`` labels of every set belong.
    """
    place = torch.device(place)
    scale = Scale.of(store.vectors) if settings.standardise else None
    probes = [_zero(store, head, scale, place) for head in heads]
    targets = [torch.stack([torch.from_numpy(s.ids["train"]).long() for s in head.sets]) for head in heads]
    for target in targets:
        if (target < 0).any() or target.shape[1] != len(store.words):
            raise ValueError(f"{target.shape[1]} labels do not match the {len(store.words)} words of the store")
    penalties = [
        [given if given is not None else own for given, own in ((h.l1, settings.l1), (h.l2, settings.l2))]
        for h in heads
    ]
    weights = [w for probe in probes for w in (*probe.weights, probe.bias)]
    update = _adam(weights, settings.learning_rate)
    steps = -(-len(store.words) // settings.batch_size) * settings.epochs
    order = batches(len(store.words), settings.batch_size, settings.order, settings.epochs, seed)
    buffer = torch.empty(settings.batch_size, store.layers, store.width, device=place)
    torch.empty(1 << 22)  # glibc from now on keeps 16 MB that are freed, instead of giving them back at every step
    with torch.no_grad():
        for rows in tqdm(order, total=steps, desc=title, unit="step", leave=False):
            block = read(store, rows, scale, place, buffer)
            for probe, target, (l1, l2) in zip(probes, targets, penalties, strict=True):
                _gradient(probe, select(block, probe.neurons), target[:, rows].to(place))
                _penalise(probe, l1, l2)
            update()
    return [replace(p, weights=[w.detach() for w in p.weights], bias=p.bias.detach()) for p in probes]


def _adam(weights: list[torch.Tensor], learning_rate: float) -> Callable[[], None]:
    """A step of Adam on the ``grad`` of the weights. (``torch.optim.Adam``, the class around the same function, imports
    PyTorch's compiler: more than a second.)"""
    grads, moments = [w.grad for w in weights], [[torch.zeros_like(w) for w in weights] for _ in range(2)]
    steps = [torch.zeros((), device=w.device) for w in weights]
    settings = {"lr": learning_rate, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    settings |= {"amsgrad": False, "maximize": False, "fused": weights[0].device.type in ("cpu", "cuda") or None}
    return lambda: adam(weights, grads, *moments, [], steps, **settings)


def _zero(store: Activations, head: Head, scale: Scale | None, place: torch.device) -> Probe:
    ends = np.cumsum([0, *(len(s.names) for s in head.sets)])
    groups, features = (store.layers, store.width) if head.neurons is None else (1, store.layers * store.width)
    features = len(head.neurons) if isinstance(head.neurons, torch.Tensor) else features
    sizes = head.sizes or [features]
    slices = np.diff([0, *sizes])
    if (slices <= 0).any() or sizes[-1] > features:
        raise ValueError(f"the sizes of nested probes must ascend from 1 to at most {features}: {list(sizes)}")
    rows = [int(ends[-1]) * probes for probes in range(len(sizes), 0, -1)]
    shapes = [*((r, int(n)) for r, n in zip(rows, slices, strict=True)), (rows[0], 1)]
    *weights, bias = (torch.zeros(groups, *shape, device=place, requires_grad=True) for shape in shapes)
    for tensor in (*weights, bias):
        tensor.grad = torch.zeros_like(tensor)
    parts = [slice(int(a), int(b)) for a, b in zip(ends, ends[1:], strict=False)]
    neurons = head.neurons[: sizes[-1]].to(place) if isinstance(head.neurons, torch.Tensor) else head.neurons
    return Probe(weights, bias, parts, neurons, scale)


def _gradient(probe: Probe, block: torch.Tensor, wanted: torch.Tensor) -> None:
    """Gradient of the cross-entropy in closed form. ``block`` : [groups, n, features]; ``wanted`` : [label sets, n]."""
    scores = probe.scores(block)  # becomes the error: softmax minus one-hot
    for part, ids in zip(probe.parts, wanted, strict=True):
        view = scores[:, :, part]
        view.copy_(torch.softmax(view, 2))
        index = ids.expand(*view.shape[:2], 1, -1)
        view.scatter_add_(2, index, view.new_full((1, 1, 1, 1), -1.0).expand(index.shape))
    error, start = scores.flatten(1, 2), 0
    for weight in probe.weights:
        assert weight.grad is not None
        mine, here = error[:, -weight.shape[1] :], block[:, :, start : start + weight.shape[2]]
        torch.baddbmm(weight.grad, mine, here, beta=0, alpha=1 / block.shape[1], out=weight.grad)
        start += weight.shape[2]
    torch.mean(error, 2, keepdim=True, out=probe.bias.grad)


def _penalise(probe: Probe, l1: float, l2: float) -> None:
    """Add the gradient of the elastic net, label set by label set."""
    if l1:
        for weight in probe.weights:
            weight.grad.add_(weight.sign(), alpha=l1)
    if l2:
        norms = torch.zeros_like(probe.bias)  # of each row, squared; then of its label set, in every row
        for weight in probe.weights:
            norms[:, -weight.shape[1] :] += torch.linalg.vector_norm(weight, dim=2, keepdim=True).square_()
        for part in probe.parts:
            view = norms.unflatten(1, (len(probe.weights), -1))[:, :, part]
            view.copy_(view.sum(2, keepdim=True).expand(view.shape))
        share = norms.sqrt_().clamp_min_(1e-12).reciprocal_()
        for weight in probe.weights:
            weight.grad.addcmul_(weight, share[:, -weight.shape[1] :], value=l2)

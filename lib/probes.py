"""Probe: elastic-net linear classifiers on frozen activations, all layers and all label sets in one batched product.

The unit of work is all layers of one variant at once: weights [groups, labels, features], where a group is a layer (or
one set of neurons of the whole network) and the labels of every property and of its control task lie side by side. One
step is two batched matrix products, forward and gradient, in closed form: no autograd. Of the possible layouts this one
(labels before words, and one buffer of words that layers and the whole network are both views of) is the fastest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch.optim.adam import adam
from tqdm.auto import tqdm

from lib import activations, disk, encoders, params
from lib.activations import Activations
from lib.params import Study
from lib.runs import Run

BLOCK = 8192
"""Words read at once where order does not matter; bounds the memory."""

WORDS = ("all", "ambiguous", "unseen")
"""Which words an accuracy is over: all; those whose type has several labels in training; those not in training."""


@dataclass(frozen=True)
class Labels:
    """One label set over the words of three splits.

    ``names`` : [labels] in alphabetical order. ``ids`` : split → [words] label numbers; -1 where a dev or test label
    never occurs in training: such a word counts as an error. ``control`` : whether labels are drawn per word type.
    """

    property: str
    names: list[str]
    ids: dict[str, np.ndarray]
    control: bool = False

    @property
    def unseen(self) -> dict[str, int]:
        """Words per split whose label never occurs in training."""
        return {split: int((ids < 0).sum()) for split, ids in self.ids.items()}


def labels(words: dict[str, pd.DataFrame], name: str) -> Labels:
    """The labels of a property. ``words`` : split → table with a column ``name``.

    Raises ValueError if the property has fewer than two labels in training.
    """
    names = sorted(words["train"][name].astype(str).unique())
    if len(names) < 2:
        raise ValueError(f"property '{name}' has {len(names)} label in the training words: there is nothing to learn")
    return Labels(name, names, {s: pd.Index(names).get_indexer(t[name].astype(str)) for s, t in words.items()})


def control(words: dict[str, pd.DataFrame], real: Labels, seed: int) -> Labels:
    """The control task of a property (Hewitt & Liang 2019): each word type gets one label, drawn from the training
    distribution of the real ones; a probe can only learn it by heart."""
    rng = np.random.default_rng(seed)
    share = np.bincount(real.ids["train"], minlength=len(real.names)) / len(real.ids["train"])
    types = pd.Index(sorted(set().union(*(t["word"] for t in words.values()))), dtype=object)
    drawn = rng.choice(len(share), size=len(types), p=share)
    ids = {s: drawn[types.get_indexer(_types(t))] for s, t in words.items()}
    return Labels(real.property, real.names, ids, control=True)


def word_groups(words: dict[str, pd.DataFrame], real: Labels, split: str) -> dict[str, np.ndarray]:
    """For each of ``WORDS``, which words of a split belong to it: [words] bool."""
    train = pd.Series(real.ids["train"]).groupby(_types(words["train"])).nunique()
    kinds = train.reindex(_types(words[split])).to_numpy()
    return {"all": np.ones(len(kinds), bool), "ambiguous": kinds > 1, "unseen": np.isnan(kinds)}


def baselines(words: dict[str, pd.DataFrame], real: Labels, split: str) -> dict[str, np.ndarray]:
    """Predictions without any encoder: [words] label numbers of ``majority`` (the most frequent training label) and
    ``lookup`` (the most frequent one of the word type; the majority for unseen types)."""
    pairs = pd.DataFrame({"word": _types(words["train"]), "label": real.ids["train"]}).value_counts()
    ranked = pairs.reset_index().sort_values(["count", "label"], ascending=[False, True], kind="stable")
    known = ranked.drop_duplicates("word").set_index("word")["label"]
    top = int(np.bincount(real.ids["train"]).argmax())
    found = known.reindex(_types(words[split])).fillna(top).to_numpy(int)
    return {"majority": np.full(len(found), top), "lookup": found}


def _types(words: pd.DataFrame) -> np.ndarray:
    """The type of each word: [words] objects. Strings of NumPy's would all be as wide as the longest of them."""
    return words["word"].to_numpy(object)


# Data ------------------------------------------------------------------------------------------------------------


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


# Training --------------------------------------------------------------------------------------------------------


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


# Layer-wise results ----------------------------------------------------------------------------------------------


def layers(run: Run) -> pd.DataFrame:
    """Counts of correct predictions of a run's layer probes, read if they are there, else made now.

    One row per property, labels (real, control), layer, split (dev, test), words and text: ``correct`` of ``total``.
    The baselines are rows too: layer -1, ``labels`` = majority or lookup.
    """
    return disk.table(run.layers, run.key("layers"), lambda: _layers(run))


def _layers(run: Run) -> pd.DataFrame:
    study = run.study
    stores = activations.load(run)
    words = {split: store.words for split, store in stores.items()}
    sets = label_sets(study, words)
    (probe,) = fit(stores["train"], [Head(sets)], study.probe, study.seed, encoders.device(study), "layer probes")
    rows = []
    for split in ("dev", "test"):
        texts = text_ids(words[split])
        for labelled, found in zip(sets, probe.predict(stores[split]), strict=True):
            real = next(s for s in sets if s.property == labelled.property)
            groups = word_groups(words, real, split)
            kind = "control" if labelled.control else "real"
            for layer, guess in enumerate(found):
                rows += _counts(labelled, kind, layer, split, groups, texts, guess)
            if not labelled.control:
                for kind, guess in baselines(words, labelled, split).items():
                    rows += _counts(labelled, kind, -1, split, groups, texts, guess)
    return pd.concat(rows, ignore_index=True)


def label_sets(study: Study, words: dict[str, pd.DataFrame]) -> list[Labels]:
    """The label sets of a study's properties, real ones first, then the control task of each."""
    real = [labels(words, name) for name in study.properties]
    return real + [control(words, r, study.seed) for r in real]


def text_ids(words: pd.DataFrame) -> pd.Categorical:
    """What is resampled by the bootstrap: the text of each word, or its sentence where texts are unknown."""
    known = words["text" if words["text"].nunique() > 1 else "sentence"]
    return pd.Categorical(known.astype(str))


def _counts(
    labelled: Labels, kind: str, layer: int, split: str, groups: dict[str, np.ndarray], texts: pd.Categorical,
    guess: np.ndarray,
) -> list[pd.DataFrame]:  # fmt: skip
    right = guess == labelled.ids[split]
    codes, size = texts.codes, len(texts.categories)
    out = []
    for name, inside in groups.items():
        counts = {"correct": np.bincount(codes[inside & right], minlength=size)}
        counts["total"] = np.bincount(codes[inside], minlength=size)
        found = counts["total"] > 0
        of = {"property": labelled.property, "labels": kind, "layer": layer, "split": split, "words": name}
        text = texts.categories.astype(str)[found]
        out.append(pd.DataFrame({"text": text, **{k: n[found] for k, n in counts.items()}, **of}))
    return out

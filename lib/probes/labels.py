"""Labels: what probes learn, control tasks, groups of words, and baselines without any encoder."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

WORDS = ("all", "ambiguous", "unseen")
"""Groups of words that have an accuracy: all; words whose type has several labels in training; unseen types."""


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
    def target(self) -> tuple[np.ndarray, int]:
        """What a probe learns: the label numbers of the training words, and how many labels there are."""
        return self.ids["train"], len(self.names)

    @property
    def unseen(self) -> dict[str, int]:
        """Words per split whose label never occurs in training."""
        return {split: int((ids < 0).sum()) for split, ids in self.ids.items()}


def label_set(words: dict[str, pd.DataFrame], name: str) -> Labels:
    """The labels of a property. ``words`` : split → table with a column ``name``.

    Raises ValueError if the property has fewer than two labels in training.
    """
    names = sorted(words["train"][name].astype(str).unique())
    if len(names) < 2:
        raise ValueError(f"property '{name}' has {len(names)} label in the training words: there is nothing to learn")
    return Labels(name, names, {s: pd.Index(names).get_indexer(t[name].astype(str)) for s, t in words.items()})


def control(words: dict[str, pd.DataFrame], real: Labels, seed: int) -> Labels:
    """The control task of a property (Hewitt & Liang 2019): each word type gets one label, drawn from the training
    distribution of the real labels; a probe can only learn it by heart."""
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
    ``lookup`` (the most frequent label of the word type; the majority label for unseen types)."""
    pairs = pd.DataFrame({"word": _types(words["train"]), "label": real.ids["train"]}).value_counts()
    ranked = pairs.reset_index().sort_values(["count", "label"], ascending=[False, True], kind="stable")
    known = ranked.drop_duplicates("word").set_index("word")["label"]
    top = int(np.bincount(real.ids["train"]).argmax())
    lookup = known.reindex(_types(words[split])).fillna(top).to_numpy(int)
    return {"majority": np.full(len(lookup), top), "lookup": lookup}


def _types(words: pd.DataFrame) -> np.ndarray:
    """The type of each word: [words] objects. Strings of NumPy would all be as wide as the longest."""
    return words["word"].to_numpy(object)


def text_ids(words: pd.DataFrame) -> pd.Categorical:
    """The units that the bootstrap resamples: the text of each word, or its sentence where texts are unknown."""
    known = words["text" if words["text"].nunique() > 1 else "sentence"]
    return pd.Categorical(known.astype(str))

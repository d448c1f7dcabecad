"""How good an encoder is: what linear probes read off its layers about parts of speech, in context and out of it."""

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from lib import activations, corpora, encoders, probes
from lib.activations import Activations
from lib.params import Study

MARKS = {"context": 8.0, "lookup": 8.0, "random": 10.0, "loss": 2.0}
"""What an encoder must reach to be worth a study of context: points of accuracy (``marks``), and nats of held-out loss
under the unigram entropy."""


def table(study: Study) -> pd.DataFrame:
    """Test accuracy of part-of-speech probes on every layer of an encoder and of its random twin, in %.

    Returns
    -------
    One row per encoder (pretrained, random), words (all, ambiguous, unseen) and layer, with its ``accuracy``. Layer -1
    is the look-up: the most frequent tag of each word type.
    """
    words = corpora.load(study)
    models = {"pretrained": encoders.pretrained(study), "random": encoders.randomised(study)}
    return pd.concat([layer_accuracy(study, model, words).assign(encoder=name) for name, model in models.items()])


def layer_accuracy(study: Study, model: PreTrainedModel, words: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Test accuracy, in %, of one encoder: one row per ``words`` and ``layer``."""
    place = encoders.device(study)
    stores = {split: in_memory(study, model.to(place), words[split]) for split in ("train", "test")}
    seen = {split: store.words for split, store in stores.items()}
    real = probes.labels(seen, study.properties[0])
    (probe,) = probes.fit(stores["train"], [probes.Head([real])], study.probe, study.seed, place)
    lookup = probes.baselines(seen, real, "test")["lookup"]
    right = np.concatenate([lookup[None], probe.predict(stores["test"])[0]]) == real.ids["test"]
    groups = probes.word_groups(seen, real, "test")
    rows = [(kind, k - 1, 100 * row[inside].mean()) for kind, inside in groups.items() for k, row in enumerate(right)]
    return pd.DataFrame(rows, columns=["words", "layer", "accuracy"])


def in_memory(study: Study, model: PreTrainedModel, words: pd.DataFrame) -> Activations:
    """The word vectors of a split, not written to disk."""
    tok = encoders.tokenizer(study)
    sentences = [g.tolist() for _, g in words.groupby("sentence", sort=False)["word"]]
    alignments = encoders.align(tok, sentences, encoders.limit(study, tok, model))
    if any(a.dropped for a in alignments):
        raise encoders.EncoderError("the tokenizer leaves words without a vector: encoders cannot be compared on them")
    layers, width = encoders.shape(study)
    vectors = np.empty((layers, len(words), width), np.float16)
    for rows, block in activations.extract(model, alignments, tok.pad_token_id, study.encoder.batch_pieces):
        vectors[:, rows] = block
    return Activations(vectors, words.reset_index(drop=True), pd.DataFrame())


def marks(accuracy: pd.DataFrame) -> dict[str, float]:
    """What decides whether an encoder is good enough, in points of accuracy.

    ``context`` : best layer minus embedding layer, on ambiguous words. ``lookup`` : best layer minus look-up, on them.
    ``random`` : best layer minus the random encoder's best layer, on all words.
    """
    found = accuracy.set_index(["encoder", "words", "layer"])["accuracy"]
    unclear, random = found["pretrained", "ambiguous"], found["random", "all"]
    best = unclear.drop(-1).max()
    return {
        "context": best - unclear[0],
        "lookup": best - unclear[-1],
        "random": found["pretrained", "all"].drop(-1).max() - random.drop(-1).max(),
    }

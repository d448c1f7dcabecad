"""How good an encoder is: what linear probes read off its layers about parts of speech, in context and out of it."""

import pandas as pd

from lib import disk, results
from lib.results.summary import pick
from lib.study.params import Study
from lib.study.runs import Run
from lib.study.variants import Variant

MARKS = {"context": 8.0, "lookup": 8.0, "random": 10.0, "loss": 2.0}
"""What an encoder must reach to be worth a study of context: points of accuracy (``marks``), and nats of held-out loss
under the unigram entropy."""


def table(study: Study) -> pd.DataFrame:
    """Test accuracy of the probes on every layer of an encoder and of its random twin; deletes their activations.

    Returns
    -------
    As ``results.accuracies`` gives it, of the variants pretrained and random: target real, and lookup at layer -1.
    """
    wanted = [Run(study, Variant.parse(name)) for name in ("pretrained", "random")]
    accuracy = results.accuracies(results.layers(wanted))
    for run in wanted:
        disk.remove(run.folder / "activations")
    return accuracy[accuracy["target"].isin(["real", "lookup"])]


def marks(accuracy: pd.DataFrame) -> dict[str, float]:
    """What decides whether an encoder is good enough, in points of accuracy; ``accuracy`` as ``table`` gives it.

    ``context`` : best layer minus embedding layer, on ambiguous words. ``lookup`` : best layer minus look-up, on them.
    ``random`` : best layer minus the random encoder's best layer, on all words.
    """
    unclear, every, random = (
        100 * pick(accuracy, variant=variant, word_group=words).set_index("layer")["accuracy"]
        for variant, words in (("pretrained", "ambiguous"), ("pretrained", "all"), ("random", "all"))
    )
    best = unclear.drop(-1).max()
    return {
        "context": best - unclear[0],
        "lookup": best - unclear[-1],
        "random": every.drop(-1).max() - random.drop(-1).max(),
    }

"""The paper as printed: its numbers (``paper/numbers.csv``), the claims judged on them, and the slips in them.

Accuracies and scores are in per cent, losses in points. Layer 0 is the embedding output: what the paper's axis calls 1.
"""

from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd

from lib.results.claims import FORGET, KEEP, Evidence
from lib.results.summary import pick
from lib.study import params

MODELS = {"BERT": "bert", "RoBERTa": "roberta", "XLNet": "xlnet"}
"""The paper's encoders → ``model_type`` of their config.json."""

CONDITIONS = {
    "Base": "pretrained", "SST": "sst2", "QNLI": "qnli", "MNLI": "mnli", "STS": "stsb", "RTE": "rte", "MRPC": "mrpc",
}  # fmt: skip
"""What the paper calls an encoder before and after fine-tuning → condition here."""

MEASURES = {
    "accuracy": "layer", "accuracy all": "all", "accuracy top neurons": "top", "accuracy selected": "selected", "accuracy bottom neurons": "bottom",
    "top neurons in layer": "top per layer", "dev score, no pruning": "score", "dev score, prune top 6": "score",
    "dev score, prune bottom 6": "score",
}  # fmt: skip
"""What ``numbers.csv`` calls a number → the measure of ``claims.Evidence``."""


@lru_cache
def numbers() -> pd.DataFrame:
    """All printed numbers: ``source`` (table or figure), ``status`` (read, exact, digitised and how closely),
    ``model``, ``property``, ``condition``, ``dropped`` (top or bottom layers), ``measure``, ``layer`` (-1: none),
    ``value``."""
    rows = pd.read_csv(params.ROOT / "paper" / "numbers.csv", keep_default_na=False)
    dropped = rows["measure"].str.extract(r"prune (top|bottom)", expand=False).fillna("")
    return rows.assign(
        property=rows["property"].str.lower(),
        condition=rows.pop("task").replace(CONDITIONS),
        dropped=dropped,
        layer=rows["layer"].replace("", "-1").astype(int),
    )


@lru_cache
def evidence() -> Evidence:
    """The printed numbers as evidence for the claims, without Figure 2, which repeats Figure 3."""
    rows = numbers()
    rows = rows[(rows["source"] != "Figure 2") & rows["measure"].isin(MEASURES)]
    rows = rows.assign(measure=rows["measure"].map(MEASURES), seed=np.where(rows["condition"] == "pretrained", -1, 1))
    cut = rows["dropped"].map({"": "", "top": "-droptop6", "bottom": "-dropbottom6"})
    rows = rows.assign(task=rows["condition"].where(rows["condition"] != "pretrained", ""))
    rows["condition"] += cut
    tuned = pick(rows, seed=1)[["model", "condition", "task", "dropped"]].drop_duplicates()
    keys = ["measure", "model", "condition", "seed", "property"]
    values = {key: of.sort_values("layer")[["value"]].to_numpy() for key, of in rows.groupby(keys)}
    columns = {"amount": "", "rate": "", "checkpoint": -1, "seed": 1, "learnt": True}
    titles = {model: f"{model}-base, as printed" for model in MODELS}
    return Evidence(titles, MODELS, tuned.rename(columns={"model": "study"}).assign(**columns), values, printed=True)


# Slips ------------------------------------------------------------------------------------------------------------


def bottom_neurons(evidence: Evidence) -> pd.DataFrame:
    """Slip a, in any study: does the accuracy of the bottom neurons follow that of the top layer?

    Returns
    -------
    One row per study and property, over all its variants of whole encoders. ``r`` : Pearson's, of the bottom neurons'
    accuracy with the top layer's; ``r_below`` : with the mean of the rest of the top third; ``r_top`` : with the top
    neurons'. ``difference`` : mean distance from the top layer, in points. ``in_top_layer`` : the share of the bottom
    neurons that lie there, before fine-tuning (NaN: not known).
    """
    rows = []
    for study, name, tasks in evidence.each("bottom"):
        if name not in evidence.properties("layer", study):
            continue
        runs = [(study, condition) for condition in ("pretrained", *tasks)]
        per_run = {
            measure: [one[..., 0].mean(-1) for run in runs for one in evidence.numbers(measure, name, run)]
            for measure in ("layer", "bottom", "top")
        }
        layers = np.array(per_run["layer"]).T
        bottom, top = (np.ravel(per_run[measure]) for measure in ("bottom", "top"))
        count = len(layers) // 3
        lie = evidence.values.get(("bottom per layer", study, "pretrained", -1, name), np.full((1, 1), np.nan))[:, 0]
        r = {
            "r": layers[-1],
            "r_below": layers[-count:-1].mean(0),
            "r_top": top,
        }
        rows.append(
            {"study": study, "property": name, "variants": len(runs)}
            | {key: np.corrcoef(bottom, other)[0, 1] for key, other in r.items()}
            | {"difference": np.abs(bottom - layers[-1]).mean(), "in_top_layer": lie[-1] / lie.sum()}
        )
    return pd.DataFrame(rows)


def lowest_layers(evidence: Evidence) -> pd.DataFrame:
    """Slip b, in any study: smallest and largest loss over the tasks at layers 0 and 1, in points (means over seeds):
    one row per study, property and layer."""
    rows = []
    for study, name, tasks in evidence.each("layer"):
        losses = [evidence.losses("layer", name, (study, task))[0][:2, :, 0].mean(1) for task in tasks]
        for layer, lost in enumerate(np.transpose(losses)):
            rows.append({"study": study, "property": name, "layer": layer, "low": lost.min(), "high": lost.max()})
    return pd.DataFrame(rows)


def against_the_grouping(evidence: Evidence) -> pd.DataFrame:
    """Slip f: the pairs of tasks of which the one that keeps loses more at the top layer than the one that forgets."""
    rows = []
    for study, name, tasks in evidence.each("layer"):
        lost = {task: evidence.losses("layer", name, (study, task))[0][-1, :, 0].mean() for task in tasks}
        rows += [
            {"study": study, "property": name, "keeps": keep, "loss": lost[keep], "forgets": forget, "less": lost[forget]}
            for keep, forget in product(KEEP, FORGET)
            if lost.get(keep, -np.inf) > lost.get(forget, np.inf)
        ]
    return pd.DataFrame(rows, columns=["study", "property", "keeps", "loss", "forgets", "less"])


def copied_cells() -> pd.DataFrame:
    """Slip e: pairs of top and bottom accuracy that stand in two tables alike: source and property of both."""
    wide = pick(numbers(), status="read").pivot_table("value", ["source", "property", "model", "condition"], "measure")
    pairs = wide[["accuracy top neurons", "accuracy bottom neurons"]].dropna().reset_index()
    both = pairs.merge(pairs, on=["model", "accuracy top neurons", "accuracy bottom neurons"], suffixes=("", "_again"))
    return both[both["source"] < both["source_again"]].reset_index(drop=True)


def tables_disagree(within: float = 0.2) -> pd.DataFrame:
    """Slip e: where Tables 1, 4, 5 and Table 7 print the top neurons' accuracy before fine-tuning more than ``within``
    points apart, as rounding does not explain."""
    rows = pick(numbers(), condition="pretrained").pivot_table("value", ["model", "property"], "measure")
    apart = (rows["accuracy top neurons"] - rows["accuracy selected"]).round(9)
    return rows[["accuracy top neurons", "accuracy selected"]].assign(apart=apart)[apart.abs() > within].reset_index()

"""The paper as printed: its numbers (``paper/numbers.csv``), the claims judged on them, and the slips in them.

Accuracies and scores are in per cent, losses in points. Layer 0 is the embedding output: what the paper's axis calls 1.
"""

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from lib.results import claims
from lib.results.claims import FORGET, KEEP, Evidence, counted, judge, signs, table
from lib.results.summary import pick
from lib.study import loading, params
from lib.study.variants import Variant

MODELS = {"BERT": "bert", "RoBERTa": "roberta", "XLNet": "xlnet"}
"""The paper's encoders → ``model_type`` of their config.json."""

CONDITIONS = {
    "Base": "pretrained", "SST": "sst2", "QNLI": "qnli", "MNLI": "mnli", "STS": "stsb", "RTE": "rte", "MRPC": "mrpc",
}  # fmt: skip
"""What the paper calls an encoder before and after fine-tuning → condition here."""

MEASURES = {
    "accuracy": "layer", "accuracy all": "all", "accuracy selected": "selected", "accuracy top neurons": "top",
    "accuracy bottom neurons": "bottom", "top neurons in layer": "top per layer", "dev score, no pruning": "score",
    "dev score, prune top 6": "score", "dev score, prune bottom 6": "score",
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
    tuned["layers_dropped"] = tuned["dropped"].map({"": 0}).fillna(6).astype(int)
    columns = {"amount": "", "rate": "", "checkpoint": -1, "seed": 1, "learnt": True}
    titles = {model: f"{model}-base, as printed" for model in MODELS}
    return Evidence(titles, MODELS, tuned.rename(columns={"model": "study"}).assign(**columns), values, printed=True)


# Tables in the form of our own --------------------------------------------------------------------------------------


def table_of(measure: str, value: str, share: float = 1.0) -> pd.DataFrame:
    """The printed numbers of a measure of ``MEASURES`` as ``results`` gives ours: ``study`` (the model), the columns of
    the variant, ``property``, ``source`` and so on, ``layer``, and the number times ``share`` in a column ``value``."""
    rows = numbers()
    rows = rows[(rows["source"] != "Figure 2") & (rows["measure"].map(MEASURES) == measure) & (rows["dropped"] == "")]
    named = {name: Variant.parse(name, 1).columns() for name in rows["condition"].unique()}
    columns = pd.DataFrame([named[name] for name in rows["condition"]], rows.index)
    same = {"source": "gold", "target": "real", "word_group": "all", "ranking": "lca"}
    return columns.assign(
        study=rows["model"], property=rows["property"], layer=rows["layer"], **same, **{value: share * rows["value"]}
    )


def accuracies() -> pd.DataFrame:
    """Accuracy per layer, Figure 1, as ``results.accuracies``; fractions."""
    return table_of("layer", "accuracy", 0.01)


def drops() -> pd.DataFrame:
    """Loss per layer, from Figure 1, as ``results.drops``; fractions."""
    after, where = accuracies(), ["study", "property", "layer"]
    before = pick(after, condition="pretrained").set_index(where)["accuracy"]
    tuned = after[after["task"] != ""]
    return tuned.assign(drop=before.loc[pd.MultiIndex.from_frame(tuned[where])].to_numpy() - tuned.pop("accuracy"))


def neuron_layers() -> pd.DataFrame:
    """Where the top neurons lie, Figures 2 and 3, as ``results.neuron_layers``."""
    return table_of("top per layer", "neurons")


def neuron_sets() -> pd.DataFrame:
    """Accuracy of the top and the bottom neurons, Tables 1, 4 and 5, as ``results.accuracies`` gives it of
    ``results.neuron_sets``; fractions."""
    return pd.concat([table_of(end, "accuracy", 0.01).assign(neurons=end) for end in ("top", "bottom")])


def task_scores() -> pd.DataFrame:
    """Scores of the whole and the pruned encoders, Tables 2 and 6, as ``results.task_scores``; fractions."""
    tuned = evidence().tuned
    scores = [evidence().values.get(("score", row.study, row.condition, 1, ""), [[np.nan]])[0][0]
              for row in tuned.itertuples()]  # fmt: skip
    return tuned.assign(score=0.01 * np.array(scores), majority=np.nan).dropna(subset="score")


def selectivity() -> pd.DataFrame:
    """Accuracy and selectivity of all and of the top neurons, Table 7, in per cent: study, property, neurons."""
    rows = pick(numbers(), source="Table 7")
    rows = rows[rows["measure"].str.contains(" ") & ~rows["measure"].str.startswith("neurons")]
    kind = rows["measure"].str.split(" ", expand=True)
    named = rows.assign(number=kind[0], neurons=kind[1].replace("selected", "top"), study=rows["model"])
    named["study"] += "-base, as printed"
    return (
        named.pivot_table("value", ["study", "property", "neurons"], "number").reset_index().rename_axis(columns=None)
    )


def selectivity_beside(table: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """Accuracy and selectivity of all and of the top neurons, ours before the paper's: ``encoder``, property, neurons.

    ``table`` : as ``results.selectivity_of_sets`` gives it. ``titles`` : study → title of its encoder.
    """
    ours = table.assign(encoder=table["study"].map(titles)).drop(columns="study")
    return pd.concat([ours, selectivity().rename(columns={"study": "encoder"})], ignore_index=True)


def score(model: str, task: str, dropped: str = "") -> float | None:
    """The printed score, in per cent, of a model on a task, whole or with its ``top`` or ``bottom`` half dropped; None
    if it is not printed."""
    condition = f"{task}-drop{dropped}6" if dropped else task
    found = evidence().values.get(("score", model, condition, 1, ""))
    return None if found is None else float(found[0, 0])


def models_of(architecture: str) -> list[str]:
    """The paper's encoder of an architecture; all three, if it has none of that."""
    return [model for model, kind in MODELS.items() if kind == architecture] or [*MODELS]


# Ours beside the paper's ------------------------------------------------------------------------------------------


def beside(judged: pd.DataFrame) -> pd.DataFrame:
    """Judged claims (``claims.judge``) with what the paper's encoder of that architecture gives for the same number, or
    all three of them, if the paper has none of that.

    Returns
    -------
    The rows, with ``paper low`` and ``paper high`` : of the task, or over all that the paper has, if ours is not among
    them; ``paper`` : the verdicts on its own numbers; ``same direction`` : yes or no, empty if the paper's numbers have
    both signs or there are none.
    """
    shown = judge(evidence())
    rows = []
    for row in judged.itertuples():
        known = row.architecture in MODELS.values()
        where = {"architecture": row.architecture, "expected": row.expected} if known else {}
        alike = pick(shown, claim=row.claim, property=row.property, **where).dropna(subset="effect")
        alike = alike[(alike["expected"] == "") == (row.expected == "")]
        alike = alike[alike["compared"] == row.compared] if row.compared in set(alike["compared"]) else alike
        directions = {*np.sign(alike["effect"].round(9))}
        # a zero has no direction, and "at most" and "within" have none either
        one_way = len(directions - {0.0}) == len(directions) == 1 and row.expected not in ("at most", "within")
        one_way = one_way and known and row.seeds and round(row.effect, 9) != 0
        same = {True: "yes", False: "no"}[np.sign(row.effect) in directions] if one_way else ""
        outcome = counted(signs(alike)) if known and row.expected and len(alike) else ""
        rows.append([alike["effect"].min(), alike["effect"].max(), outcome, same])
    return judged.join(pd.DataFrame(rows, judged.index, ["paper low", "paper high", "paper", "same direction"]))


def losses_beside(lost: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """The loss over the top third of the layers, in points, ours before the paper's: a row per property and task of the
    paper's, a column per encoder; without rows if ours has none of its tasks.

    ``lost`` : as ``claims.losses`` gives it. ``titles`` : study → title of its encoder.
    """
    printed = claims.losses(evidence())
    both = pick(pd.concat([lost, printed], ignore_index=True), measure="top third")
    both = both[both["task"].isin({*lost["task"]} & {*printed["task"]}) & both["property"].isin(set(lost["property"]))]
    named = {**titles, **{model: f"the paper's {model}" for model in MODELS}}
    wide = both.assign(encoder=both["study"].map(named)).pivot_table(
        "value", ["property", "task"], "encoder", sort=False
    )
    return wide.reindex(columns=[title for title in named.values() if title in wide]).reset_index()


def overview(judged: pd.DataFrame) -> pd.DataFrame:
    """``claims.overview`` with the claims in a few words, and beside each encoder the paper's (``models_of``)."""
    ours, theirs, words = claims.overview(judged), claims.overview(judge(evidence())), table()
    columns: dict[str, pd.Series] = {"claim": ours["claim"].map(lambda name: f"{name}: {words[name].short}")}
    encoders = judged[judged["encoder"] != ""].sort_values("study", kind="stable")
    encoders = encoders[["encoder", "architecture"]].drop_duplicates()  # as in all figures
    for title, architecture in encoders.itertuples(index=False):
        columns[title] = ours[title]
        for model in models_of(architecture):
            columns[f"the paper's {model}"] = theirs[evidence().titles[model]]
    return pd.DataFrame(columns)


def agreement(judged: pd.DataFrame) -> pd.DataFrame:
    """Claim → how many of its numbers have the direction of the paper's. ``judged`` : as ``beside`` gives it."""
    known = judged[judged["same direction"].isin(["yes", "no"])]
    share = known.assign(yes=known["same direction"] == "yes").groupby("claim")["yes"].agg(["sum", "size"])
    text = (share["sum"].astype(str) + " of " + share["size"].astype(str)).reindex(list(table()), fill_value="–")
    return text.rename("as the paper").rename_axis("claim").reset_index()


# Slips ------------------------------------------------------------------------------------------------------------


def bottom_neurons(evidence: Evidence) -> pd.DataFrame:
    """Slip a, in any study: does the accuracy of the bottom neurons follow that of the top layer?

    Returns
    -------
    One row per study and property, over all its ``variants`` of whole encoders, each seed for itself. ``r`` :
    Pearson's, of the bottom neurons' accuracy with the top layer's; ``r_below`` : with the mean of the rest of the top
    third; ``r_top`` : with the top neurons' (NaN with fewer than four variants). ``difference`` : mean distance from
    the top layer, in points. ``in_top_layer``, ``in_top_layer_after`` : the share of the bottom neurons that lie there,
    before and after fine-tuning (NaN: not known).
    """
    rows = []
    for study, name, tasks in evidence.each("bottom"):
        tasks = evidence.learnt(tasks, study)
        if name not in evidence.properties("layer", study) or not tasks:
            continue
        layers, bottom, top = (
            np.hstack([evidence.numbers(measure, name, (study, c))[0][..., 0] for c in ("pretrained", *tasks)])
            for measure in ("layer", "bottom", "top")
        )  # [layers, variants], and twice [1, variants]
        beside = {"r": layers[-1], "r_below": layers[-(len(layers) // 3) : -1].mean(0), "r_top": top[0]}
        few = bottom.size < 4  # any two points lie on a line
        share = after = np.nan
        if "bottom per layer" in evidence.measures:
            lie = [evidence.numbers("bottom per layer", name, (study, c))[0][..., 0] for c in ("pretrained", *tasks)]
            share, *others = (float((one[-1] / one.sum(0)).mean()) for one in lie)
            after = np.mean(others)
        rows.append(
            {"study": study, "property": name, "variants": bottom.size}
            | {key: np.nan if few else np.corrcoef(bottom[0], other)[0, 1] for key, other in beside.items()}
            | {"difference": np.abs(bottom[0] - layers[-1]).mean(), "in_top_layer": share, "in_top_layer_after": after}
        )
    return pd.DataFrame(rows)


def lowest_layers(evidence: Evidence) -> pd.DataFrame:
    """Slip b, in any study: smallest and largest loss over the tasks at layers 0 and 1, in points (means over seeds):
    one row per study, property and layer."""
    rows = []
    for study, name, tasks in evidence.each("layer"):
        tasks = evidence.learnt(tasks, study)
        losses = [evidence.losses("layer", name, (study, task))[0][:2, :, 0].mean(1) for task in tasks]
        for layer, lost in enumerate(np.transpose(losses)):
            rows.append({"study": study, "property": name, "layer": layer, "low": lost.min(), "high": lost.max()})
    return pd.DataFrame(rows, columns=["study", "property", "layer", "low", "high"])


def against_the_grouping(evidence: Evidence) -> pd.DataFrame:
    """Slip f: the pairs of tasks of which the one that keeps loses more at the top layer than the one that forgets."""
    rows = []
    for study, name, tasks in evidence.each("layer"):
        lost = {
            task: evidence.losses("layer", name, (study, task))[0][-1, :, 0].mean()
            for task in evidence.learnt(tasks, study)
        }
        rows += [
            {
                "study": study,
                "property": name,
                "keeps": keep,
                "loss": lost[keep],
                "forgets": forget,
                "less": lost[forget],
            }
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


def slips() -> dict[str, str]:
    """What a fair reader of the printed numbers notices (``paper/slips.yaml``), with the ``facts``."""
    texts = loading.read_yaml(params.ROOT / "paper" / "slips.yaml")
    return {letter: text.format(**facts()) for letter, text in texts.items()}


def facts() -> dict[str, Any]:
    """The numbers in the slips, counted from the printed ones."""
    judged, printed = judge(evidence()), evidence().values
    moved, costs = pick(judged, claim="P6"), pick(judged, claim="P8", study="XLNet").set_index("compared")["effect"]
    both = moved[moved["architecture"].isin(["roberta", "xlnet"]) & (moved["expected"] != "")]
    below_top = pick(moved, architecture="xlnet", expected="")
    kinds = (
        both.assign(forgets=both["compared"].isin(FORGET)).groupby(["study", "property", "forgets"])["effect"].mean()
    )
    further = -0.12 * kinds.unstack().diff(axis=1)[True]  # layers of twelve
    found = {
        "down": (both["effect"] < 0).sum(), "shifts": len(both),
        "up": (below_top["effect"] > 0).sum(), "below": len(below_top),
        "further_low": further.min(), "further_high": further.max(),
        "qnli": round(costs["qnli, bottom layers dropped"], 9),
        "constant": printed["layer", "XLNet", "qnli", 1, "pos"][-1, 0],
        "bert_mnli": evidence().losses("layer", "pos", ("BERT", "mnli"))[0][-1].item(),
        "bert_qnli": evidence().losses("layer", "pos", ("BERT", "qnli"))[0][-1].item(),
        "score": printed["score", "XLNet", "qnli", 1, ""].item(),
        "selected": printed["top", "XLNet", "qnli", 1, "pos"].item(),
        "tables_apart": pick(tables_disagree(), model="RoBERTa", property="pos")["apart"].item(),
        "against": "; ".join(f"{row.property}: {row.keeps} {row.loss:.1f}, {row.forgets} {row.less:.1f}"
                             for row in against_the_grouping(evidence()).itertuples()),
        "copied": "; ".join(f"{row.model}, {row.condition}: {row.source} ({row.property}) and {row.source_again} "
                            f"({row.property_again})" for row in copied_cells().itertuples()),
    }  # fmt: skip
    for row in bottom_neurons(evidence()).itertuples():
        kind = MODELS[row.study]
        of_pos = {f"r_{kind}": row.r, f"below_{kind}": row.r_below, f"apart_{kind}": row.difference}
        found |= of_pos if row.property == "pos" else {f"chunk_{kind}": row.r}
    for row in lowest_layers(evidence()).itertuples():
        found[f"low_{MODELS[row.study]}_{row.property}_{row.layer}"] = f"{row.low:.2f} to {row.high:.2f}"
    return found

"""Claims: what the paper says (``paper/claims.yaml``), each a function over numbers of runs, and the one rule for all.

The same functions judge our runs and the paper's own printed numbers. Verdicts are about gold properties and all words
of the test split. A fine-tuned run that did not learn its task (``results.task_scores``) tells nothing and is left out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy import stats

from lib.results import spread
from lib.results.evidence import WHOLE
from lib.results.evidence import Evidence as Evidence
from lib.results.evidence import evidence as evidence
from lib.results.evidence import evidence_of as evidence_of
from lib.results.summary import pick, top_third
from lib.study import loading, params

FORGET, KEEP = ("sst2", "qnli", "mnli"), ("stsb", "rte", "mrpc")
"""The GLUE tasks after which, the paper says, the higher layers forget or keep the properties."""

REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE = "reproduced", "not reproduced", "undecided", "not testable here"

NEITHER = "neither"
LIKE = {
    ("bert",): "as BERT", ("roberta", "xlnet"): "as RoBERTa and XLNet", ("bert", "roberta", "xlnet"): "as all three",
}  # fmt: skip
"""What is said of an architecture that the paper does not have, in place of a verdict: of which of the paper's
encoders the claim expects such a number; ``NEITHER`` : of none."""

MIN_SEEDS = 3
"""Fewer seeds that learnt their task give no verdict, whatever the interval."""


@dataclass(frozen=True)
class Claim:
    """A row of ``paper/claims.yaml``, where its fields are explained."""

    id: str
    section: str
    short: str
    says: str
    compared: str
    unit: str
    margin: float
    because: str
    expected: dict[str, str]
    limits: str
    onset: float = np.nan

    @property
    def ours(self) -> bool:
        """Whether the paper does not make it."""
        return self.section == "not in the paper"

    def expects(self, architecture: str) -> str:
        """What is expected of an architecture: as in ``claims.yaml``; several, for one that the paper does not have, if
        the claim expects something of BERT too: else nothing tells what it is like."""
        known = architecture in set().union(*LIKE) or "bert" not in self.expected
        others = set() if known else set(self.expected.values())
        return self.expected.get(architecture, ", ".join(sorted(others)))

    def scaled(self, factor: float) -> "Claim":
        """The claim with its margins multiplied."""
        return Claim(**vars(self) | {"margin": self.margin * factor, "onset": self.onset * factor})


def table() -> dict[str, Claim]:
    """The claims by their ids."""
    rows = loading.read_yaml(params.ROOT / "paper" / "claims.yaml")
    return {name: Claim(id=name, limits=row.pop("not"), **row) for name, row in rows.items()}


# What is compared ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A number that a claim is about.

    ``runs`` : study and condition of each run that it takes. ``effect`` : [seeds, 1 + resamples]; with a ``fold``,
    [cells, seeds, 1 + resamples] of the numbers of which it is one. ``words`` : [seeds, half-samples], if the words
    matter that a ranking was learnt from. ``label`` : what is compared. ``other`` : the study against which. ``judged``
    : whether it decides; else it is only shown. ``doubt`` : why it cannot decide.
    """

    study: str
    property: str
    label: str
    runs: Sequence[tuple[str, str]]
    effect: np.ndarray
    other: str = ""
    judged: bool = True
    doubt: str = ""
    words: np.ndarray | None = None
    fold: "Fold" = field(default_factory=lambda: ONE)

    @property
    def per_seed(self) -> np.ndarray:
        """[seeds] the number in each of them."""
        return self.fold.of(self.effect[..., 0])


@dataclass(frozen=True)
class Fold:
    """Which of several numbers is judged, by size: ``of`` takes the smaller or the larger ones along the first axes.
    ``smallest``, ``largest`` : whether it is just that."""

    of: Callable[[np.ndarray], np.ndarray]
    smallest: bool = False
    largest: bool = False


ONE = Fold(lambda numbers: numbers, smallest=True, largest=True)
SMALLEST = Fold(lambda numbers: numbers.min(0), smallest=True)
LARGEST = Fold(lambda numbers: numbers.max(0), largest=True)
LARGEST_DIFFERENCE = Fold(lambda numbers: numbers.min(1).max(0))
"""Of all differences, [of one, of the other, ...]: that of the largest of one and the largest of the other."""


def onset(loss: np.ndarray, margin: float) -> np.ndarray:
    """First layer from which a loss stays more than ``margin`` above its smallest value below the top third of the
    layers; the number of layers if it never does: [layers, ...] → [...]."""
    lowest = loss[: len(loss) - len(loss) // 3].min(0)
    lost = np.round(loss - lowest, 9) > margin
    return len(loss) - np.logical_and.accumulate(lost[::-1]).sum(0).astype(float)


def mean_layer(per_layer: np.ndarray) -> np.ndarray:
    """Mean layer of neurons by their number per layer, in per cent of the depth: [layers, ...] → [...]."""
    layers = np.arange(len(per_layer)) / (len(per_layer) - 1)
    return 100 * np.tensordot(layers, per_layer, 1) / per_layer.sum(0)


def losses(evidence: Evidence, margin: float = 1.0) -> pd.DataFrame:
    """What each task costs each encoder, in numbers that the claims are about (P1 to P4): one row per study, property,
    task and ``measure``, with its mean over ``seeds`` and its 95 % interval (``low``, ``high``).

    Measures, in points unless it is a layer: loss over the ``top third``, at the ``top layer``, at ``layer 0`` and
    ``layer 1``, the ``smallest`` of all, the layer where it ``begins`` (``onset`` with this margin).
    """
    columns = ["study", "property", "task", "measure", "seeds", "value", "low", "high"]
    rows = []
    for study, name, tasks in evidence.each("layer"):
        for task in evidence.learnt(tasks, study):
            (loss,) = evidence.losses("layer", name, (study, task))
            measures = {
                "top third": top_third(loss), "top layer": loss[-1], "layer 0": loss[0], "layer 1": loss[1],
                "smallest": loss, "begins": onset(loss, margin),
            }  # fmt: skip
            for measure, effect in measures.items():
                found = Estimate.of(effect, fold=SMALLEST if measure == "smallest" else ONE)
                low, high = found.interval
                cell = {"study": study, "property": name, "task": task, "measure": measure, "seeds": loss.shape[1]}
                rows.append(cell | {"value": found.value, "low": low, "high": high})
    return pd.DataFrame(rows, columns=columns)


# The claims -------------------------------------------------------------------------------------------------------


def p1(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """Tasks that forget minus tasks that keep; without both kinds, each two tasks, without a verdict."""
    for study, name, tasks in evidence.each("layer"):
        tasks = evidence.learnt(tasks, study)
        forget, keep = ([task for task in tasks if task in kind] for kind in (FORGET, KEEP))
        for left, right in [(forget, keep)] if forget and keep else [([a], [b]) for a, b in combinations(tasks, 2)]:
            runs = [(study, task) for task in left + right]
            lost = [top_third(loss) for loss in evidence.losses("layer", name, *runs)]
            effect = np.mean(lost[: len(left)], 0) - np.mean(lost[len(left) :], 0)
            label = f"{', '.join(left)} − {', '.join(right)}"
            yield Comparison(study, name, label, runs, effect, judged=bool(forget and keep))


def p2(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """Where the loss begins: BERT minus the other encoder."""
    for other, bert, name, tasks in evidence.pairs("layer"):
        for runs in ([(bert, task), (other, task)] for task in tasks if task not in KEEP):
            first, second = (onset(loss, claim.onset) for loss in evidence.losses("layer", name, *runs))
            never = min(first[:, 0].min(initial=np.inf), second[:, 0].min(initial=np.inf)) == evidence.depth(bert)
            doubt = "no loss begins in either" if never else ""
            yield Comparison(other, name, runs[0][1], runs, first - second, bert, doubt=doubt)


def p3(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """The largest loss at the top layer: the other encoder minus BERT."""
    for other, bert, name, tasks in evidence.pairs("layer"):
        if not (tasks := evidence.learnt(tasks, other, bert)):
            continue
        runs = [*product((other, bert), tasks)]
        at_top = np.array([loss[-1] for loss in evidence.losses("layer", name, *runs)])
        effect = at_top[: len(tasks), None] - at_top[None, len(tasks) :]
        label = f"largest of {', '.join(tasks)}"
        yield Comparison(other, name, label, runs, effect, bert, fold=LARGEST_DIFFERENCE)


def p4(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """The smallest loss of all layers and tasks."""
    for study, name, tasks in evidence.each("layer"):
        if not (runs := [(study, task) for task in evidence.learnt(tasks, study)]):
            continue
        effect = np.concatenate(evidence.losses("layer", name, *runs))
        label = f"smallest of {', '.join(task for _, task in runs)}"
        yield Comparison(study, name, label, runs, effect, fold=SMALLEST)


def p4b(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """The largest loss below the layer where it begins, over all tasks."""
    for study, name, tasks in evidence.each("layer"):
        if not (runs := [(study, task) for task in evidence.learnt(tasks, study)]):
            continue
        losses = evidence.losses("layer", name, *runs)
        begins = [int(onset(loss[..., 0].mean(1), claim.onset)) for loss in losses]
        effect = np.concatenate([loss[:first] for loss, first in zip(losses, begins, strict=True)])
        label = f"largest of {', '.join(task for _, task in runs)}"
        yield Comparison(study, name, label, runs, effect, fold=LARGEST)


def p5(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """The loss of the bottom neurons, and, without a verdict, of the top ones."""
    for end, label in (("bottom", "{}"), ("top", "{}, top neurons")):
        for study, name, tasks in evidence.each(end):
            for task in tasks:
                runs = [(study, "pretrained"), (study, task)]
                (before,), (after,) = evidence.numbers(end, name, *runs)
                halves, judged = evidence.halves(end, name, *runs), end == "bottom"
                words, doubt = (halves[0] - halves[1])[0] if halves else None, _of_words(evidence, halves)
                shown = label.format(task)
                yield Comparison(study, name, shown, runs, before - after, judged=judged, doubt=doubt, words=words)


def p6(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """The shift of the top neurons, and, without a verdict, of those below the top layer. It says nothing where these
    neurons, all others zeroed, do no better than random ones."""
    for judged, label in ((True, "{}"), (False, "{}, without the top layer")):
        for study, name, tasks in evidence.each("top per layer"):
            for task in tasks:
                runs = [(study, task), (study, "pretrained")]
                effect = _shift(evidence.numbers("top per layer", name, *runs), judged)
                halves = evidence.halves("top per layer", name, *runs)
                words = _shift(halves, judged) if halves else None
                tested = evidence.numbers("ranked", name, *runs) if "ranked" in evidence.measures else []
                doubt = "" if all((margin > 0).all() for margin in tested) else "no better than random neurons"
                doubt = "not tested against random neurons" if np.isnan(tested).any() else doubt
                doubt = doubt or _of_words(evidence, halves)
                shown = label.format(task)
                yield Comparison(study, name, shown, runs, effect, judged=judged, doubt=doubt, words=words)


def _shift(both: Sequence[np.ndarray], whole: bool) -> np.ndarray:
    """Mean layer after minus before, of the neurons in all layers or, unless ``whole``, in all but the top one."""
    after, before = (n if whole else np.concatenate([n[:-1], 0 * n[-1:]]) for n in both)
    return mean_layer(after) - mean_layer(before)


def p7(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """All neurons minus the top ones, before fine-tuning."""
    for study in evidence.titles:
        for name in evidence.properties("all", study):
            run = (study, "pretrained")
            (every,), (top,) = (evidence.numbers(kind, name, run)[0] for kind in ("all", "selected"))
            halves = evidence.halves("selected", name, run)
            words = every[:, :1] - halves[0][0] if halves else None
            doubt = _of_words(evidence, halves)
            yield Comparison(study, name, "all − top neurons", [run], every - top, doubt=doubt, words=words)


def _of_words(evidence: Evidence, halves: list[np.ndarray] | None) -> str:
    """Why neurons decide nothing that were not ranked on half-samples too: other words may choose other neurons."""
    return "" if halves or evidence.printed else "not ranked on half-samples of the words"


def p8(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """What dropping layers costs: the other encoder minus BERT; of the top layers without a verdict. Of an architecture
    that the paper does not have its own cost is shown, and that of the paper's beside it."""
    for end in ("bottom", "top"):
        for study in evidence.titles:
            if evidence.printed or evidence.architectures[study] not in set().union(*LIKE):
                for condition, task in evidence.conditions(study, "score", **(WHOLE | {"dropped": end})).items():
                    if task in evidence.conditions(study, "score"):
                        runs = [(study, task), (study, condition)]
                        (whole,), (cut,) = evidence.numbers("score", "", *runs)
                        label = f"{_dropped(evidence, study, condition)[0]}, its own cost"
                        yield Comparison(study, "", label, runs, whole - cut, judged=False)
        for other, bert, name, tasks in evidence.pairs("score"):
            pruned = [evidence.conditions(study, "score", **(WHOLE | {"dropped": end})) for study in (other, bert)]
            for condition, task in pruned[0].items():
                if condition in pruned[1] and task in tasks:
                    runs = [(study, run) for study in (other, bert) for run in (task, condition)]
                    whole, cut, bert_whole, bert_cut = evidence.numbers("score", name, *runs)
                    effect = (whole - cut - (bert_whole - bert_cut))[0]
                    label, half = _dropped(evidence, other, condition)
                    both = evidence.tuned["study"].isin([other, bert])
                    able = any(pick(evidence.tuned[both], condition=condition)["learnt"])
                    doubt = "" if able else "without these layers neither does better than a constant answer"
                    judged = end == "bottom" and half
                    yield Comparison(other, name, label, runs, effect, bert, judged=judged, doubt=doubt)


def _dropped(evidence: Evidence, study: str, condition: str) -> tuple[str, bool]:
    """What a pruned encoder is called, and whether it is half of them."""
    ((task, end, count),) = {
        (row.task, row.dropped, row.layers_dropped)
        for row in pick(evidence.tuned, study=study, condition=condition).itertuples()
    }
    layers = evidence.depth(study) - 1
    half = layers < 1 or abs(2 * count - layers) <= 1
    return f"{task}, {end} layers dropped" if half else f"{task}, {count} {end} layers dropped", half


def a1(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """A training of a task minus one of the same task with fewer updates or examples."""
    for study, trained in _trained(evidence):
        for name, (_, of_task) in product(evidence.properties("layer", study), trained.groupby("task", sort=False)):
            by_length = of_task.sort_values(["updates", "train"], ascending=False)
            for more, fewer in combinations(by_length.itertuples(), 2):
                if more.updates > fewer.updates:
                    runs = [(study, more.condition), (study, fewer.condition)]
                    longer, shorter = map(top_third, evidence.losses("layer", name, *runs))
                    yield Comparison(study, name, f"{more.condition} − {fewer.condition}", runs, longer - shorter)


def a2(evidence: Evidence, claim: Claim) -> Iterator[Comparison]:
    """Each two tasks that were learnt on as many examples in as many updates; and those that forget minus those that
    keep, where there are several."""
    for study, trained in _trained(evidence):
        trained = trained[trained["condition"].isin(evidence.learnt(trained["condition"], study))]
        for (_, equal), name in product(trained.groupby(["train", "updates"]), evidence.properties("layer", study)):
            kinds = [[*equal.loc[equal["task"].isin(kind), "condition"]] for kind in (FORGET, KEEP)]
            pairs = [([one], [other]) for one, other in combinations(equal["condition"], 2)]
            of_kinds = [kinds] if all(kinds) and sum(map(len, kinds)) > 2 else []
            for left, right in [*pairs, *of_kinds]:
                runs = [(study, condition) for condition in (*left, *right)]
                lost = [top_third(loss) for loss in evidence.losses("layer", name, *runs)]
                effect = np.mean(lost[: len(left)], 0) - np.mean(lost[len(left) :], 0)
                yield Comparison(study, name, f"{', '.join(left)} − {', '.join(right)}", runs, effect)


def _trained(evidence: Evidence) -> Iterator[tuple[str, pd.DataFrame]]:
    """Study, and its trainings of all layers at its own rate to their end, one row of ``tuned`` per condition; none
    where it is not known how long they were."""
    for study in evidence.titles:
        whole = {"dropped": "", "rate": "", "checkpoint": -1}
        rows = pick(evidence.tuned, study=study, **whole).drop_duplicates("condition")
        if "train" in rows:
            yield study, rows[rows["condition"].isin(list(evidence.conditions(study, "layer", **whole)))]


CLAIMS: dict[str, Callable[[Evidence, Claim], Iterator[Comparison]]] = {
    "P1": p1, "P2": p2, "P3": p3, "P4": p4, "P4b": p4b, "P5": p5, "P6": p6, "P7": p7, "P8": p8, "A1": a1, "A2": a2,
}  # fmt: skip
"""Id of a claim → the numbers that it is about."""


# The rule ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """Means over seeds, [...] one for each cell, their standard ``error``, and the degrees of ``freedom`` of that; NaN
    if seeds are asked for and there is one only. ``fold`` : which of them is judged. ``sources`` : what share of the
    variance comes from what.

    The variance is that over seeds, with those over texts and words added. The variance over texts, known from many
    resamples, counts as exact; that over words is the mean square of what half-samples differ by from all words, and
    has one degree of freedom for each pair of halves. The degrees of freedom of the sum are the fewest that one of them
    alone would leave: its own times the sum's ratio to it. (Satterthwaite's formula squares the ratio; with three seeds
    its intervals contain the truth in 92.5 % of simulations, these in 94 to 97 %.)
    """

    means: np.ndarray
    error: np.ndarray
    freedom: np.ndarray
    fold: Fold = ONE
    sources: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, effect: np.ndarray, tuned: bool = True, words: np.ndarray | None = None, fold: Fold = ONE
    ) -> "Estimate":
        """``effect`` : [..., seeds, 1 + resamples], the number of each seed first. ``tuned`` : whether seeds have a
        part in it; else it has one row, and texts and words alone count. ``words`` : [..., seeds, half-samples]."""
        *cells, seeds, drawn = effect.shape
        none = np.full(cells, np.nan)
        if not seeds:
            return cls(none, none, none, fold)
        means, parts = effect[..., 0].mean(-1), {}
        if tuned:
            parts["seeds"] = (effect[..., 0].var(-1, ddof=1) / seeds, seeds - 1) if seeds > 1 else (none, 0)
        if drawn > 2:
            parts["texts"] = (effect.mean(-2)[..., 1:].var(-1, ddof=1), np.inf)
        if words is not None and words.shape[-1] > 1:
            moved = words.mean(-2) - means[..., None]
            parts["words"] = (np.square(moved).mean(-1), words.shape[-1] // 2)
        if not parts or np.isnan(parts.get("seeds", (0, 0))[0]).any():
            return cls(means, none, none, fold)
        every = sum(variance for variance, _ in parts.values())
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.min([of_it * every / variance for variance, of_it in parts.values()], 0)
            shares = {name: np.nanmean(variance / every) for name, (variance, _) in parts.items() if np.any(every)}
        return cls(means, np.sqrt(every), np.where(np.isnan(freedom), np.inf, freedom), fold, shares)

    @property
    def value(self) -> float:
        """The mean that is judged."""
        return float(self.fold.of(self.means))

    @property
    def _counted(self) -> tuple[int, int]:
        """By how many means the level of a bound is divided, below and above: by all (Bonferroni), unless the judged
        one lies beyond the bound only if all do."""
        every = max(np.size(self.means), 1)
        return 1 if self.fold.smallest else every, 1 if self.fold.largest else every

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean that is judged."""
        below, above = (stats.t.ppf(1 - 0.025 / count, self.freedom) * self.error for count in self._counted)
        return float(self.fold.of(self.means - below)), float(self.fold.of(self.means + above))

    def p(self, expected: str, margin: float) -> float:
        """The two-sided p of the mean lying at the nearest bound of what is expected. NaN where what decides it does
        not vary: a mean without error lies where it lies, and at the bound it is not beyond it."""
        upper = "above" in expected or "at most" in expected
        bound = margin if upper else -margin if expected == "below" else np.copysign(margin, self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes = np.round(self.means - bound, 9) / self.error
        sizes = np.where(np.isnan(sizes), -np.copysign(np.inf, bound), sizes)
        above, below = -self.fold.of(-stats.t.sf(sizes, self.freedom)), self.fold.of(stats.t.sf(-sizes, self.freedom))
        p = min(2 * self._counted[0] * above, 2 * self._counted[1] * below, 1.0)
        return float(p) if p > 0 or np.all(self.error > 0) else np.nan

    @property
    def decidable(self) -> float:
        """How far from its bound an effect must lie to be decided, with as many seeds, four times in five."""
        own = np.unravel_index(np.argmin(np.abs(self.means - self.value)), np.shape(self.means))
        error, freedom = self.error[own], self.freedom[own]
        return float(error * (stats.t.ppf(1 - 0.025 / max(self._counted), freedom) + stats.t.ppf(0.8, freedom)))


def holm(p: pd.Series) -> pd.Series:
    """p-values corrected for their number by Holm's method; those that are missing stay so."""
    known = p.dropna().sort_values()
    steps = (known * np.arange(len(known), 0, -1)).clip(upper=1.0).cummax()
    return steps.reindex(p.index)


def verdict(low: float, high: float, expected: str, margin: float) -> str:
    """The one rule. ``reproduced`` : the interval from ``low`` to ``high`` lies wholly where the claim expects the
    number; ``not reproduced`` : wholly where it does not; ``undecided`` : neither, or there is no interval (NaN).

    ``expected`` : above (> margin), below (< -margin), within (-margin to margin), at most (<= margin).
    """
    low, high = round(low, 9), round(high, 9)  # 94.9 - 93.9 is 1
    if expected == "below":
        low, high, expected = -high, -low, "above"
    above, beneath = low > margin, high < -margin
    inside, outside = {
        "above": (above, high <= margin),
        "at most": (high <= margin, above),
        "within": (low >= -margin and high <= margin, above or beneath),
    }[expected]
    return REPRODUCED if inside else NOT_REPRODUCED if outside else UNDECIDED


def likeness(low: float, high: float, claim: Claim) -> str:
    """The rule for an architecture that the paper does not have: which of the paper's encoders the number is like, by
    what the claim expects of them (``LIKE``). Of a claim of ours, which expects the same of all, it is the verdict."""
    found = {kind: verdict(low, high, kind, claim.margin) for kind in claim.expected.values()}
    if claim.ours:
        return next(iter(found.values()))
    if set(found.values()) == {NOT_REPRODUCED}:
        return NEITHER
    holds = tuple(one for one, kind in claim.expected.items() if found[kind] == REPRODUCED)
    return LIKE.get(holds, UNDECIDED)


TEXTS = ["claim", "study", "encoder", "architecture", "other", "property", "compared", "unit", "expected", "variance",
         "per_seed", "doubt", "verdict"]  # fmt: skip

COLUMNS = [*TEXTS[:7], "effect", "low", "high", "unit", "margin", "expected", "seeds", "p", "holm", "decidable",
           *TEXTS[9:]]  # fmt: skip


def judge(evidence: Evidence, factor: float = 1.0) -> pd.DataFrame:
    """The verdict on every comparison of every claim, the margins multiplied by ``factor``.

    Returns
    -------
    One row per claim, encoder, property and comparison. ``effect`` : mean over ``seeds`` (how many; ``per_seed``: each
    of them, as text), ``low``, ``high`` : its 95 % interval (of printed numbers the effect itself), all in ``unit``.
    ``p`` : two-sided, that the mean lies at the nearest bound of what is expected; ``holm`` : the same, corrected for
    all comparisons that have one. ``decidable`` : how far beyond its bound an effect must lie to be decided four times
    in five. ``variance`` : which shares of it come from seeds, texts and words. ``expected`` : as in
    ``paper/claims.yaml``; empty if the number is only shown. ``verdict`` : *not testable here* if it is only shown, or
    if no seed learnt every task. A claim without any comparison has one row that says so.
    """
    rows = []
    for claim in (claim.scaled(factor) for claim in table().values()):
        found = [_row(evidence, claim, comparison) for comparison in CLAIMS[claim.id](evidence, claim)]
        rows += found or [{"claim": claim.id, "verdict": NOT_TESTABLE, "unit": claim.unit, "margin": claim.margin}]
    judged = pd.DataFrame(rows, columns=COLUMNS)
    judged["holm"] = holm(judged["p"].astype(float))
    return judged.fillna(dict.fromkeys(TEXTS, "") | {"seeds": 0}).astype({"seeds": int})


def _row(evidence: Evidence, claim: Claim, comparison: Comparison) -> dict:
    seeds, architecture = len(comparison.per_seed), evidence.architectures[comparison.study]
    expected = claim.expects(architecture) if comparison.judged else ""
    tuned = any(condition != "pretrained" for _, condition in comparison.runs)
    found = Estimate.of(comparison.effect, tuned, comparison.words, comparison.fold)
    low, high = (found.value, found.value) if evidence.printed else found.interval
    enough = seeds >= MIN_SEEDS or evidence.printed or not tuned
    decides = expected and enough and not comparison.doubt
    outcome = UNDECIDED
    if decides:
        known = architecture in claim.expected
        outcome = verdict(low, high, expected, claim.margin) if known else likeness(low, high, claim)
    return {
        "claim": claim.id,
        "study": comparison.study,
        "encoder": evidence.titles[comparison.study],
        "architecture": architecture,
        "other": comparison.other,
        "property": comparison.property,
        "compared": comparison.label,
        "effect": found.value,
        "low": low,
        "high": high,
        "unit": claim.unit,
        "margin": claim.margin,
        "expected": expected,
        "seeds": seeds,
        "p": found.p(expected, claim.margin) if decides and not evidence.printed else np.nan,
        "decidable": found.decidable if decides and not evidence.printed else np.nan,
        "variance": ", ".join(f"{name} {share:.0%}" for name, share in found.sources.items()),
        "per_seed": " ".join(f"{value:+.3f}" for value in comparison.per_seed),
        "doubt": comparison.doubt,
        "verdict": outcome if expected and seeds else NOT_TESTABLE,
    }


def overview(judged: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, one column per encoder: how many of its comparisons have which verdict. A dagger marks those
    that remain when p is corrected for the number of all comparisons."""
    rows = judged[judged["expected"] != ""]
    cells = signs(rows).groupby([rows["claim"], rows["encoder"]], sort=False).apply(counted)
    encoders = judged.sort_values("study", kind="stable")["encoder"].unique()  # as in all figures
    wide = cells.unstack(fill_value="–", sort=False).reindex(columns=encoders, fill_value="–")
    wide = wide.drop(columns="", errors="ignore")
    return wide.reindex(list(table()), fill_value="–").rename_axis(columns=None).reset_index()


SIGNS = {
    REPRODUCED: "✓", NOT_REPRODUCED: "✗", **{text: text for text in (*LIKE.values(), NEITHER)},
    UNDECIDED: "?", NOT_TESTABLE: "–",
}  # fmt: skip


def signs(judged: pd.DataFrame) -> pd.Series:
    """The sign of each verdict, with a dagger where it remains when p is corrected for the number of comparisons."""
    firm = (judged["holm"] < 0.05) & (judged["verdict"] != UNDECIDED)
    return judged["verdict"].map(SIGNS) + np.where(firm, "†", "")


def counted(signs: pd.Series) -> str:
    """How many there are of each sign, of those that could be tested; the sign alone if all are the same."""
    tested = signs[signs != SIGNS[NOT_TESTABLE]]
    counts = (tested if len(tested) else signs).value_counts()
    order = [*SIGNS.values()]
    found = sorted(((sign, count) for sign, count in counts.items()), key=lambda one: order.index(one[0].rstrip("†")))
    return found[0][0] if len(found) == 1 else ", ".join(f"{sign} {count}" for sign, count in found)


def told(judged: pd.DataFrame) -> str:
    """How many comparisons there are, are decided, and are so when p is corrected for their number."""
    asked = judged[(judged["expected"] != "") & (judged["verdict"] != NOT_TESTABLE)]
    decided, firm = asked["verdict"] != UNDECIDED, signs(asked).str.endswith("†")
    return (
        f"Decided: {decided.sum()} of {len(asked)} comparisons, {firm.sum()} of them also when p is corrected for all "
        f"{asked['p'].notna().sum()} that have one."
    )


AGAIN = ["claim", "study", "other", "property", "compared"]


def again(judged: pd.DataFrame, recorded: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a run beside what the recorded seeds lead to expect of it. Both tables : as ``judge`` gives them.

    Returns
    -------
    One row per comparison that both have and that a claim expects something of: ``recorded`` (the sign of its verdict,
    and of how many seeds), ``effect`` (of this run), ``from``, ``to`` (where 95 % of runs with as many seeds lie),
    ``agrees`` (yes, no). Where nothing was fine-tuned, only rounding may differ: by half a point. What cannot be
    decided on the recorded runs (their ``doubt``) is left out.
    """
    rows = recorded[(recorded["expected"] != "") & (recorded["seeds"] > 0) & (recorded["doubt"] == "")]
    values = rows[AGAIN].assign(value=rows["per_seed"].str.split()).explode("value").astype({"value": float})
    rows = rows.assign(recorded=signs(rows) + " (" + rows["seeds"].astype(str) + ")")
    run = judged.loc[judged["seeds"] > 0, [*AGAIN, "encoder", "per_seed", "seeds"]].rename(columns={"seeds": "own"})
    run["effect"] = [np.mean(np.array(text.split(), float)) for text in run["per_seed"]]
    found = run.merge(rows[[*AGAIN, "recorded"]], on=AGAIN)
    found = found.merge(spread.of_cells(values, ["claim"], AGAIN[1:]), on=AGAIN)
    half = spread.reach(found, found["own"], 0.95).fillna(0.5)
    return pd.DataFrame({
        **found[["claim", "encoder", "property", "compared", "recorded"]],
        "effect": found["effect"], "from": found["mean"] - half, "to": found["mean"] + half,
        "agrees": np.where((found["effect"] - found["mean"]).abs() <= half, "yes", "no"),
    })  # fmt: skip


def to_markdown(rows: pd.DataFrame) -> str:
    """A table as Markdown, without its index."""
    lines = [[*rows.columns], ["---"] * rows.shape[1], *rows.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)

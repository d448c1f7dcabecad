"""The paper's own numbers, drawn and judged: ``figures/as_printed/``."""

import numpy as np
import pandas as pd

from lib import disk, figures, results
from lib.figures import comparisons, effects
from lib.results import claims, paper
from lib.results.summary import pick
from lib.study import params

SUITE = "as_printed"
"""What ``make figures SCALE=`` calls it; also the folder of the figures."""

MEANS = "As printed: means of three runs."

AXIS = "Layer 0 here is layer 1 of the paper's axis."

TITLES = {model: f"{model}-base" for model in paper.MODELS}


def draw() -> None:
    """Write Figures 1 to 3, Tables 1, 2 and 4 to 6 and the verdicts, each beside its CSV, and a page about them."""
    folder = results.figures_folder(SUITE, recorded=True)
    for name in ("pos", "chunk"):
        level, drop = paper.accuracies(), paper.drops()
        figure = comparisons.encoders_side_by_side(level, drop, TITLES, name, caption=f"{MEANS} {AXIS}")
        shown = level.merge(drop, how="left")
        figures.save(figure, folder, f"figure_1_{name}", pick(shown, property=name))
    per_layer = paper.neuron_layers()
    for name in ("pos", "chunk", "sem"):
        figure = comparisons.top_neurons(per_layer, TITLES, name, caption=f"{MEANS} {AXIS} Triangles: mean layer.")
        figures.save(figure, folder, f"figure_3_{name}", pick(per_layer, property=name))
        sets = paper.neuron_sets()
        table = {"pos": "1", "chunk": "4", "sem": "5"}[name]
        figures.save(
            effects.neuron_sets(sets, TITLES, name, caption=MEANS),
            folder,
            f"table_{table}_{name}",
            pick(sets, property=name),
        )
    scores = paper.task_scores()
    figures.save(effects.pruning(scores, TITLES, MEANS), folder, "tables_2_6_pruning", scores)
    judged = claims.judge(paper.evidence())
    figures.save(effects.claims_page(judged, "The paper's claims on its own numbers"), folder, "claims", judged)
    with disk.atomic_write(folder / "README.md") as part:
        part.write_text(page(judged), encoding="utf-8")
    print(f"drawn in {folder.relative_to(params.ROOT)}/")


def page(judged: pd.DataFrame) -> str:
    """What the paper's own numbers say of its claims, as Markdown. ``judged`` : of ``paper.evidence``."""
    said = claims.table()
    listed = [f"- **{name}** ({claim.section}). {claim.says} Compared: {claim.compared.rstrip('.')}; margin "
              f"{claim.margin:g} {claim.unit}, {claim.because}.{_onset(claim)} "
              f"Not to be read as {claim.limits.rstrip('.')}."
              for name, claim in said.items() if name.startswith("P")]  # fmt: skip
    shares = {"half": 0.5, "double": 2.0}
    failing = {"the margins themselves": judged} | {
        f"{share} of them": claims.judge(paper.evidence(), factor) for share, factor in shares.items()
    }
    parts = [
        "# The paper's claims on its own numbers",
        "The numbers are those that Durrani, Sajjad & Dalvi (2021) print (`paper/numbers.csv`, with table or figure, "
        "and how each was read). The claims are in our words (`paper/claims.yaml`). The rule is the one that judges "
        "our own runs; here effect and margin decide alone, because the paper prints no spread. Written by "
        f"`make figures SCALE={SUITE}`.",
        claims.to_markdown(claims.overview(judged)),
        "✓ holds · ✗ does not · – not asked of this encoder (A1 and A2 are ours, and asked of our runs only). Where "
        "there are both, the numbers count comparisons (property and task).",
        "![claims](claims.png)",
        "## Where a claim does not hold",
        *(f"**At {which}:**\n\n{_failing(table)}" for which, table in failing.items()),
        "## What is compared",
        "\n".join(listed),
        "## Slips and open questions",
        "\n".join(f"- **{letter}.** {text}" for letter, text in paper.slips().items()),
    ]
    return "\n\n".join(parts) + "\n"


def _onset(claim: claims.Claim) -> str:
    """When a loss counts as begun, if the claim asks that."""
    return "" if np.isnan(claim.onset) else f" (`onset`: {claim.onset:g} point.)"


def _failing(judged: pd.DataFrame) -> str:
    """The comparisons that do not hold, as a list."""
    rows = judged[judged["verdict"] == claims.NOT_REPRODUCED]
    return "\n".join(
        f"- {row.claim}, {row.encoder.partition('-')[0]}, {row.property or 'score'}, {row.compared}: "
        f"{row.effect:+.2f} {row.unit} (expected: {row.expected} {abs(row.margin):g})"
        for row in rows.itertuples()
    )

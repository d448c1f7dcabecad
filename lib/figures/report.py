"""Report: what a finished study says, in the terminal and as one self-contained HTML page."""

import os
import re
from pathlib import Path

import pandas as pd

from lib import disk, results
from lib.results import claims, paper
from lib.results.summary import VARIANT
from lib.study.runs import Run

CSS = """<style>
main { max-width: 62rem; margin: auto; }
img { max-width: 100%; height: auto; }
.jp-RenderedHTMLCommon table { display: block; overflow-x: auto; max-width: 100%; margin-left: 0; }
</style>"""


def write(notebook: str | Path, page: str | Path) -> None:
    """Write an executed notebook as a self-contained HTML page: prose, figures and tables, without code.

    Raises
    ------
    ValueError : there is no picture in the notebook, or the page would load something (script, style, font or picture)
        from elsewhere.
    """
    import nbformat  # here: what make reproduce prints at its end needs neither
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = exporter.mermaid_js_url = ""
    book = nbformat.read(notebook, 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    kinds = [kind for cell in book.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    if not any(kind.startswith("image/") for kind in kinds):
        raise ValueError(f"{notebook}: no figure is in it; unset MPLBACKEND, if it is set, and execute it again")
    html, _ = exporter.from_notebook_node(book)
    html = re.sub(r'<a href="(?!https?:|#|mailto:)[^"]*"[^>]*>(.*?)</a>', r"\1", html, flags=re.S)  # of files beside it
    html = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.S).replace("</head>", CSS + "</head>", 1)
    if loaded := re.search(r"""(?:src=|<link[^>]*href=|@import|url\()\s*["']?(https?:)?//[^"')\s]+""", html):
        raise ValueError(f"{page}: the page would load {loaded.group()}")
    with disk.atomic_write(Path(page)) as part:
        part.write_text(html, encoding="utf-8")


def write_page(suite: str) -> None:
    """For Make: write the executed figures of a suite as a page beside them, and print where it is."""
    executed = results.figures_folder(suite) / "05_figures.ipynb"
    write(executed, executed.with_suffix(".html"))
    print(os.path.relpath(executed.with_suffix(".html")))


def headline(table: pd.DataFrame) -> str:
    """The summary of the gold properties as text, in per cent, for a terminal."""
    hidden = [*VARIANT[1:], "source", "ranking", "entropy of top neurons", "top - random"]
    gold = table[table["source"] == "gold"].drop(columns=[*hidden, "top layer ambiguous"])
    numbers = gold.select_dtypes("number").columns.difference(["best layer", "mean layer of top neurons"])
    gold[numbers] = gold[numbers] * 100
    return gold.round(1).to_string(index=False, na_rep="")


def print_summary(wanted: list[Run], suite: str) -> None:
    """What ``make reproduce`` prints at its end: the time per step, the headline table, where the figures are."""
    results.complete(wanted)
    seconds = results.times(wanted)
    if len(seconds):
        wide = seconds.pivot_table(index=["study", "variant"], columns="step", values="seconds").round(0)
        print("\nseconds per notebook run (of the session that computed it)", wide.to_string(na_rep=""), sep="\n")
    if " and " in (devices := results.devices(wanted)):
        print(f"\nnot all computed alike: {devices}. Small differences between runs may come from that.")
    results.that_learnt(wanted)  # says which did not
    folder = results.figures_folder(suite)
    print(f"\nin per cent (but for layers); silver properties are in {os.path.relpath(folder)}/summary.csv")
    print(headline(results.from_csv(folder / "summary.csv")))
    judged = results.from_csv(folder / "claims.csv")
    print(
        "\nthe claims (paper/claims.yaml): ✓ reproduced, ✗ not, ? undecided, – not asked or not testable here, † also"
    )
    print("when corrected for the number of comparisons; verdicts need three seeds, and those on neurons (P5 to P7)")
    print("rankings on half-samples of the words, as make record has them (each comparison is in claims.csv)")
    print(claims.overview(judged).merge(paper.agreement(judged)).to_string(index=False))
    if len(recorded := results.recorded_table(suite, "claims")):
        print("\nthis run beside the recorded verdicts (and their seeds); 95 % of honest runs lie between from and to,")
        print("so that one number in twenty does not agree by chance")
        print(claims.again(judged, recorded).round(2).to_string(index=False))
        print(f"recorded: {claims.told(recorded)}")
    print(f"\nfigures and their tables: {os.path.relpath(folder)}/")

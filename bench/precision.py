"""Precision: what probes read when the encoder computes in bfloat16, beside float32, and how long both take.

Everything is computed from nothing, in ``runs/bench/precision``: the encoder as it was released (which differs in
extraction alone), and after fine-tuning, where another precision is another training, as another seed is. So the spread
over the seeds stands beside that difference. ``--record`` keeps the table of a study in ``precision.csv`` beside this
file, and writes ``precision.md`` from all that stand there.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from bench.bench import ROOT, table
from lib import activations, encoders, finetune, probes, results
from lib.study import runs

HERE, FOLDER = Path(__file__).parent, ROOT / "runs" / "bench" / "precision"
PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="bert-mini", help="[bert-mini]")
    parser.add_argument("--task", default="sentiment", help="[sentiment]")
    parser.add_argument("--seeds", type=int, default=3, help="of fine-tuning; 0: none [3]")
    parser.add_argument("--record", action="store_true", help="keep the results in the repository")
    given = parser.parse_args()
    encoders.device(runs.load(given.study, "pretrained", "full", {"precision": PRECISIONS[1]}).study)  # may refuse
    rows = pd.concat([measured(given.study, given.task, given.seeds, precision) for precision in PRECISIONS])
    kept = HERE / "precision.csv"
    others = pd.read_csv(kept) if kept.exists() else rows[:0]
    rows = pd.concat([others[others["study"] != given.study], rows])
    folder = HERE if given.record else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "precision.csv", index=False, float_format="%.6g")
    (folder / "precision.md").write_text(report(rows), encoding="utf-8")
    print("\n" + report(rows))


def measured(study: str, task: str, seeds: int, precision: str) -> pd.DataFrame:
    """One row per variant, property and layer: ``accuracy`` on the test words in per cent; ``training`` and
    ``extraction`` in seconds."""
    os.environ["RUNS"] = str(FOLDER / precision)
    rows = []
    for name in ["pretrained", *(f"{task}-s{seed}" for seed in range(1, seeds + 1))]:
        run = runs.load(study, name, "full", {"precision": precision})
        shutil.rmtree(run.folder, ignore_errors=True)  # else there was nothing to time
        shutil.rmtree(run.model, ignore_errors=True)
        trained = _seconds(lambda run=run: finetune.ensure(run)) if run.variant.task else float("nan")
        extracted = _seconds(lambda run=run: activations.ensure(run))
        probes.ensure_layer_counts(run)
        found = results.pick(results.accuracies(results.layers([run])), target="real", word_group="all")
        found = found[["study", "variant", "property", "layer"]].assign(accuracy=100 * found["accuracy"])
        by = runs.provenance()
        rows.append(found.assign(precision=precision, training=trained, extraction=extracted,
                                 by=f"{by['processor']} (ISA={by['isa']})"
                                 if by["device"] == "cpu" else by["device"]))  # fmt: skip
        shutil.rmtree(run.folder)
    return pd.concat(rows)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report(rows: pd.DataFrame) -> str:
    """The differences, as Markdown: a table of the encoders as they were released, and one after fine-tuning."""
    released, tuned = [], []
    for (study, name), own in rows.groupby(["study", "property"], sort=False):
        layers = own.pivot_table("accuracy", ["variant", "layer"], "precision")[[*PRECISIONS]]
        change = layers["bfloat16"] - layers["float32"]
        seconds = own.groupby("precision")[["training", "extraction"]].mean()
        times = (seconds.loc["float32"] / seconds.loc["bfloat16"]).map("{:.1f}".format)
        before = change["pretrained"]
        released.append([study, name, f"{before.mean():+z.2f}", f"{before.abs().max():.2f}", times["extraction"]])
        if own["training"].notna().any():
            lost = layers.loc["pretrained"].sub(layers.drop("pretrained"), level="layer").unstack("variant")
            top = lost[len(lost) - len(lost) // 3 :].mean().unstack("precision")[[*PRECISIONS]]
            cells = [f"{top[p].mean():.2f} ± {top[p].std():.2f}" for p in PRECISIONS]
            tuned.append([study, name, *cells, f"{top.diff(axis=1).iloc[:, 1].mean():+z.2f}", times["training"]])
    parts = [
        f"Computed on: {', '.join(rows['by'].unique())}. Differences in points, bfloat16 minus float32.",
        table(["as released", "property", "mean over layers", "largest of a layer", "extraction: times faster"],
              released),
    ]  # fmt: skip
    if tuned:
        parts.append(
            "After fine-tuning: loss over the top third of the layers, ± standard deviation of the seeds.\n\n"
            + table(["fine-tuned", "property", *PRECISIONS, "difference", "training: times faster"], tuned)
        )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()

"""A job of the paper's size: 150,000 training words x 9,984 neurons of MPNet-base (thirteen layers of 768).

Measured are the store, its extraction beside the bare forward pass, the layer probes and the all-neuron probe (raw
neurons, batches of 512, ten epochs, parts of speech of UD English-EWT), and the peak of anonymous memory of each stage;
all of it on a quarter of the words too, as memory must not grow with them. After ``make data SCALE=mpnet``. Writes
``runs/bench/large.md``; ``--record`` keeps it beside this file.
"""

import argparse
import os
import shutil

from bench.bench import BENCH, HERE, PROBE, machine, stage, table

WORDS = 150_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="[all cores]")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"], help="of the encoder")
    parser.add_argument("--words", type=int, default=WORDS, help=f"for training [{WORDS:,}]")
    parser.add_argument("--record", action="store_true", help="keep the results in the repository")
    given = parser.parse_args()
    measured = [measure(given, words) for words in (given.words // 4, given.words)]
    text = report(measured)
    BENCH.mkdir(parents=True, exist_ok=True)
    (BENCH / "large.md").write_text(text, encoding="utf-8")
    if given.record:
        shutil.copy(BENCH / "large.md", HERE / "large.md")
    print("\n" + text)


def measure(given: argparse.Namespace, words: int) -> dict:
    """What there is to tell of the job with this many training words."""
    folder = BENCH / f"large-{words}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    overrides = {
        "corpus": {"train_words": words, "dev_words": 3_000, "test_words": 13_000},
        "probe": {"epochs": PROBE["epochs"]}, "properties": ["pos"], "device": given.device, "threads": given.threads,
        "precision": given.precision,
    }  # fmt: skip
    job = {"folder": str(folder), "study": "mpnet-paper", "overrides": overrides, "device": given.device}
    job |= {"threads": given.threads, **PROBE}
    told = stage("own", "prepare", job)
    limits, made, probed = (stage("own", name, job | told) for name in ("limits", "extract", "probe"))
    shutil.rmtree(folder)
    return told | {"limits": limits["seconds"], "made": made, "probed": probed, "precision": given.precision,
                   "threads": given.threads}  # fmt: skip


def report(measured: list[dict]) -> str:
    """The numbers as Markdown, a column for each number of words."""
    rows = {
        "store (GB)": [f"{m['made']['bytes'] / 1e9:.2f}" for m in measured],
        "extraction (s)": [f"{m['made']['seconds']:.0f}" for m in measured],
        "beside the bare forward pass": [f"{m['limits']['extraction'] / m['made']['seconds']:.0%}" for m in measured],
        "layer probes (s)": [f"{m['probed']['seconds']['layer probes']:.0f}" for m in measured],
        "all-neuron probe (s)": [f"{m['probed']['seconds']['all-neuron probe']:.0f}" for m in measured],
        "memory of the extraction (GB)": [f"{m['made']['memory'] / 1e9:.2f}" for m in measured],
        "memory of the probing (GB)": [f"{m['probed']['memory'] / 1e9:.2f}" for m in measured],
    }
    last = measured[-1]
    head = [f"{m['words']['train']:,} training words" for m in measured]
    return "\n\n".join([
        f"Machine: {machine(last)}.",
        f"Job: MPNet-base, {last['shape'][0]} layers x {last['shape'][1]}, {last['precision']}; parts of speech of UD "
        f"English-EWT, {last['labels']} labels; {PROBE['epochs']} epochs in batches of {PROBE['batch_size']}, raw "
        "neurons.",
        table(["", *head], [[name, *values] for name, values in rows.items()]),
        "Memory is the peak of anonymous memory.",
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()

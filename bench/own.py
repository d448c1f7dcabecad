"""The benchmark's job on this package: ``python own.py STAGE JOB RESULT`` (see bench.py)."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import corpora, disk, encoders, neurons, probes
from lib.encoders import activations
from lib.encoders.activations import Activations
from lib.probes.labels import Labels
from lib.probes.linear import ProbeSpec
from lib.study import runs
from lib.study.params import Study
from lib.study.runs import Run


def clock() -> float:
    """Seconds, once the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def prepare(run: Run) -> dict:
    """Make the corpus and write it as NeuroX reads it: a file of sentences, one per line, and one of their labels."""
    study = run.study
    tables = corpora.load(study)
    for column, file in (("word", "sentences.txt"), ("pos", "labels.txt")):
        lines = [t[column].astype(str).groupby(t["sentence"], sort=False).agg(" ".join) for t in tables.values()]
        (runs.home() / file).write_text("\n".join(np.concatenate(lines)) + "\n", encoding="utf-8")
    sentences = {split: int(t["sentence"].nunique()) for split, t in tables.items()}
    device, tags = encoders.device(study), tables["train"]["pos"].astype(str)
    return {
        "model": encoders.locate(study), "store": str(run.activations("train") / "activations.npy"),
        "sentences": {**sentences, "all": sum(sentences.values())}, "words": {s: len(t) for s, t in tables.items()},
        "labels": tags.nunique(), "majority": tags.mode()[0], "shape": encoders.shape(study),
        "seed": study.seed, "steps": study.ranking.mass_steps, "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }  # fmt: skip


def extract(run: Run) -> dict:
    folder = run.result("extract")
    disk.remove(folder)
    activations.encoder(run)  # imports the encoder's modules before the clock starts
    start = clock()
    activations.ensure(run)
    return {"seconds": clock() - start, "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())}


def probe(run: Run) -> dict:
    start = clock()
    stores, labelled = _load(run)
    loaded = clock()
    trained, seconds = _train(run.study, stores["train"], labelled)
    seconds = {"loading": loaded - start, **seconds}
    start = clock()
    neurons.ordering(trained[1].weight[0].cpu().numpy(), run.study.ranking.mass_steps)
    seconds["ordering"] = clock() - start
    right = [(guess == labelled.ids["test"]).mean() for p in trained for guess in p.predict(stores["test"].vectors)[0]]
    names = [*(f"layer {i}" for i in range(len(right) - 1)), "all neurons"]
    return {"seconds": seconds, "accuracy": dict(zip(names, map(float, right), strict=True))}


def _load(run: Run) -> tuple[dict[str, Activations], Labels]:
    stores = activations.ensure(run)
    return stores, probes.label_set({split: s.words for split, s in stores.items()}, "pos")


def _train(study: Study, store: Activations, labelled: Labels) -> tuple[list[probes.Probe], dict[str, float]]:
    """The layer probes and the all-neuron probe, and the seconds of each."""
    trained, seconds, device = [], {}, encoders.device(study)
    for stage, scope in (("layer probes", "each layer"), ("all-neuron probe", "all")):
        start = clock()
        spec = ProbeSpec([labelled.target], scope)
        trained += probes.fit_specs(store.vectors, [spec], study.probe, study.seed, device)
        seconds[stage] = clock() - start
    return trained, seconds


def scaling(run: Run) -> dict:
    """How many times as long the probes take on more words, layers and width: every size is timed in turn, in the same
    process and with the same labels, and compared with the time on the job as it is just before."""
    stores = {f"{size} x words": activations.read(Path(folder).parent) for size, folder in job["stores"].items()}
    names = sorted(set().union(*(s.words["pos"].astype(str) for s in stores.values())))
    for size, times in (("2 x layers", (2, 1, 1)), ("2 x width", (1, 1, 2))):
        base, file = stores["1 x words"], run.folder / f"{size}.npy"
        np.save(file, np.tile(base.vectors, times))
        stores[size] = replace(base, vectors=np.load(file, mmap_mode="c"))
    study = run.study.model_copy(update={"probe": run.study.probe.model_copy(update={"epochs": 2})})
    ratios: dict[str, dict[str, list[float]]] = {size: {} for size in stores}
    for _ in range(3):
        first: dict[str, float] = {}
        for size, store in stores.items():
            ids = {"train": pd.Index(names).get_indexer(store.words["pos"].astype(str))}
            for stage, seconds in _train(study, store, Labels("pos", names, ids))[1].items():
                times = seconds / first.setdefault(stage, seconds)
                ratios[size].setdefault(stage, []).append(times)
    return {"ratios": ratios}


def limits(run: Run) -> dict:
    """Seconds of the arithmetic alone: the encoder on the batches of the extraction, the probes' matrix products."""
    study, device, tables = run.study, encoders.device(run.study), corpora.load(run.study)
    tok, model, batches = encoders.tokenizer(study), activations.encoder(run).to(device), []
    hook = model.register_forward_pre_hook(lambda _, *given: batches.append(given), with_kwargs=True)
    for table in tables.values():
        sentences = [g.tolist() for _, g in table.groupby("sentence", sort=False)["word"]]
        aligned = encoders.align(tok, sentences, encoders.max_length(study, tok, model))
        for _ in activations.extract(model, aligned, tok.pad_token_id or 0, study.encoder.batch_subwords):
            pass
    hook.remove()
    words, labels = len(tables["train"]), tables["train"]["pos"].astype(str).nunique()
    layers, width = encoders.shape(study)
    times = [clock()]
    with torch.inference_mode():
        for given, options in batches:
            model(*given, **{**options, "output_hidden_states": False})
        times.append(clock())
        for groups, features in ((layers, width), (1, layers * width)):
            _products(study, words, groups, features, labels, device)
            times.append(clock())
    return {"seconds": dict(zip(("extraction", "layer probes", "all-neuron probe"), np.diff(times), strict=True))}


def _products(study: Study, words: int, groups: int, features: int, labels: int, device: torch.device) -> None:
    """Scores and gradient of every step, in float32: [groups, labels, features] x [groups, features, n] and back (of
    the possible layouts the fastest)."""
    block = torch.randn(groups, min(study.probe.batch_size, words), features, device=device)
    weight, bias = torch.randn(groups, labels, features, device=device), torch.zeros(groups, labels, 1, device=device)
    for _ in range(study.probe.epochs):
        for start in range(0, words, study.probe.batch_size):
            batch = block[:, : words - start]
            scores = torch.baddbmm(bias, weight, batch.transpose(1, 2))
            torch.bmm(scores, batch)


if __name__ == "__main__":
    stage, job = sys.argv[1], json.loads(sys.argv[2])
    run = runs.load(job.get("study", "minilm"), "pretrained", overrides=job["overrides"])
    torch.set_num_threads(run.study.threads)
    stages = {"prepare": prepare, "extract": extract, "probe": probe, "limits": limits, "scaling": scaling}
    Path(sys.argv[3]).write_text(json.dumps(stages[stage](run)))

"""The benchmark's job on NeuroX, in its own environment: ``python peer.py STAGE JOB RESULT`` (see bench.py).

Only public functions of NeuroX work here, on one file of all sentences: the encoder and the activations are read once.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

np.int = int  # noqa: NPY001 - NeuroX 1.0.9 is older than NumPy 1.24, which dropped the alias

import torch  # noqa: E402
from neurox.data import loader  # noqa: E402
from neurox.data.extraction import transformers_extractor  # noqa: E402
from neurox.interpretation import ablation, linear_probe, utils  # noqa: E402


def clock() -> float:
    """Seconds, once the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def extract(job: dict) -> dict:
    sentences, file = (str(Path(job["folder"]) / name) for name in ("sentences.txt", "activations.hdf5"))
    Path(file).unlink(missing_ok=True)
    transformers_extractor.get_model_and_tokenizer(job["model"])  # imports its modules before the clock starts
    start = clock()
    transformers_extractor.extract_representations(
        job["model"], sentences, file, device=job["device"], aggregation="last", output_type="hdf5"
    )
    return {"seconds": clock() - start, "bytes": Path(file).stat().st_size}


def probe(job: dict) -> dict:
    file, sentences, tags = (str(Path(job["folder"]) / n) for n in ("activations.hdf5", "sentences.txt", "labels.txt"))
    times = [clock()]
    activations, layers = loader.load_activations(file)
    tokens = loader.load_data(sentences, tags, activations, 10**6)
    if len(activations) != job["sentences"]["all"]:
        raise SystemExit("NeuroX left sentences out: its words are not ours")
    end, start = job["sentences"]["train"], len(activations) - job["sentences"]["test"]
    train, test = ({k: v[part] for k, v in tokens.items()} for part in (slice(end), slice(start, None)))
    x, y, mappings = utils.create_tensors(train, activations[:end], job["majority"])
    x_test, y_test, _ = utils.create_tensors(test, activations[start:], job["majority"], mappings)
    del activations
    times.append(clock())

    settings = {"num_epochs": job["epochs"], "lambda_l1": job["l1"], "lambda_l2": job["l2"]}
    settings |= {"batch_size": job["batch_size"], "learning_rate": job["learning_rate"]}
    torch.manual_seed(job["seed"])
    trained = {}
    for layer in range(layers):
        own = ablation.filter_activations_by_layers(x, [layer], layers)
        trained[f"layer {layer}"] = linear_probe.train_logistic_regression_probe(own, y, **settings)
    times.append(clock())
    every = linear_probe.train_logistic_regression_probe(x, y, **settings)
    times.append(clock())
    linear_probe.get_neuron_ordering(every, mappings[0], search_stride=job["steps"])
    times.append(clock())

    ours, apart, accuracy = np.load(job["store"], mmap_mode="r"), [], {}
    for layer, (name, found) in enumerate(trained.items()):
        apart.append(np.abs(ours[layer] - ablation.filter_activations_by_layers(x, [layer], layers)).max())
        own = ablation.filter_activations_by_layers(x_test, [layer], layers)
        accuracy[name] = float(linear_probe.evaluate_probe(found, own, y_test)["__OVERALL__"])
    accuracy["all neurons"] = float(linear_probe.evaluate_probe(every, x_test, y_test)["__OVERALL__"])
    stages = ("loading", "layer probes", "all-neuron probe", "ordering")
    return {
        "seconds": dict(zip(stages, np.diff(times).tolist(), strict=True)),
        "accuracy": accuracy,
        "check": {"largest difference": float(max(apart)), "largest value": float(np.abs(x).max())},
    }


if __name__ == "__main__":
    stage, job = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(job["threads"])
    torch.optim.Adam([torch.zeros(1)])  # imports what it needs before the clock starts
    Path(sys.argv[3]).write_text(json.dumps({"extract": extract, "probe": probe}[stage](job)))

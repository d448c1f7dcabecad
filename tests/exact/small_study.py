"""Fine-tune for two updates, extract, probe and rank, each as small as can be; print the digest of each step as JSON.

``python tests/exact/small_study.py STUDY ...``, with the environment variables ``ISA``, ``RUNS`` and ``DATA``.
"""

import json
import sys

from lib import finetune, neurons, probes
from lib.encoders import activations
from lib.results import digits
from lib.study import runs
from lib.study.steps import STEPS

SMALL = {
    "device": "cpu",
    "properties": ["pos"],
    "corpus": {"train_words": 400, "dev_words": 100, "test_words": 200},
    "task_data": {"train_examples": 16, "dev_examples": 16, "test_examples": 16},
    "finetune": {"epochs": 1.0, "evaluations": 1},
    "probe": {"epochs": 3},
    "ranking": {"min_label_words": 5, "sizes": [0.05, 1.0]},
}

found = {}
for name in sys.argv[1:]:
    run = runs.load(name, "sentiment-s1", "lesson", SMALL)
    computed = [finetune.ensure, activations.ensure, probes.ensure_layer_counts, neurons.ensure_tests]
    for step, compute in zip(STEPS, computed, strict=True):
        compute(run)
        found[f"{name}: {step}"] = digits.of_step(run, step)
print(json.dumps(found))

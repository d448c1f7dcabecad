"""Probes: elastic-net linear classifiers on frozen activations."""

from lib.probes.labels import WORDS, baselines, control, label_set, text_ids, word_groups
from lib.probes.layers import by_penalty, counts_by_text, ensure_layer_counts
from lib.probes.linear import Classifier, Probe, ProbeSpec, batches, blocks, fit, fit_specs, held, read_block, select

"""Probes: elastic-net linear classifiers on frozen activations."""

from lib.probes.classifier import Classifier, fit
from lib.probes.labels import WORDS, baselines, control, label_set, text_ids, word_groups
from lib.probes.layers import ensure_layer_counts
from lib.probes.linear import Probe, ProbeSpec, batches, blocks, fit_specs, read, select

"""Probes: elastic-net linear classifiers on frozen activations."""

from lib.probes.labels import WORDS, baselines, control, label_set, text_ids, word_groups
from lib.probes.layers import layer_counts
from lib.probes.linear import Head, Probe, batches, blocks, fit, read, select

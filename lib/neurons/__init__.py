"""Neurons: which of them carry a property, and what is left without them."""

from lib.neurons.ablation import ablate, ensure_layers, ensure_rankings, ensure_tests
from lib.neurons.rankings import RANKINGS, minimal_set, ordering

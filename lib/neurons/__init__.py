"""Neurons: which of them carry a property, and what is left without them."""

from lib.neurons.ablation import load, table
from lib.neurons.rankings import minimal_set, ordering

"""Figures: all that is drawn, each from a tidy table. The only package that imports seaborn."""

from lib.figures.lessons import (
    accuracy_by_neurons,
    accuracy_per_layer,
    confusion,
    learning_curve,
    neurons_per_layer,
    vector_lengths,
    words_and_control,
)
from lib.figures.style import save, save_table

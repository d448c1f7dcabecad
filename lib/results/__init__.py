"""Results: tidy tables over many runs, intervals, claims and their verification."""

from lib.results.intervals import (
    CELL,
    NAMED,
    VARIANT,
    accuracies,
    counts_by_text,
    drops,
    pick,
    resampled,
    selectivity,
)
from lib.results.provenance import times, versions
from lib.results.summary import (
    centre_of_gravity,
    centres_of_gravity,
    entropy,
    margin,
    scores,
    summary,
    top_third,
    train_missing,
)
from lib.results.tables import complete, figures_folder, from_csv, layers, load, neuron_layers, neuron_tests, recorded

"""Results: tidy tables over many runs, intervals, claims and their verification."""

from lib.results.summary import (
    CELL,
    NAMED,
    accuracies,
    centre_of_gravity,
    centres_of_gravity,
    drops,
    entropy,
    margin,
    pick,
    resampled,
    selectivity,
    summary,
    task_scores,
    top_third,
    train_missing,
)
from lib.results.tables import (
    complete,
    figures_folder,
    from_csv,
    is_recorded,
    layers,
    load,
    neuron_layers,
    neuron_sets,
    neuron_tests,
    recorded_runs,
    tabled_steps,
    times,
)

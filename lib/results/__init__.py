"""Results: tidy tables over many runs, intervals, claims and their verification."""

from lib.results.intervals import CELL, NAMED, accuracies, by_text, drops, pick, resampled, selectivity
from lib.results.provenance import times, versions
from lib.results.summary import centre, entropy, gravity, margin, scores, summary, top_third
from lib.results.tables import complete, figures_folder, layers, load, neuron_tests, recorded

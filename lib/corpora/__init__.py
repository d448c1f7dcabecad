"""Corpora: word-labelled sentences in three splits, from Brown, column files or one's own."""

from lib.corpora.brown import GENRES, brown_tag, chunks, read_brown, supersenses
from lib.corpora.columns import read_columns
from lib.corpora.corpus import SPLITS, CorpusError, Sentence, check, label_name, load, plain_quotes

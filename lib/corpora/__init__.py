"""Corpora: word-labelled sentences in three splits, from Brown, column files or one's own."""

from lib.corpora.brown import GENRES, brown_tag, read_brown
from lib.corpora.columns import read_columns
from lib.corpora.corpus import check, label_name, load
from lib.corpora.sentences import CorpusError, Sentence, plain_quotes
from lib.corpora.silver import chunks, supersenses

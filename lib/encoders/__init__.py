"""Encoders: checkpoints, the alignment of words and sub-words, and the store of word vectors."""

from lib.encoders.alignment import align, show_subwords
from lib.encoders.checkpoints import (
    EncoderError,
    architecture,
    check,
    classifier,
    device,
    finetuned,
    head,
    layers_of,
    locate,
    max_length,
    pretrained,
    randomised,
    shape,
    tokenizer,
    unlike_running_text,
    without_layers,
)

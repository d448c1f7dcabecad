"""Shared library of the notebooks: what fine-tuning does to the grammar inside a pre-trained encoder.

Modules, from the ground up (each imports only from those above it):
``surroundings``, ``grid``, ``params``, ``disk``, ``runs``, ``sources``, ``corpora``, ``tables``, ``tasks``,
``encoders``, ``finetune``, ``activations``, ``probes``, ``neurons``, ``results``, ``claims``, ``verify``, ``figures``,
``comparisons``, ``report``. Beside them, for encoders made from nothing: ``prose``, ``objectives``, ``pretrain``,
``quality``, ``cards``, ``minis``.
"""

from lib import surroundings

surroundings.clean()  # before torch is imported, which reads its variables only then: a notebook opened by hand too

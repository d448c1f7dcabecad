"""Shared library of the notebooks: what fine-tuning does to the grammar inside a pre-trained encoder.

Modules, from the ground up (each imports only from those above it):
``params``, ``disk``, ``runs``, ``sources``, ``corpora``, ``tasks``, ``encoders``, ``finetune``, ``activations``,
``probes``, ``neurons``, ``results``, ``claims``, ``verify``, ``figures``, ``comparisons``, ``report``. Beside them, for
encoders made from nothing: ``prose``, ``objectives``, ``pretrain``, ``quality``, ``cards``, ``minis``.
"""

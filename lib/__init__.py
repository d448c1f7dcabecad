"""Shared library of the notebooks: what fine-tuning does to the grammar inside a pre-trained encoder.

Modules, from the ground up (each imports only from those above it):
``params``, ``runs``, ``sources``, ``corpora``, ``tasks``, ``encoders``, ``finetune``, ``activations``, ``probes``,
``neurons``, ``results``, ``figures``. Beside them, for encoders made from nothing: ``prose``, ``objectives``,
``pretrain``, ``minis``.
"""

"""A few matrix products, a softmax, a norm and an update of Adam; print the digest of each as JSON.

It takes seconds even on an emulated processor.
"""

import hashlib
import json

import lib  # noqa: F401 - it says how torch computes

# isort: split
import torch
from torch.optim.adam import adam

torch.set_num_threads(1)
torch.manual_seed(0)
x, w, g = torch.randn(64, 192), torch.randn(576, 192), torch.randn(576, 192)
probe, moments = w.clone(), [torch.zeros_like(w) for _ in range(2)]
fixed = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
adam([probe], [g], *([m] for m in moments), [], [torch.zeros(())], maximize=False, fused=True, **fixed)
found = {
    "products": torch.cat([(x @ w.T).flatten(), w @ x[0], torch.nn.functional.linear(x[:7], w, w[:, 0]).flatten(),
                           torch.bmm(x.view(8, 8, 192), w.view(8, 72, 192).transpose(1, 2)).flatten()]),
    "norms": torch.cat([torch.softmax(x, 1), torch.layer_norm(x, (192,)), x / torch.linalg.vector_norm(x)]),
    "Adam": probe,
}  # fmt: skip
print(json.dumps({name: hashlib.sha256(t.numpy().tobytes()).hexdigest()[:20] for name, t in found.items()}))

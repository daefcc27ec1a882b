"""Records what PyTorch chooses on small inputs of the four shapes, for the tests of package bench: testdata/torch.npz.

usage: python3 bench/record.py

Inputs are float16 numbers, exact in float32. In shape C two experts are the same, so that their scores tie exactly.
"""
from pathlib import Path

import numpy as np
import torch

import peers

TOKENS = 128


def main():
    rng = np.random.default_rng(11)
    arrays = {"torch": np.frombuffer(torch.__version__.encode(), dtype=np.uint8)}
    for name, (_, E, K, d, G, M, score) in peers.SHAPES.items():
        hidden = (rng.standard_normal((TOKENS, d)) * d**-0.5).astype(np.float16)
        router = rng.standard_normal((E, d)).astype(np.float16)
        bias = ((0.3 / E if score == "softmax" else 0.02) * rng.standard_normal(E)).astype(np.float16)
        if name == "C":
            router[5], bias[5] = router[2], bias[2]
        shape = (TOKENS, E, K, d, G, M, score)
        _, result = peers.torch_step(shape, *(x.astype(np.float32) for x in (hidden, router, bias)))
        _, ids, gates, load, _, _, gradient = result()
        order = ids.argsort(axis=1)
        arrays |= {f"{name}_hidden": hidden, f"{name}_router": router, f"{name}_bias": bias, f"{name}_load": load,
                   f"{name}_chosen": np.take_along_axis(ids, order, 1).astype(np.int16), f"{name}_gates": np.take_along_axis(gates, order, 1),
                   f"{name}_gradient": gradient[:8].copy()}
    np.savez_compressed(Path(__file__).parent / "testdata" / "torch.npz", **arrays)


main()

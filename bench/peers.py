"""The step of package bench in PyTorch or numpy on the CPU, written as practitioners write it: the logic of DeepSeek-V3's
inference gate, and Megatron-LM's form of the auxiliary loss with autograd.

usage: peers.py torch|numpy SHAPE INPUTS.npz, with one request a line on standard input: "operation rounds" or "result 0".
"""
import json
import sys
import time

import numpy as np

SHAPES = {  # T, E, K, d, groups, groups kept, score
    "A": (8192, 64, 6, 64, 1, 1, "softmax"),
    "B": (16384, 256, 8, 64, 8, 4, "sigmoid"),
    "C": (4096, 8, 2, 32, 1, 1, "softmax"),
    "D": (32768, 512, 8, 128, 1, 1, "softmax"),
}


def torch_step(shape, hidden, router, bias):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    T, E, K, d, G, M, score = shape
    h, b = torch.from_numpy(hidden), torch.from_numpy(bias)
    w = torch.from_numpy(router)
    topics = torch.randn(64, d)

    def scores(logits):
        return logits.softmax(dim=-1) if score == "softmax" else logits.sigmoid()

    def select(s):
        a = s + b
        if G > 1:
            a = a.view(T, G, -1)
            best = a.topk(2, dim=-1)[0].sum(dim=-1).topk(M, dim=-1)[1]
            closed = torch.ones((T, G), dtype=torch.bool).scatter_(1, best, False)
            a = a.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(1)
        return torch.topk(a, K, dim=-1)[1]

    def route(h=h):
        with torch.no_grad():
            s = scores(F.linear(h, w))
            ids = select(s)
            gates = s.gather(1, ids)
            gates = gates / gates.sum(dim=-1, keepdim=True)
            load = torch.bincount(ids.flatten(), minlength=E)
            best, oracle = torch.topk(s, K, dim=-1)
            chosen = torch.zeros((T, E), dtype=torch.bool).scatter_(1, ids, True)
            hit = chosen.gather(1, oracle).sum().item() / (T * K)
            mass = (s.gather(1, ids).sum() / best.sum()).item()
        return s, ids, gates, load, hit, mass

    wg = w.clone().requires_grad_(True)

    def train():
        wg.grad = None
        s = scores(F.linear(h, wg))
        ids = select(s.detach())
        gates = s.gather(1, ids)
        gates = gates / gates.sum(dim=-1, keepdim=True)
        share = s if score == "softmax" else s / s.sum(dim=-1, keepdim=True)
        load = torch.bincount(ids.flatten(), minlength=E)
        loss = (share.sum(dim=0) * load).sum() * (E / (T * T * K))
        loss.backward()
        return wg.grad

    def genroute():
        x = topics[torch.randint(64, (T,))] + 0.6 * torch.randn(T, d)
        return route(x * d**-0.5)

    def result():
        s, ids, gates, load, hit, mass = route()
        return s.numpy(), ids.numpy(), gates.numpy(), load.numpy(), hit, mass, train().numpy()

    return {"route": route, "train": train, "genroute": genroute}, result


def numpy_step(shape, hidden, router, bias):
    T, E, K, d, G, M, score = shape
    w = np.ascontiguousarray(router.T)
    row = np.arange(T)[:, None]
    rng = np.random.default_rng(3)
    topics = rng.standard_normal((64, d), dtype=np.float32)

    def scores(z):
        if score == "softmax":
            p = np.exp(z - z.max(axis=1, keepdims=True))
            return p / p.sum(axis=1, keepdims=True)
        return 1 / (1 + np.exp(-z))

    def select(s):
        a = s + bias
        if G > 1:
            a = a.reshape(T, G, -1)
            rank = np.partition(a, -2, axis=-1)[..., -2:].sum(-1)
            best = np.argpartition(-rank, M - 1, axis=1)[:, :M]
            opened = np.zeros((T, G), bool)
            np.put_along_axis(opened, best, True, 1)
            a = np.where(opened[:, :, None], a, np.float32(-np.inf)).reshape(T, E)
        return np.argpartition(-a, K - 1, axis=1)[:, :K]

    def route(h=hidden):
        s = scores(h @ w)
        ids = select(s)
        gates = np.take_along_axis(s, ids, 1)
        mass = gates.sum()
        gates = gates / gates.sum(1, keepdims=True)
        load = np.bincount(ids.ravel(), minlength=E)
        oracle = np.argpartition(-s, K - 1, axis=1)[:, :K]
        chosen = np.zeros((T, E), bool)
        chosen[row, ids] = True
        return s, ids, gates, load, chosen[row, oracle].mean(), mass / s[row, oracle].sum()

    def train():
        s = scores(hidden @ w)
        ids = select(s)
        gates = np.take_along_axis(s, ids, 1)
        gates = gates / gates.sum(1, keepdims=True)
        price = (np.bincount(ids.ravel(), minlength=E) * (E / (T * T * K))).astype(np.float32)
        share = s if score == "softmax" else s / s.sum(1, keepdims=True)
        slope = share * (price - (share @ price)[:, None])
        if score == "sigmoid":
            slope *= 1 - s
        return slope.T @ hidden

    def genroute():
        x = topics[rng.integers(64, size=T)] + np.float32(0.6) * rng.standard_normal((T, d), dtype=np.float32)
        return route(x * np.float32(d**-0.5))

    def result():
        return *route(), train()

    return {"route": route, "train": train, "genroute": genroute}, result


def multiplies_slowly():
    """Whether products go through Debian's unoptimised reference BLAS, which is what numpy gets if no other is installed."""
    try:
        with open("/proc/self/maps") as maps:
            return any("/blas/libblas.so" in line for line in maps)
    except OSError:
        return False


def main():
    shape = SHAPES[sys.argv[2]]
    inputs = np.load(sys.argv[3])
    make = {"torch": torch_step, "numpy": numpy_step}[sys.argv[1]]
    runs, result = make(shape, inputs["hidden"], inputs["router"], inputs["bias"])
    runs["route"]()  # loads what is loaded when first needed
    print("slow" if multiplies_slowly() else "ready", flush=True)
    for line in sys.stdin:
        operation, rounds = line.split()
        if operation == "result":
            s, ids, gates, load, hit, mass, gradient = result()
            order = ids.argsort(axis=1)
            answer = {"chosen": np.take_along_axis(ids, order, 1).ravel().tolist(), "gates": np.take_along_axis(gates, order, 1).ravel().tolist(),
                      "load": load.tolist(), "hit": float(hit), "mass": float(mass), "gradient": gradient.ravel().tolist()}
        else:
            runs[operation]()
            begin = time.perf_counter()
            for _ in range(int(rounds)):
                runs[operation]()
            answer = {"wall": (time.perf_counter() - begin) / int(rounds) / shape[0] * 1e9}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

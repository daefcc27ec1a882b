"""Runs Evenkeel and its peers alternately on the same inputs, on one thread each, checks that they choose the same experts,
and prints how many times faster Evenkeel is: the median of paired rounds, with their quartiles. All start anew three times.

usage: python3 bench/compare.py [--shapes ABCD] [--rounds 15] [--kernels avx512,avx2,portable] [--peers torch,numpy] [--json FILE]

It needs Go, numpy and, for that peer, PyTorch; on Debian: apt-get install python3-numpy python3-torch libopenblas0.
Each peer runs twice: plain, and tuned, with a C library told to keep freed memory, which spares it page faults.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

import numpy as np

from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKENS = {"A": 8192, "B": 16384, "C": 4096, "D": 32768}
TUNED = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "67108864", "MALLOC_ARENA_MAX": "1"}
LIVES = 3  # how often all processes start anew: where memory lies moves a peer by up to a third
NAMES = {"route": "route and measure", "train": "step with loss gradient", "genroute": "generate and route"}


def inputs(shape, path):
    T, E, d, score = {"A": (8192, 64, 64, "softmax"), "B": (16384, 256, 64, "sigmoid"), "C": (4096, 8, 32, "softmax"), "D": (32768, 512, 128, "softmax")}[shape]
    rng = np.random.default_rng(7)
    topics = rng.standard_normal((64, d), dtype=np.float32)
    p = 1 / (1 + np.arange(64))
    hidden = topics[rng.choice(64, size=T, p=p / p.sum())] + np.float32(0.6) * rng.standard_normal((T, d), dtype=np.float32)
    spread = 0.3 / E if score == "softmax" else 0.02
    np.savez(path, hidden=hidden * np.float32(d**-0.5), router=rng.standard_normal((E, d), dtype=np.float32),
             bias=(spread * rng.standard_normal(E)).astype(np.float32))


class Server:
    def __init__(self, name, command, **more):
        env = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", GOMAXPROCS="1", **more)
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        state = self.process.stdout.readline().strip()
        if state == "slow":
            sys.exit(f"{name} multiplies by the unoptimised reference BLAS, which would flatter us; on Debian: apt-get install libopenblas0")
        if state != "ready":
            sys.exit(f"{name} does not start")

    def ask(self, operation, rounds=0):
        self.process.stdin.write(f"{operation} {rounds}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def same(shape, ours, theirs, name):
    """Compares the results of two servers, and returns how many tokens choose another set."""
    k = len(ours["chosen"]) // TOKENS[shape]
    a, b = (np.array(x["chosen"]).reshape(-1, k) for x in (ours, theirs))
    differ = (a != b).any(axis=1)
    gates = np.abs(np.array(ours["gates"]) - np.array(theirs["gates"])).reshape(-1, k)[~differ].max()
    g, h = np.array(ours["gradient"]), np.array(theirs["gradient"])
    slope = np.abs(g - h).max() / np.abs(h).max()
    print(f"  {name}: {differ.sum()} of {len(a)} tokens choose another set; gates differ by {gates:.1e}, the gradient by {slope:.1e} of its largest, "
          f"hit rate by {abs(ours['hit'] - theirs['hit']):.1e}, score mass by {abs(ours['mass'] - theirs['mass']):.1e}")
    if differ.sum() > len(a) // 1000 or gates > 1e-5 or slope > 1e-3:
        sys.exit(f"shape {shape}: the results of {name} are not ours")
    return int(differ.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="ABCD")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each operation, in all three lives of the processes together")
    parser.add_argument("--kernels", default="avx512,avx2,portable")
    parser.add_argument("--peers", default="torch,numpy")
    parser.add_argument("--slice", type=float, default=0.1, help="seconds of one measurement")
    parser.add_argument("--json")
    options = parser.parse_args()
    peers = options.peers.split(",")
    if "torch" in peers:
        try:
            import torch
            print("PyTorch", torch.__version__, "numpy", np.__version__)
        except ImportError:
            sys.exit("PyTorch is not installed; on Debian: apt-get install python3-torch libopenblas0, or leave it out by --peers numpy")
    with tempfile.TemporaryDirectory() as folder:
        ours = os.path.join(folder, "evenkeel")
        subprocess.run(["go", "build", "-o", ours, "./cmd/evenkeel"], cwd=HERE.parent, check=True)
        rows = []
        for shape in options.shapes:
            rows += measure(shape, ours, folder, peers, options)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))


def measure(shape, ours, folder, peers, options):
    path = os.path.join(folder, shape + ".npz")
    inputs(shape, path)
    print(f"shape {shape}")
    kernels = options.kernels.split(",")
    times = {name: {} for name in NAMES}  # by operation and server: ns per token of each round
    for life in range(LIVES):
        servers = [Server(k, [ours, "bench", "--serve", "--shape", shape, "--inputs", path, "--kernel", k]) for k in kernels]
        for p in peers:
            command = [sys.executable, str(HERE / "peers.py"), p, shape, path]
            servers += [Server(p, command), Server(p + " tuned", command, **TUNED)]
        if life == 0:
            check(shape, servers, len(kernels))
        for operation in NAMES:
            of = times[operation]
            slices = {s: max(1, int(options.slice / (s.ask(operation, 1)["wall"] * 1e-9 * TOKENS[shape]))) for s in servers}
            for s in servers:
                of.setdefault(s.name, [])
            for _ in range(-(-options.rounds // LIVES)):
                for s in random.sample(servers, len(servers)):
                    of[s.name].append(s.ask(operation, slices[s])["wall"])
        for s in servers:
            s.close()
    rows = []
    for operation, name in NAMES.items():
        median = {s: statistics.median(t) for s, t in times[operation].items()}
        print(f"  {name}: " + ", ".join(f"{s} {v:.4g}" for s, v in median.items()) + " ns/token")
        for peer in peers:
            # Generating is compared with the plain peer, the rest with the faster of plain and tuned.
            rival = min([peer] if operation == "genroute" else [peer, peer + " tuned"], key=median.get)
            for k in kernels:
                ratios = [b / a for a, b in zip(times[operation][k], times[operation][rival])]
                low, mid, high = statistics.quantiles(ratios, n=4)
                print(f"    {k} is {mid:.2f} times as fast as {rival} ({low:.2f} to {high:.2f})")
                rows.append({"shape": shape, "operation": operation, "kernel": k, "peer": rival, "ns": median[k], "peer_ns": median[rival],
                             "ratio": mid, "low": low, "high": high})
    return rows


def check(shape, servers, kernels):
    """Compares the results of the kernels, which are the first servers, with one another and with the peers'."""
    reference = servers[0].ask("result")
    for s in servers[1:kernels]:
        if s.ask("result") != reference:
            sys.exit(f"shape {shape}: {s.name} gives other bits than {servers[0].name}")
    for s in servers[kernels::2]:
        same(shape, reference, s.ask("result"), s.name)


main()

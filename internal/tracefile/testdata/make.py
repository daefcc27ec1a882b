"""Writes the traces of this folder by torch and NumPy; safetensors byte by byte, from the format's description.

All hold the same made-up choices: 2 layers, 5 tokens, 8 experts, 3 chosen, so that one test can check every reader."""
import base64, collections, gzip, io, json, os, random, struct
import numpy as np
import torch



def save_file(tensors, name):
    """Eight bytes of length, a JSON header padded by blanks to a multiple of eight, the data."""
    header, data = {"__metadata__": {"format": "np"}}, b""
    for key, t in tensors.items():
        if isinstance(t, torch.Tensor):
            kind, t = ("BF16", t.view(torch.int16).numpy()) if t.dtype == torch.bfloat16 else (None, t.numpy())
        else:
            kind = None
        kind = kind or {"float64": "F64", "float32": "F32", "float16": "F16", "int16": "I16", "int32": "I32"}[str(t.dtype)]
        header[key] = {"dtype": kind, "shape": list(t.shape), "data_offsets": [len(data), len(data) + t.nbytes]}
        data += t.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(name, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


random.seed(7)
L, T, E, K = 2, 5, 8, 3
ids = np.array([[random.sample(range(E), K) for _ in range(T)] for _ in range(L)], np.int32)
ids[1, 4, 2] = -1
weights = np.array([[[round(random.random() / K, 4) for _ in range(K)] for _ in range(T)] for _ in range(L)], np.float32)
weights[1, 4, 2] = 0
logits = np.array([[[random.randint(-8, 8) / 4 for _ in range(E)] for _ in range(T)] for _ in range(L)], np.float32)
layers = [3, 7]
tokens = [11, 12, 13, 14, 15]
lengths = [3, 2]

# What a test expects, in plain text.
with open("expected.json", "w") as f:
    json.dump({"topk_ids": ids.ravel().tolist(), "topk_weights": [float(w) for w in weights.ravel()], "logits": [float(z) for z in logits.ravel()]}, f)

np.savez("choices.npz", topk_ids=ids, topk_weights=weights, token_id=np.array(tokens), seq_lens=np.array(lengths), layers=np.array(layers))
np.save("logits.npy", logits)
np.save("ids.npy", ids.astype(np.int8))
np.savez("vllm.npz", routed_experts=ids.transpose(1, 0, 2).astype(np.int16))
save_file({"topk_ids": ids.astype(np.int16), "topk_weights": weights.astype(np.float64), "router_logits": logits.astype(np.float16)}, "choices.safetensors")
save_file({"logits": torch.tensor(logits, dtype=torch.bfloat16)}, "bfloat16.safetensors")
save_file({"model.layers.%d.router" % layers[l]: logits[l] for l in reversed(range(L))}, "layers.safetensors")
with open("bfloat16.safetensors", "rb") as f, gzip.GzipFile("bfloat16.safetensors.gz", "wb", mtime=0) as z:
    z.write(f.read())
os.remove("bfloat16.safetensors")


def lines(name, records):
    with open(name, "w") as f:
        for r in records:
            f.write(json.dumps(r) + "\n")


def listed(l, t):
    return [int(i) for i in ids[l, t] if i >= 0]


def weighed(l, t):
    return [float(str(w)) for i, w in zip(ids[l, t], weights[l, t]) if i >= 0]


request = ["a", "a", "a", "b", "b"]
place = [0, 1, 2, 0, 1]
lines("vllm-patch.jsonl", [{"type": "meta", "model_id": "none", "top_k": K, "layers_logged": layers}] + [
    {"type": "route", "req_id": request[t], "token_idx": place[t], "layer": layers[l], "topk_ids": listed(l, t), "topk_weights": weighed(l, t)} for t in range(T) for l in range(L)])
lines("mixtral.jsonl", [{"dataset": "mbpp" if t < 3 else "gsm8k", "problem_id": request[t], "layer": layers[l], "token_idx": place[t], "experts": listed(l, t),
                         "gating_probs": weighed(l, t)} for l in range(L) for t in range(T)])
lines("moe-balance.jsonl", [{"layer": layers[l], "batch_id": b, "origin_rows": list(range(n)), "topk_experts": ids[l, f:f + n].tolist(),
                             "topk_weights": [[float(str(w)) for w in row] for row in weights[l, f:f + n]]} for b, f, n in [(0, 0, 3), (1, 3, 2)] for l in range(L)])
lines("moe-cache-lab.jsonl", [{"request_id": request[t], "phase": "prefill", "step_id": 0, "token_position": place[t], "layer_id": layers[l], "expert_ids": listed(l, t)}
                              for t in range(T) for l in range(L)])
with open("moe-beyond.csv", "w") as f:
    f.write("Layer ID,Batch Number,Token,Activated Expert IDs\n")
    for l in range(L):
        for t in range(T):
            f.write('%d,%s,%d,"%s"\n' % (layers[l], request[t], place[t], listed(l, t)))

# Megatron-LM: two ranks, the first three tokens on the first.
for rank, (f, n) in enumerate([(0, 3), (3, 2)]):
    records, z, h = [], b"", b""
    for l in range(L):
        zs = torch.tensor(logits[l, f:f + n]).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
        hs = torch.arange(n * 4).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
        records.append({"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": layers[l], "rank": rank, "num_tokens": n, "topk": K, "top_indices": ids[l, f:f + n].tolist(),
                        "hs_offset": len(h), "hs_bytes": len(hs), "hs_shape": [n, 4], "logit_offset": len(z), "logit_bytes": len(zs), "logit_shape": [n, E]})
        z, h = z + zs, h + hs
    os.makedirs("megatron", exist_ok=True)
    lines("megatron/router_trace_rank%d.jsonl" % rank, records)
    open("megatron/logits_rank%d.bin" % rank, "wb").write(z)
    open("megatron/hidden_states_rank%d.bin" % rank, "wb").write(h)

# SGLang: 9 model layers, 10 physical experts, of which the last two copy the logical experts 0 and 1.
placement = torch.tensor([[1, 0] + list(range(2, E)) + [0, 1]] * 9)


def physical(i):
    return {0: 1, 1: 0}.get(int(i), int(i))


def counted(f, n):
    c = torch.zeros((9, 10), dtype=torch.int32)
    for l in range(L):
        for i in ids[l, f:f + n].ravel():
            if i >= 0:
                c[layers[l], physical(i)] += 1
    return c


def detail(f, n):
    x = torch.full((9, n, 8), -1, dtype=torch.int32)
    for l in range(L):
        for t in range(n):
            for k, i in enumerate(ids[l, f + t]):
                if i >= 0:
                    x[layers[l], t, k] = physical(i)
    return x


logical = torch.zeros((2, 9, E), dtype=torch.int32)
for step, (f, n) in enumerate([(0, 3), (3, 2)]):
    for l in range(L):
        for i in ids[l, f:f + n].ravel():
            if i >= 0:
                logical[step, layers[l], i] += 1
torch.save(dict(rank=0, logical_count=logical, average_utilization_rate_over_window=None), "sglang-stat.pt")
os.makedirs("sglang-per-pass", exist_ok=True)
for rank in range(2):
    records = []
    for p, (f, n) in enumerate([(0, 3), (3, 2)]):
        part = (f, 1) if rank == 0 else (f + 1, n - 1)
        records.append(dict(forward_pass_id=p, rank=rank, gatherer_key="primary", global_physical_count=counted(*part)))
    torch.save(dict(records=records, last_physical_to_logical_map=placement), "sglang-per-pass/expert_distribution_recorder_1.5_%d.pt" % rank)
torch.save(dict(records=[dict(forward_pass_id=p, rank=0, gatherer_key="primary", input_ids=tokens[f:f + n], positions=place[f:f + n], extend_seq_lens=[n], forward_mode=1,
                              topk_ids_of_layer=detail(f, n), misc_objects=[], global_physical_count=counted(f, n)) for p, (f, n) in enumerate([(0, 3), (3, 2)])],
                last_physical_to_logical_map=placement), "sglang-per-token.pt")
os.makedirs("sglang-twins", exist_ok=True)
for rank in range(2):  # tensor-parallel ranks, which see the same tokens; the second pass decodes
    torch.save(dict(records=[dict(forward_pass_id=p, rank=rank, gatherer_key="primary", input_ids=tokens[f:f + n], positions=place[f:f + n], extend_seq_lens=[3] if p == 0 else None,
                                  forward_mode=1 + p, topk_ids_of_layer=detail(f, n), misc_objects=[], global_physical_count=counted(f, n)) for p, (f, n) in enumerate([(0, 3), (3, 2)])],
                    last_physical_to_logical_map=placement), "sglang-twins/expert_distribution_recorder_2.5_%d.pt" % rank)
torch.save(tuple(torch.tensor(logits[l]) for l in range(L)), "router-logits.pt")
torch.save(collections.OrderedDict(router_logits=torch.tensor(logits, dtype=torch.float16)), "ordered.pt")


class Hostile:
    def __reduce__(self):
        return os.system, ("false",)


torch.save(dict(records=[Hostile()]), "hostile.pt")

# Routed experts: SGLang's raw int32 and vLLM's .npy stream, a request a line.
with open("sglang-routed.jsonl", "w") as f, open("vllm-routed.jsonl", "w") as g:
    for a, b in [(0, 3), (3, 5)]:
        part = np.ascontiguousarray(ids[:, a:b].transpose(1, 0, 2))
        f.write(json.dumps({"text": "x", "meta_info": {"id": "r%d" % a, "routed_experts": base64.b64encode(part.tobytes()).decode()}}) + "\n")
        stream = io.BytesIO()
        np.save(stream, part.astype(np.int16))
        g.write(json.dumps({"id": "r%d" % a, "choices": [{"index": 0, "routed_experts": base64.b64encode(stream.getvalue()).decode()}]}) + "\n")
with open("load-history.json", "w") as f:
    json.dump({"load_history": [{"logical_expert_load": logical[s][layers].tolist()} for s in range(2)]}, f, indent=1)

# TensorRT-LLM: two ranks, the counts of one half of the tokens each, and the choices.
for name in ["tensorrt", "tensorrt-raw"]:
    os.makedirs(name, exist_ok=True)
    json.dump({"num_experts": E, "num_experts_per_token": K}, open(name + "/meta_info.json", "w"))
for rank in range(2):
    save_file({"%d_%d" % (40 + s, layers[l]): (logical[s][layers[l]] if rank == s else torch.zeros(E, dtype=torch.int32)) for s in range(2) for l in range(L)},
               "tensorrt/rank%d.safetensors" % rank)
    f, n = [(0, 3), (3, 2)][rank]
    save_file({"40_%d" % layers[l]: torch.tensor(ids[l, f:f + n]) for l in range(L)}, "tensorrt-raw/rank%d_raw.safetensors" % rank)

# ESFT: a line for each sequence; here all tokens of layer 3.
with gzip.GzipFile("expert_weights_3.txt.gz", "wb", mtime=0) as f:
    at = 0
    for n in lengths:
        f.write(("\t".join(str(i) for i in ids[0, at:at + n].ravel()) + "\t\t" + "\t".join("%.4f" % w for w in weights[0, at:at + n].ravel()) + "\n").encode())
        at += n

with open("counts.csv", "w") as f:
    f.write("model,domain,layer_slot,expert,count\n")
    for s in range(2):
        for l in range(L):
            for e in range(E):
                if logical[s][layers[l]][e]:
                    f.write("mine,%s,%d,%d,%d\n" % ("ab"[s], layers[l], e, logical[s][layers[l]][e]))
    f.write("other,a,%d,63,1000\n" % layers[0])

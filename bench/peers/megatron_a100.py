"""Predicts the four A100 training runs that arXiv 2205.05198 measured (tables 3 and 5) and that calculon
(arXiv's "Calculon", SC 2023) validates itself on: GPT of 22 B to 1 T parameters, sequence parallelism, selective or full
recompute, attention that writes its scores to memory. Nothing here is fitted to them: the machine's constants are configs/sim/a100-80g.toml.

  python3 bench/peers/megatron_a100.py build/cpu-release/bin/moge

GPT's MLP has two matrices of width 4 D, ours three: width 8/3 D has the same parameters and FLOPs.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

SEQUENCE, VOCAB = 2048, 51200
# name, heads, D, L, tensor and pipeline parallel, chunks, global batch, microbatch, measured s: selective, full
CASES = [
    ("22B", 64, 6144, 48, 8, 1, 1, 4, 4, 1.10, 1.42),
    ("175B", 96, 12288, 96, 8, 8, 3, 64, 1, 13.75, 18.13),
    ("530B", 128, 20480, 105, 8, 35, 3, 280, 1, 37.83, 49.05),
    ("1T", 160, 25600, 128, 8, 64, 1, 512, 1, 71.49, 94.42),
]


def predict(moge, folder, case, recompute):
    name, heads, hidden, layers, tp, pp, chunks, batch, micro, _, _ = case
    model = folder / name
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps({
        "model_type": "qwen2", "vocab_size": VOCAB, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "tie_word_embeddings": True,
        "intermediate_size": round(hidden * 8 / 3 / tp) * tp, "max_position_embeddings": SEQUENCE}))
    plan = folder / f"{name}.json"
    plan.write_text(json.dumps({"pipeline": pp, "pipeline_chunks": chunks, "attention_tp": tp, "shared_tp": tp}))
    done = subprocess.run(
        [moge, "sim", "train", "--model", str(model), "--hardware", "a100-80g", "--plan", str(plan), "--sequence",
         str(SEQUENCE), "--micro-batch", str(micro), "--global-batch", str(batch * SEQUENCE), "--recompute",
         recompute, "--attention", "unfused", "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main():
    moge = sys.argv[1]
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            for recompute, measured in (("attention", case[-2]), ("full", case[-1])):
                answer = predict(moge, pathlib.Path(folder), case, recompute)
                seconds = answer["latency_ms"] / 1e3
                errors.append(abs(seconds / measured - 1))
                print(json.dumps({"model": case[0], "recompute": recompute, "measured_s": measured,
                                  "predicted_s": round(seconds, 3), "error": round(seconds / measured - 1, 4),
                                  "mfu": round(answer["mfu"], 4), "bubble": round(answer["bubble"], 4)}))
    print(json.dumps({"mean_error": sum(errors) / len(errors), "max_error": max(errors)}))


if __name__ == "__main__":
    main()

"""Our predicted steps of Qwen3-30B-A3B beside those of aiconfigurator, which interpolates tables of kernels
that NVIDIA measured in its own serving stack. Two forecasts: neither is the truth.

  python3 -m venv venv && venv/bin/pip install aiconfigurator==0.12.0
  venv/bin/python bench/peers/aiconfigurator_step.py build/cpu-release/bin/moge
"""

import json
import re
import subprocess
import sys

PEER_MODEL, OUR_MODEL = "Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b"
CONTEXT = 2048
FORMATS = {  # of the peer: gemm, moe; ours: --weights
    "bf16": ("bfloat16", "bfloat16", "bf16"),
    "fp8": ("fp8", "fp8", "fp8"),
}


def peer_ms(system, mode, gpus, batch, gemm, moe):
    """Of one decoding step, or of a batch's prefill."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from aiconfigurator.main import main; main()", "cli", "estimate",
         "--model-path", PEER_MODEL, "--system", system, "--backend", "trtllm", "--estimate-mode", mode,
         "--isl", str(CONTEXT), "--osl", "2", "--batch-size", str(batch), "--tp-size", str(gpus),
         "--moe-tp-size", "1", "--moe-ep-size", str(gpus), "--gemm-quant-mode", gemm, "--moe-quant-mode", moe,
         "--kvcache-quant-mode", "bfloat16", "--fmha-quant-mode", "bfloat16", "--no-color"],
        capture_output=True, text=True, check=False)
    label = "Generation lat." if mode == "static_gen" else "TTFT"
    found = re.search(re.escape(label) + r":\s+([\d.,]+) ms", done.stdout)
    if not found:
        raise RuntimeError(f"no '{label}' in the answer of aiconfigurator:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return float(found[1].replace(",", ""))


def our_ms(moge, hardware, mode, gpus, batch, weights):
    stage = ["decode", "--context"] if mode == "static_gen" else ["prefill", "--input"]
    done = subprocess.run(
        [moge, "sim", *stage, str(CONTEXT), "--model", OUR_MODEL, "--hardware", hardware, "--cards", str(gpus),
         "--batch", str(batch), "--weights", weights, "--json"],
        capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["latency_ms"]


def main():
    moge = sys.argv[1]
    rows = []
    for system, hardware in (("h200_sxm", "h200-sxm"), ("h100_sxm", "h100-sxm")):
        for name, (gemm, moe, weights) in FORMATS.items():
            for mode, gpus, batch in (("static_gen", 1, 1), ("static_gen", 1, 16), ("static_gen", 1, 64),
                                      ("static_gen", 4, 64), ("static_gen", 4, 256), ("static_ctx", 1, 1),
                                      ("static_ctx", 4, 4)):
                theirs = peer_ms(system, mode, gpus, batch, gemm, moe)
                ours = our_ms(moge, hardware, mode, gpus, batch, weights)
                rows.append({"hardware": hardware, "format": name, "stage": mode[7:], "gpus": gpus, "batch": batch,
                             "aiconfigurator_ms": theirs, "moge_ms": ours, "ratio": ours / theirs})
                print(json.dumps(rows[-1]), flush=True)
    ratios = sorted(abs(r["ratio"] - 1) for r in rows)
    print(json.dumps({"mean_difference": sum(ratios) / len(ratios), "median_difference": ratios[len(ratios) // 2]}))


if __name__ == "__main__":
    main()

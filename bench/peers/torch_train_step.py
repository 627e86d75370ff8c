"""Tokens per second of a full training step of a PyTorch MoGE model on the CPU: what `moge train` is measured against.

    python bench/peers/torch_train_step.py [--config configs/models/demo-moge] [--dtype bf16] [--mode compile] ...
    python bench/peers/torch_train_step.py --check

A step is forward, cross-entropy and balance loss, backward, clipping to norm 1 and fused AdamW on float32 weights.
Every combination of dtype, mode and expert kernel that the flags leave is run; the JSON on stdout has them all and the
best. With --ours PROGRAM (bench/train_step, built with -DMOGE_BENCH=ON) each variant takes turns with it, and the JSON
has the median of the rounds' ratios. --check compares the model with the oracle under tests/golden instead, in
float32, on the golden checkpoints.
"""
import argparse
import ctypes
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import torch_moge

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))
import moge_torch  # noqa: E402


def keep_freed_memory() -> None:
    """Without this, glibc returns each large buffer to the kernel and pays its page faults again in the next step."""
    m_trim_threshold, m_mmap_threshold = -1, -3
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(m_mmap_threshold, 1 << 30)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def decayed(name: str) -> bool:
    return name.endswith(".weight") and "norm" not in name or ".experts_" in name


def make_model(config: moge_torch.Config, sequence_length: int, experts: str) -> torch_moge.Model:
    torch.manual_seed(0)
    model = torch_moge.Model(config, sequence_length, experts)
    for name, p in model.named_parameters():
        if decayed(name):
            torch.nn.init.normal_(p, std=0.02)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(p)
    return model


def measure(config: moge_torch.Config, args: argparse.Namespace, dtype: str, mode: str, experts: str) -> dict:
    model = make_model(config, args.sequence, experts)
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if decayed(n)], "weight_decay": 0.1},
        {"params": [p for n, p in named if not decayed(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True)
    forward = torch.compile(model, dynamic=True if experts == "loop" else False) if mode == "compile" else model
    data = torch.randint(config.vocab_size, (args.tokens // args.sequence, args.sequence + 1))
    tokens, targets = data[:, :-1].contiguous(), data[:, 1:].contiguous()

    loss = None

    def seconds_of(steps: int) -> list[float]:
        nonlocal loss
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
                loss = forward(tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            times.append(time.perf_counter() - start)
        return times

    seconds_of(args.warmup)
    result = {"dtype": dtype, "mode": mode, "experts": experts}
    if args.ours:
        rounds = [(ours_tokens_per_s(args), args.tokens / statistics.median(seconds_of(3))) for _ in range(args.rounds)]
        result["tokens_per_s"] = round(statistics.median(peer for _, peer in rounds))
        result["ours_tokens_per_s"] = round(statistics.median(ours for ours, _ in rounds))
        result["ratio"] = round(statistics.median(ours / peer for ours, peer in rounds), 3)
        result["rounds"] = [[round(ours), round(peer)] for ours, peer in rounds]
    else:
        times = seconds_of(args.steps)
        result["tokens_per_s"] = round(args.tokens / statistics.median(times))
        result["step_ms"] = {"median": round(1e3 * statistics.median(times), 1), "min": round(1e3 * min(times), 1)}
    return result | {"last_loss": round(loss.item(), 4)}


def ours_tokens_per_s(args: argparse.Namespace) -> float:
    """Of three steps of our program, after its own warm-up."""
    command = [
        args.ours, args.config, "--steps", "3", "--tokens", str(args.tokens), "--sequence", str(args.sequence),
        "--threads", str(args.threads),
    ]  # fmt: skip
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["tokens_per_second"]


def check_against_oracle() -> None:
    """Loss and every gradient in float32, sequences of one length, on each golden MoE checkpoint."""
    for directory in sorted((ROOT / "tests" / "golden" / "models").iterdir()):
        oracle = moge_torch.load(directory, torch.float32)
        c = oracle.config
        if not c.num_experts or directory.name == "ties":  # torch's topk and products leave ties open
            continue
        generator = torch.Generator().manual_seed(1)
        data = torch.randint(c.vocab_size, (2, 21), generator=generator)
        tokens, targets = data[:, :-1], data[:, 1:]
        cu_seqlens = torch.tensor([0, 20, 40])
        logits, routings = oracle(tokens.flatten(), torch.arange(20).repeat(2), cu_seqlens)
        loss = moge_torch.losses(logits, routings, targets.flatten(), cu_seqlens, c.router_aux_loss_coef)
        want = loss["total"]
        want.backward()
        for experts in torch_moge.EXPERT_KERNELS:
            peer = torch_moge.Model(c, 20, experts)
            peer.load_state_dict(torch_moge.from_checkpoint_names(oracle) | {"cos": peer.cos, "sin": peer.sin})
            got = peer(tokens, targets)
            got.backward()
            worst = abs(got.item() / want.item() - 1)
            gradients = torch_moge.from_checkpoint_names(oracle, lambda p: p.grad)
            for name, p in peer.named_parameters():
                worst = max(worst, ((p.grad - gradients[name]).norm() / gradients[name].norm()).item())
            print(f"{directory.name} {experts}: worst relative difference {worst:.1e}")
            assert worst < 1e-5  # two float32 computations; each is within 5e-6 of the exact one (golden.json)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "models" / "demo-moge")
    parser.add_argument("--dtype", choices=["fp32", "bf16"])
    parser.add_argument("--mode", choices=["eager", "compile"])
    parser.add_argument("--experts", choices=torch_moge.EXPERT_KERNELS)
    parser.add_argument("--tokens", type=int, default=4096, help="per step")
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--ours", type=Path, help="take turns with this program: build/cpu-release/bench/train_step")
    parser.add_argument("--rounds", type=int, default=7, help="of turns")
    parser.add_argument("--check", action="store_true", help="compare with the oracle instead of timing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.check:
        return check_against_oracle()

    keep_freed_memory()
    path = args.config / "config.json" if args.config.is_dir() else args.config
    config = moge_torch.Config.from_dict(json.loads(path.read_text()))
    combinations = itertools.product(
        [args.dtype] if args.dtype else ["fp32", "bf16"],
        [args.mode] if args.mode else ["eager", "compile"],
        [args.experts] if args.experts else torch_moge.EXPERT_KERNELS,
    )
    runs = []
    for dtype, mode, experts in combinations:
        try:
            runs.append(measure(config, args, dtype, mode, experts))
        except RuntimeError as error:  # torch.compile needs a C++ compiler and Python's headers
            runs.append({"dtype": dtype, "mode": mode, "experts": experts, "tokens_per_s": 0, "error": str(error)[:200]})
        print(runs[-1], file=sys.stderr, flush=True)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(json.dumps({
        "peer": f"torch {torch.__version__}", "python": platform.python_version(), "cpu": cpu, "config": path.parent.name,
        "threads": args.threads, "tokens": args.tokens, "sequence": args.sequence,
        "best": max(runs, key=lambda r: r["tokens_per_s"]), "runs": runs,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()

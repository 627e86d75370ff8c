"""Does a checkpoint that the C++ side wrote mean the same model to moge_torch.py?

    python tests/golden/check_roundtrip.py CHECKPOINT_DIR LOGITS.safetensors [--tolerance 1e-5] [--transformers]

With --transformers: to Hugging Face's own model, in float32 (cases llama, qwen3 and qwen3_moe).

CHECKPOINT_DIR is loaded strictly: a missing, an unknown or a misshapen tensor is an error. LOGITS.safetensors is what
the C++ binary computed from the same directory: `tokens`, `positions` [T] and `cu_seqlens` [B + 1] (i32) and `logits`
[T, V] (f32). A golden.safetensors will do too (its batch 0). Prints JSON; exit status 1 when the logits differ, by the
norm of the difference over the norm, or are not finite.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import moge_torch


def transformers_logits(directory: Path, tokens: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    if any(info.values()):
        sys.exit(f"{directory}: {info}")
    spans = zip(cu_seqlens, cu_seqlens[1:])
    return torch.cat([model(tokens[None, begin:end]).logits[0] for begin, end in spans]).double()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("logits", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="1e-5: float32; 2e-2: bfloat16 products")
    parser.add_argument("--transformers", action="store_true", help="ask transformers instead of moge_torch")
    args = parser.parse_args()

    dump = load_file(args.logits)
    inputs = [dump[name].long() for name in ("tokens", "positions", "cu_seqlens")]
    tokens, positions, cu_seqlens = (t[0] for t in inputs) if inputs[0].dim() == 2 else inputs
    with torch.no_grad():
        if args.transformers:
            want = transformers_logits(args.checkpoint, tokens, cu_seqlens)
        else:
            want, _ = moge_torch.load(args.checkpoint)(tokens, positions, cu_seqlens)
    got = dump["logits"].double()
    if got.shape != want.shape:
        print(f"{args.logits}: logits: expected shape {list(want.shape)}, got {list(got.shape)}", file=sys.stderr)
        return 1
    difference = (got - want).abs()
    error = (difference.norm() / want.norm()).item()
    token, word = divmod(difference.argmax().item(), want.shape[1])
    ok = error <= args.tolerance  # false for NaN
    print(json.dumps({
        "ok": ok, "error": error, "tolerance": args.tolerance,
        "worst": {"token": token, "vocabulary": word, "got": got[token, word].item(), "want": want[token, word].item()},
    }))  # fmt: skip
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

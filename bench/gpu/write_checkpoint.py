"""Writes a random checkpoint in the format of the released Pangu Pro MoE, cut to some layers: to time loading.

    python bench/gpu/write_checkpoint.py configs/models/pangu-pro-moe-72b-a16b DIR --layers 3

A layer is 2.9 GB of bf16, embedding and head together 3.1 GB. Values are made on the GPU. Needs torch with CUDA and
safetensors.
"""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def normal(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.02).cpu()


def layer(c: dict, prefix: str) -> dict[str, torch.Tensor]:
    d, heads, kv, experts = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["num_experts"]
    head_dim = d // heads
    t = {f"{prefix}{name}.weight": torch.ones(d, dtype=torch.bfloat16)
         for name in ("input_layernorm", "post_attention_layernorm")}
    for name, rows, columns in (("q", d, d), ("k", kv * head_dim, d), ("v", kv * head_dim, d), ("o", d, d)):
        t[f"{prefix}self_attn.{name}_proj.weight"] = normal(rows, columns)
        t[f"{prefix}self_attn.{name}_proj.bias"] = normal(rows)
    t[f"{prefix}mlp.gate.weight"] = normal(experts, d)
    t[f"{prefix}mlp.router_scale"] = torch.ones(1, experts, dtype=torch.bfloat16)
    widths = {f"experts.{e}": c["moe_intermediate_size"] for e in range(experts)}
    for expert, f in (widths | {"shared_expert": c["shared_expert_intermediate_size"]}).items():
        for name, shape in (("gate", (f, d)), ("up", (f, d)), ("down", (d, f))):
            t[f"{prefix}mlp.{expert}.{name}_proj.weight"] = normal(*shape)
    return t


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="directory with config.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    args = parser.parse_args()
    c = json.loads((args.config / "config.json").read_text())
    c["num_hidden_layers"] = args.layers
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "config.json").write_text(json.dumps(c, indent=2))
    shards = [layer(c, f"model.layers.{n}.") for n in range(args.layers)]
    shards.append({"model.embed_tokens.weight": normal(c["vocab_size"], c["hidden_size"]),
                   "model.norm.weight": torch.ones(c["hidden_size"], dtype=torch.bfloat16),
                   "lm_head.weight": normal(c["vocab_size"], c["hidden_size"])})
    weight_map, total = {}, 0
    for i, tensors in enumerate(shards, 1):
        name = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, args.out / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (args.out / "model.safetensors.index.json").write_text(json.dumps(index))
    print(f"{args.out}: {args.layers} layers, {total * 1e-9:.1f} GB")


if __name__ == "__main__":
    main()

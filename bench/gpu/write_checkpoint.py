"""Writes a random checkpoint in the format of the released Pangu Pro MoE, cut to some layers: to time loading.

    python bench/gpu/write_checkpoint.py configs/models/pangu-pro-moe-72b-a16b DIR --layers 3

A layer is a shard of 2.9 GB of bf16, embedding and head together one of 3.1 GB; whole, 144 GB. Values are made on the GPU, and
depend on the seed and the layer only. Each of the processes that write (--processes) holds a shard in memory. Needs torch with
CUDA and safetensors.
"""
import argparse
import concurrent.futures
import json
import multiprocessing
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


def ends(c: dict) -> dict[str, torch.Tensor]:
    d = c["hidden_size"]
    return {"model.embed_tokens.weight": normal(c["vocab_size"], d), "lm_head.weight": normal(c["vocab_size"], d),
            "model.norm.weight": torch.ones(d, dtype=torch.bfloat16)}


def write_shard(c: dict, seed: int, number: int, path: Path) -> dict[str, int]:
    """Writes one layer, or after the last layer what stands around them; returns the bytes of each tensor."""
    torch.manual_seed(seed + number)
    tensors = layer(c, f"model.layers.{number}.") if number < c["num_hidden_layers"] else ends(c)
    save_file(tensors, path, metadata={"format": "pt"})
    return {name: t.numel() * t.element_size() for name, t in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="directory with config.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, help="default: all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    c = json.loads((args.config / "config.json").read_text())
    c["num_hidden_layers"] = args.layers or c["num_hidden_layers"]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "config.json").write_text(json.dumps(c, indent=2))

    shards = c["num_hidden_layers"] + 1
    names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    weight_map, total = {}, 0
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(args.processes, mp_context=spawn) as pool:
        written = [pool.submit(write_shard, c, args.seed, i, args.out / name) for i, name in enumerate(names)]
        for name, shard in zip(names, written):
            sizes = shard.result()
            weight_map |= dict.fromkeys(sizes, name)
            total += sum(sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (args.out / "model.safetensors.index.json").write_text(json.dumps(index))
    print(f"{args.out}: {c['num_hidden_layers']} layers, {total * 1e-9:.1f} GB")


if __name__ == "__main__":
    main()

"""PyTorch's and transformers' rates on one GPU for what `moge bench ops|decode` times, at Pangu Pro MoE's shapes.

    python bench/peers/torch_gpu.py [products] [attention] [qwen3-moe]

products: fp8 torch._scaled_grouped_mm over 64 experts (routed as a MoGE of 8 groups) and torch._scaled_mm, also for the
shared experts' MLP; attention: SDPA with one query a sequence, batch 256, 2048 keys, bf16; qwen3-moe: a decode step of
transformers' Qwen3-MoE, 6 layers of the same widths (68 experts, 12 a token, so the same weights are read), bf16.
Medians of a CUDA graph of several calls over weights or caches larger than the L2, what is long on a card that it has
brought to its power limit before, as `moge tune` times ours; transformers runs as its users run it, without a graph. Compare with our numbers of the same card and job only. Needs torch with CUDA, and transformers.
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HIDDEN, EXPERT_WIDTH, EXPERTS, ALWAYS_ON, GROUPS = 5120, 1344, 64, 4, 8
HEADS, KV_HEADS, HEAD_DIM, LAYERS = 40, 8, 128, 6
LONG_US, HOT_US = 100, 60e3  # src/cli/graph_timer.cpp


def microseconds(call, calls: int) -> float:
    """Median time of call(i), i = 0 .. calls-1, inside a replayed graph."""
    for i in range(3):
        call(i % calls)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i)

    def replay() -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) * 1e3

    ran = replay()
    if ran > LONG_US * calls:
        while ran < HOT_US:
            ran += replay()
    return statistics.median(replay() for _ in range(7)) / calls


def report(what: str, shape: str, us: float, bytes_moved: float, flops: float) -> None:
    print(f"{what:28} {shape:44} {us:9.1f} us {bytes_moved / us * 1e-3:7.0f} GB/s {flops / us * 1e-6:7.0f} TFLOP/s",
          flush=True)


def fp8(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 100).to(torch.float8_e4m3fn)


def rows_of_experts(tokens: int) -> torch.Tensor:
    """Rows each expert gets when every token picks one expert of each group."""
    experts = EXPERTS // GROUPS
    picked = [torch.bincount(torch.randint(0, experts, (tokens,)), minlength=experts) for _ in range(GROUPS)]
    return torch.cat(picked)


def products() -> None:
    for name, n, k in (("gate_up_proj", 2 * EXPERT_WIDTH, HIDDEN), ("down_proj", HIDDEN, EXPERT_WIDTH)):
        w, w_scale = fp8(EXPERTS, n, k), torch.rand(EXPERTS, n, device="cuda")
        for tokens in (300, 4096):
            offsets = rows_of_experts(tokens).cumsum(0).to(device="cuda", dtype=torch.int32)
            rows = int(offsets[-1])
            a, a_scale = fp8(rows, k), torch.rand(rows, device="cuda")

            def call(_: int) -> torch.Tensor:
                return torch._scaled_grouped_mm(a, w.transpose(1, 2), a_scale, w_scale, offs=offsets,
                                                out_dtype=torch.bfloat16, use_fast_accum=True)

            us = microseconds(call, 3)
            report("_scaled_grouped_mm", f"{name}, {tokens} tokens ({rows} rows)", us,
                   w.numel() + rows * (k + 2 * n), 2 * rows * n * k)
        del w
    for name, n, k in (("qkv_proj", (HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN), ("o_proj", HIDDEN, HEADS * HEAD_DIM),
                       ("shared_gate_up_proj", 2 * ALWAYS_ON * EXPERT_WIDTH, HIDDEN),
                       ("shared_down_proj", HIDDEN, ALWAYS_ON * EXPERT_WIDTH)):
        weights, w_scale = [fp8(n, k) for _ in range(8)], torch.rand(1, n, device="cuda")
        for tokens in (1, 300, 4096):
            # _scaled_mm takes rows in multiples of 16
            rows = (tokens + 15) // 16 * 16
            a, a_scale = fp8(rows, k), torch.rand(rows, 1, device="cuda")

            def call(i: int) -> torch.Tensor:
                return torch._scaled_mm(a, weights[i].t(), a_scale, w_scale, out_dtype=torch.bfloat16,
                                        use_fast_accum=True)

            us = microseconds(call, len(weights))
            report("_scaled_mm", f"{name}, {tokens} tokens", us, n * k + rows * (k + 2 * n), 2 * tokens * n * k)


def attention(batch: int = 256, length: int = 2048) -> None:
    q = torch.randn(batch, HEADS, 1, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, KV_HEADS, length, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):

        def call(_: int) -> torch.Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

        try:
            us = microseconds(call, 4)
        except RuntimeError as e:
            print(f"SDPA {backend.name}: {str(e).splitlines()[0]}")
            continue
        report(f"SDPA {backend.name}", f"{batch} x {length}, bf16", us, 2 * k.numel() * 2,
               4 * batch * length * HEADS * HEAD_DIM)


def qwen3_moe(context: int = 128, steps: int = 20) -> None:
    import transformers

    config = transformers.Qwen3MoeConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM, moe_intermediate_size=EXPERT_WIDTH, num_experts=EXPERTS + ALWAYS_ON,
        num_experts_per_tok=GROUPS + ALWAYS_ON, vocab_size=153376, max_position_embeddings=4096)
    for experts in ("eager", "grouped_mm"):
        try:
            with torch.device("cuda"):
                model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16,
                                                                      experts_implementation=experts).eval()
        except (TypeError, ValueError) as e:
            print(f"transformers {transformers.__version__}, experts {experts}: {e}")
            continue
        for batch in (1, 128):
            ids = torch.randint(0, config.vocab_size, (batch, context), device="cuda")
            cache = transformers.DynamicCache(config=config)
            times = []
            with torch.inference_mode():
                ids = model(ids, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
                for _ in range(steps):
                    torch.cuda.synchronize()
                    begin = time.perf_counter()
                    ids = model(ids, past_key_values=cache).logits[:, -1:].argmax(-1)
                    torch.cuda.synchronize()
                    times.append(1e3 * (time.perf_counter() - begin))
            ms = statistics.median(times)
            print(f"transformers {transformers.__version__} Qwen3-MoE, {LAYERS} layers, experts {experts}, batch "
                  f"{batch}, context {context}: {ms:.2f} ms a step, {batch / ms * 1e3:.0f} tokens/s", flush=True)
        del model, cache
        torch.cuda.empty_cache()


def main() -> None:
    parts = {"products": products, "attention": attention, "qwen3-moe": qwen3_moe}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*parts, []], help="default: all")
    names = parser.parse_args().part or list(parts)
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for name in names:
        parts[name]()


if __name__ == "__main__":
    main()

"""The oracle: MoGE, dense and Qwen3-MoE language models in plain PyTorch, written for reading, not for speed.

It shares no code with the C++ system and follows the paper (arXiv 2505.21411, eq. 5-8) and the Hugging Face
config keys and tensor names literally; `named_parameters()` are exactly the tensors of a checkpoint. Everything
runs in the dtype of the parameters: load in float64 and the result is exact for a float32 comparison.

Letters: T tokens of a packed batch, D hidden, H query heads, KV key/value heads, Dh head dim, V vocabulary,
E experts, G groups, K experts per token, F expert width.
"""
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

MODEL_TYPES = ("PanguProMoE", "llama", "qwen2", "qwen3", "qwen3_moe")


@dataclass(frozen=True)
class Config:
    """What the maths needs of a config.json; the fields carry its keys."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    attention_bias: bool  # biases on q, k and v
    o_proj_bias: bool
    qk_norm: bool  # RMSNorm over each head of q and k, before the rotation
    intermediate_size: int = 0  # width of a dense feed-forward
    num_experts: int = 0  # 0: a dense model
    num_experts_per_tok: int = 0
    num_expert_groups: int = 1
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    norm_topk_prob: bool = False
    use_router_scale: bool = False
    router_aux_loss_coef: float = 0.0

    @staticmethod
    def from_dict(raw: dict) -> "Config":
        kind = raw["model_type"]
        if kind not in MODEL_TYPES:
            raise ValueError(f"model_type {kind!r} is not supported; supported: {', '.join(MODEL_TYPES)}")
        pangu = kind == "PanguProMoE"
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if rope.get("rope_type", "default") != "default":
            raise ValueError(f"rope_type {rope['rope_type']!r} is not supported; supported: default")
        if raw.get("hidden_act", "silu") != "silu":
            raise ValueError(f"hidden_act {raw['hidden_act']!r} is not supported; supported: silu")
        heads = raw["num_attention_heads"]
        head_dim = raw.get("head_dim") or (128 if kind == "qwen3" else raw["hidden_size"] // heads)
        experts = 0
        if kind in ("PanguProMoE", "qwen3_moe"):
            # transformers 5 writes qwen3_moe's count as num_local_experts.
            experts = raw["num_experts"] if "num_experts" in raw else raw["num_local_experts"]
        if raw.get("mlp_only_layers") or raw.get("decoder_sparse_step", 1) != 1:
            raise ValueError("dense layers inside a MoE model are not supported")
        topk = raw["num_experts_per_tok"] if experts else 0
        # Without the key the released Pangu checkpoint means one expert from each of K groups.
        groups = (raw.get("num_expert_groups") or (topk if pangu else 1)) if experts else 1
        if experts % groups or topk % groups or topk // groups > experts // groups:
            raise ValueError(f"{experts} experts, {topk} a token do not divide into {groups} groups")
        return Config(
            model_type=kind,
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            num_hidden_layers=raw["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=raw.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            rms_norm_eps=raw["rms_norm_eps"],
            rope_theta=float(rope.get("rope_theta") or raw["rope_theta"]),
            tie_word_embeddings=raw.get("tie_word_embeddings", False),
            attention_bias=kind == "qwen2" or raw.get("attention_bias", pangu),
            o_proj_bias=kind != "qwen2" and raw.get("attention_bias", pangu),
            qk_norm=kind in ("qwen3", "qwen3_moe") or (pangu and raw.get("qk_norm", False)),
            intermediate_size=0 if experts else raw["intermediate_size"],
            num_experts=experts,
            num_experts_per_tok=topk,
            num_expert_groups=groups,
            moe_intermediate_size=raw["moe_intermediate_size"] if experts else 0,
            shared_expert_intermediate_size=raw.get("shared_expert_intermediate_size", 0) if pangu else 0,
            norm_topk_prob=raw.get("norm_topk_prob", False),
            use_router_scale=pangu and raw.get("use_router_scale", True),
            router_aux_loss_coef=raw.get("router_aux_loss_coef", 0.0) if experts else 0.0,
        )


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary positions, "rotate half": element i of x [T, heads, Dh] turns with element i + Dh/2."""
    half = x.shape[-1] // 2
    freqs = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions.to(torch.float64)[:, None] * freqs  # [T, Dh/2]
    cos, sin = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def document_ids(cu_seqlens: Tensor) -> Tensor:
    """[B + 1] boundaries -> [T] index of the document that each token belongs to."""
    return torch.repeat_interleave(torch.arange(len(cu_seqlens) - 1), cu_seqlens.diff().long())


class Attention(nn.Module):
    """Causal inside each document; query head h reads key/value head h // (H / KV)."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        q_dim, kv_dim = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, q_dim, bias=c.attention_bias)
        self.k_proj = nn.Linear(c.hidden_size, kv_dim, bias=c.attention_bias)
        self.v_proj = nn.Linear(c.hidden_size, kv_dim, bias=c.attention_bias)
        self.o_proj = nn.Linear(q_dim, c.hidden_size, bias=c.o_proj_bias)
        if c.qk_norm:
            self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
            self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, cu_seqlens: Tensor) -> Tensor:
        c, T = self.c, x.shape[0]
        q = self.q_proj(x).view(T, -1, c.head_dim)
        k = self.k_proj(x).view(T, -1, c.head_dim)
        v = self.v_proj(x).view(T, -1, c.head_dim)
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, positions, c.rope_theta), rotate(k, positions, c.rope_theta)
        share = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        scores = torch.einsum("ihd,jhd->hij", q, k) * c.head_dim**-0.5
        doc = document_ids(cu_seqlens)
        visible = (doc[:, None] == doc[None, :]) & torch.ones(T, T, dtype=torch.bool).tril()
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        return self.o_proj(torch.einsum("hij,jhd->ihd", weights, v).reshape(T, -1))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): a dense feed-forward, an expert, the shared expert."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.gate_proj = nn.Linear(dim, width, bias=False)
        self.up_proj = nn.Linear(dim, width, bias=False)
        self.down_proj = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass
class Routing:
    """One layer's routing."""

    logits: Tensor  # [T, E]
    probs: Tensor  # [T, E]: softmax over all experts
    topk_ids: Tensor  # [T, K]: by group, then by falling score, equal scores by rising index
    topk_weights: Tensor  # [T, K]


class MoE(nn.Module):
    """Eq. 5-7. One group and no shared expert make it the plain top-K layer of Qwen3-MoE."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.gate = nn.Linear(c.hidden_size, c.num_experts, bias=False)
        if c.use_router_scale:
            self.router_scale = nn.Parameter(torch.ones(1, c.num_experts))
        self.experts = nn.ModuleList(SwiGLU(c.hidden_size, c.moe_intermediate_size) for _ in range(c.num_experts))
        if c.shared_expert_intermediate_size:
            self.shared_expert = SwiGLU(c.hidden_size, c.shared_expert_intermediate_size)

    def route(self, x: Tensor) -> Routing:
        c, T = self.c, x.shape[0]
        # Not a matmul: its kernels may round equal router rows differently, and no tie would be one.
        logits = (x[:, None, :] * self.gate.weight).sum(-1)
        probs = logits.softmax(-1)
        group_size = c.num_experts // c.num_expert_groups
        per_group = c.num_experts_per_tok // c.num_expert_groups  # K'
        order = probs.view(T, c.num_expert_groups, group_size).sort(dim=-1, descending=True, stable=True).indices
        first = torch.arange(c.num_expert_groups)[:, None] * group_size
        ids = (order[..., :per_group] + first).reshape(T, c.num_experts_per_tok)
        weights = probs.gather(1, ids)
        if c.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        if c.use_router_scale:  # after the selection and the renormalisation
            weights = weights * self.router_scale[0][ids]
        return Routing(logits, probs, ids, weights)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        routing = self.route(x)
        y = self.shared_expert(x) if self.c.shared_expert_intermediate_size else torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            token, slot = (routing.topk_ids == e).nonzero(as_tuple=True)
            y = y.index_add(0, token, expert(x[token]) * routing.topk_weights[token, slot, None])
        return y, routing


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MoE(c) if c.num_experts else SwiGLU(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, positions: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Routing | None]:
        x = x + self.self_attn(self.input_layernorm(x), positions, cu_seqlens)
        h = self.post_attention_layernorm(x)
        y, routing = self.mlp(h) if isinstance(self.mlp, MoE) else (self.mlp(h), None)
        return x + y, routing


class Trunk(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor, positions: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, list[Routing]]:
        """tokens, positions [T], cu_seqlens [B + 1] -> logits [T, V] and the routing of every MoE layer."""
        x, routings = self.model.embed_tokens(tokens), []
        for layer in self.model.layers:
            x, routing = layer(x, positions, cu_seqlens)
            if routing is not None:
                routings.append(routing)
        head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return F.linear(self.model.norm(x), head.weight), routings


def load(directory: Path | str, dtype: torch.dtype = torch.float64) -> Model:
    """Reads an HF directory; a missing or an unknown tensor is an error."""
    directory = Path(directory)
    model = Model(Config.from_dict(json.loads((directory / "config.json").read_text()))).to(dtype)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(directory.glob("model*.safetensors")):
        tensors.update(load_file(shard))
    model.load_state_dict({name: t.to(dtype) for name, t in tensors.items()}, strict=True)
    return model


def balance_loss(r: Routing, rows: slice = slice(None)) -> Tensor:
    """sum_i f_i p_i over the tokens `rows` (eq. 8 without alpha; 1.0 when uniform)."""
    ids, probs = r.topk_ids[rows], r.probs[rows]
    num_experts = probs.shape[1]
    count = torch.bincount(ids.flatten(), minlength=num_experts).to(probs.dtype)
    return (num_experts / ids.numel() * count * probs.mean(0)).sum()


def losses(
    logits: Tensor,
    routings: list[Routing],
    targets: Tensor,
    cu_seqlens: Tensor,
    aux_coef: float = 0.0,
    z_coef: float = 0.0,
    balance: str = "batch",
) -> dict[str, Tensor]:
    """cross_entropy: mean over the targets that are not -1. balance: SUM over the layers of eq. 8, over the whole
    batch or ("sequence") as the mean over its documents. z: SUM over the layers of the mean squared log-sum-exp of
    the router logits. All tokens count in the last two, whatever their target. total = ce + aux_coef * balance +
    z_coef * z."""
    ce = F.cross_entropy(logits, targets.long(), ignore_index=-1)
    bounds = [0, len(targets)] if balance == "batch" else cu_seqlens.tolist()
    rows = [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:])]
    zero = logits.new_zeros(())
    aux = sum((torch.stack([balance_loss(r, s) for s in rows]).mean() for r in routings), zero)
    z = sum((r.logits.logsumexp(-1).pow(2).mean() for r in routings), zero)
    return {"total": ce + aux_coef * aux + z_coef * z, "cross_entropy": ce, "balance": aux, "z": z}


def decayed(name: str) -> bool:
    """Weight decay acts on matrices, not on norms, biases and router_scale."""
    return name.endswith(".weight") and "norm" not in name


def optimizer(named_parameters, lr: float, weight_decay: float = 0.1) -> torch.optim.AdamW:
    named = list(named_parameters)
    groups = [
        {"params": [p for n, p in named if decayed(n)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decayed(n)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8)

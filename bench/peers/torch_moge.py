"""The peer of the training benchmark: the MoGE model as one writes it in PyTorch for speed on a CPU.

Same maths as tests/golden/moge_torch.py (`torch_train_step.py --check` compares loss and gradients), but: q, k, v and
gate, up fused into one product each; SDPA; experts on rows sorted by expert, as a loop of products or as one grouped_mm;
index_select and index_add, whose gradients are each other. Sequences have equal length, one document each.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPERT_KERNELS = ("loop", "grouped_mm")


def swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class Block(nn.Module):
    def __init__(self, c, experts: str):
        super().__init__()
        self.c, self.expert_kernel = c, experts
        D, E, width, shared = c.hidden_size, c.num_experts, c.moe_intermediate_size, c.shared_expert_intermediate_size
        self.q_dim, self.kv_dim = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.input_layernorm = nn.RMSNorm(D, eps=c.rms_norm_eps)
        self.qkv_proj = nn.Linear(D, self.q_dim + 2 * self.kv_dim, bias=c.attention_bias)
        self.o_proj = nn.Linear(self.q_dim, D, bias=c.o_proj_bias)
        if c.qk_norm:
            self.q_norm = nn.RMSNorm(c.head_dim, eps=c.rms_norm_eps)
            self.k_norm = nn.RMSNorm(c.head_dim, eps=c.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(D, eps=c.rms_norm_eps)
        self.gate = nn.Linear(D, E, bias=False)
        if c.use_router_scale:
            self.router_scale = nn.Parameter(torch.ones(E))
        self.experts_gate_up = nn.Parameter(torch.empty(E, 2 * width, D))
        self.experts_down = nn.Parameter(torch.empty(E, D, width))
        if shared:
            self.shared_gate_up = nn.Linear(D, 2 * shared, bias=False)
            self.shared_down = nn.Linear(shared, D, bias=False)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        c, (B, S, _) = self.c, x.shape
        q, k, v = self.qkv_proj(x).split([self.q_dim, self.kv_dim, self.kv_dim], dim=-1)
        q, k, v = (t.view(B, S, -1, c.head_dim).transpose(1, 2) for t in (q, k, v))
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = F.scaled_dot_product_attention(
            q, k.to(q.dtype), v.to(q.dtype), is_causal=True, enable_gqa=self.q_dim != self.kv_dim
        )
        return self.o_proj(out.transpose(1, 2).reshape(B, S, -1))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [T, D] -> ids, weights [T, K], eq. 8 without alpha. In float32, whatever the rest runs in."""
        c, T = self.c, x.shape[0]
        with torch.autocast("cpu", enabled=False):
            probs = self.gate(x.float()).softmax(-1)
            grouped = probs.view(T, c.num_expert_groups, -1)
            per_group = c.num_experts_per_tok // c.num_expert_groups
            weights, ids = grouped.max(-1, keepdim=True) if per_group == 1 else grouped.topk(per_group, dim=-1)
            first = torch.arange(0, c.num_experts, grouped.shape[-1])[:, None]
            weights, ids = weights.reshape(T, -1), (ids + first).reshape(T, -1)
            if c.norm_topk_prob:
                weights = weights / weights.sum(-1, keepdim=True)
            if c.use_router_scale:
                weights = weights * self.router_scale[ids]
            counts = torch.bincount(ids.flatten(), minlength=c.num_experts)
            balance = (c.num_experts / ids.numel() * counts * probs.mean(0)).sum()
        return ids, weights, balance

    def experts(self, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        order = ids.flatten().argsort()
        token = order // ids.shape[1]
        gate_up, down = self.experts_gate_up.to(x.dtype), self.experts_down.to(x.dtype)
        rows = x.index_select(0, token)
        counts = torch.bincount(ids.flatten(), minlength=self.c.num_experts)
        if self.expert_kernel == "grouped_mm":
            ends = counts.cumsum(0).to(torch.int32)
            hidden = swiglu(F.grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
            out = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
        else:
            parts = zip(rows.split(counts.tolist()), gate_up.unbind(), down.unbind())
            out = torch.cat([F.linear(swiglu(F.linear(r, wide)), narrow) for r, wide, narrow in parts])
        scaled = out * weights.flatten().index_select(0, order)[:, None]
        return torch.zeros(x.shape, dtype=scaled.dtype).index_add(0, token, scaled)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.attention(self.input_layernorm(x), cos, sin)
        h = self.post_attention_layernorm(x).flatten(0, 1)
        ids, weights, balance = self.route(h)
        if torch.is_autocast_enabled("cpu"):
            h = h.to(torch.get_autocast_dtype("cpu"))
        y = self.experts(h, ids, weights)
        if self.c.shared_expert_intermediate_size:
            y = y + self.shared_down(swiglu(self.shared_gate_up(h)))
        return x + y.view(x.shape), balance


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Model(nn.Module):
    def __init__(self, config, sequence_length: int, experts: str):
        super().__init__()
        c = self.config = config
        if not c.num_experts:
            raise ValueError(f"model_type {c.model_type!r} is dense: the peer is a MoE")
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c, experts) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        half = c.head_dim // 2
        freqs = c.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(sequence_length)[:, None] * freqs
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """tokens, targets [B, S] -> cross-entropy + router_aux_loss_coef * balance, summed over the layers."""
        x, balance = self.embed_tokens(tokens), 0.0
        for layer in self.layers:
            x, layer_balance = layer(x, self.cos, self.sin)
            balance = balance + layer_balance
        logits = self.lm_head(self.norm(x)).flatten(0, 1)
        return F.cross_entropy(logits.float(), targets.flatten()) + self.config.router_aux_loss_coef * balance


def from_checkpoint_names(oracle: nn.Module, of=lambda p: p) -> dict[str, Tensor]:
    """`of` each parameter of a moge_torch.Model (its value, its gradient), fused as this model has them."""
    trunk = oracle.model
    head = trunk.embed_tokens if oracle.config.tie_word_embeddings else oracle.lm_head
    out = {
        "embed_tokens.weight": of(trunk.embed_tokens.weight),
        "norm.weight": of(trunk.norm.weight),
        "lm_head.weight": of(head.weight),
    }
    for i, block in enumerate(trunk.layers):
        attention, mlp = block.self_attn, block.mlp
        named = {
            "input_layernorm.weight": of(block.input_layernorm.weight),
            "post_attention_layernorm.weight": of(block.post_attention_layernorm.weight),
            "gate.weight": of(mlp.gate.weight),
            "experts_gate_up": torch.stack(
                [torch.cat((of(e.gate_proj.weight), of(e.up_proj.weight))) for e in mlp.experts]
            ),
            "experts_down": torch.stack([of(e.down_proj.weight) for e in mlp.experts]),
        }
        for leaf, _ in attention.o_proj.named_parameters():
            named[f"o_proj.{leaf}"] = of(attention.o_proj.get_parameter(leaf))
        for leaf, _ in attention.q_proj.named_parameters():
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            named[f"qkv_proj.{leaf}"] = torch.cat([of(p.get_parameter(leaf)) for p in parts])
        if oracle.config.qk_norm:
            named |= {f"{n}.weight": of(attention.get_submodule(n).weight) for n in ("q_norm", "k_norm")}
        if oracle.config.use_router_scale:
            named["router_scale"] = of(mlp.router_scale)[0]
        if oracle.config.shared_expert_intermediate_size:
            shared = mlp.shared_expert
            named["shared_gate_up.weight"] = torch.cat((of(shared.gate_proj.weight), of(shared.up_proj.weight)))
            named["shared_down.weight"] = of(shared.down_proj.weight)
        out |= {f"layers.{i}.{name}": value for name, value in named.items()}
    return out

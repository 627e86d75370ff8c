// moge bench ops: the operators of one layer alone.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/bench_device.h"
#include "cli/graph_timer.h"
#include "cli/json_text.h"
#include "cli/model_path.h"
#include "cli/product_bench.h"
#include "cli/step_timer.h"
#include "core/transfer.h"
#include "model/activations.h"
#include "model/serving.h"
#include "model/weights.h"
#include "ops/attention.h"
#include "ops/decode_inputs.h"
#include "ops/embedding.h"
#include "ops/moe_route.h"
#include "ops/quant_matmul.h"
#include "ops/quantize.h"
#include "ops/random_fill.h"
#include "ops/residual_norm.h"
#include "ops/rope.h"
#include "ops/rope_kv_write.h"
#include "ops/sampling.h"
#include "ops/token_layer.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

/// Routings, which differ from call to call.
constexpr size_t kRoutings = 8;
constexpr int64_t kPageSize = 64;
constexpr int64_t kMaxCaches = 64;     ///< that decoding attention goes round
constexpr int64_t kMostDecoded = 512;  ///< rows of a decoding step; more are prompts
/// Scales of the layers' weights, so small that the residual stream, to which each call adds, stays the
/// random rows that it was: tokens that become alike would all choose the same experts.
constexpr float kScaleStd = 1e-7F, kWeightStd = 1e-6F;

struct Product {
  ProductShape shape;
  ProductWeights weights;
};
/// Where layer_products() has them.
enum ProductIndex : size_t { kQkv, kO, kGateUp, kDown, kHead, kSharedGateUp, kSharedDown };

/// What moe_route leaves for the products of one layer.
struct Routing {
  Tensor topk_ids, topk_weights, offsets, row_token, row_weight, slot_row;
};

/// What a product reads and writes.
struct Operands {
  Tensor c, a, a_scale;
};
Operands rows_of(const Tensor& c, const Tensor& bf16, const Tensor& q8, const Tensor& scale) {
  return q8 ? Operands{c, q8, scale} : Operands{c, bf16, {}};
}

/// What the tokens of a pass attend to.
struct Attended {
  int64_t sequences;
  int64_t queries;  ///< rows of each: 1 is decoding, all of them a whole prompt
  int64_t context;
  bool decodes() const { return queries == 1; }
};

class OpsBench {
 public:
  OpsBench(const DeviceBenchOptions& o, const spec::ModelConfig& c)
      : options_(o),
        c_(c),
        backend_(cuda_backend()),
        ctx_{.device = {DeviceKind::kCuda, 0}, .backend = &backend_},
        timer_(backend_),
        D_(c.hidden_size),
        F_(model::expert_width(c)),
        shared_(c.num_shared_experts() > 0 ? 1 : 0),
        slots_(c.num_experts_per_tok + shared_) {
    for (ProductShape& shape : layer_products(c, o.model.dtype)) products_.push_back({std::move(shape), {}});
    copy_ = backend_.copy_bandwidth();
    const auto weights = [&](Arena& arena) {
      gate_ = arena.alloc(DType::kF32, {std::max<int64_t>(c.num_experts, 1), D_});
      norm_ = arena.alloc(DType::kF32, {D_});
      for (Product& p : products_) p.weights = allocate_weights(arena, backend_, p.shape);
    };
    Arena plan;
    weights(plan);
    weights_ = Arena(plan.used_bytes(), "ops benchmark: weights", &backend_);
    weights(weights_);
    ops::random_fill(ctx_, {.x = gate_, .std = 0.02F, .seed = 9, .of_bf16 = true});
    ops::random_fill(ctx_, {.x = norm_, .std = 1, .seed = 6});
    for (size_t k = 0; k < products_.size(); ++k) {
      const auto& [w, scale] = products_[k].weights;
      for (size_t i = 0; i < w.size(); ++i) {
        ops::random_fill(ctx_, {.x = w[i], .std = k == kHead ? 1 : kWeightStd, .seed = 2 * i});
        if (scale[i]) ops::random_fill(ctx_, {.x = scale[i], .std = kScaleStd, .seed = 2 * i + 1});
      }
    }
    begin();
  }

  void all() {
    // One position more than a round number, and some: kernels that cut sequences have a last piece then.
    std::vector<int64_t> contexts = {2049, 128, 512, 1024, 2048, 2304, 4096, 8192};
    if (options_.context > 0) contexts = {options_.context};
    for (const int64_t T : {1,   2,   4,   8,   16,  24,  32,  48,  64,   96,   128,  160,  192,  224,
                            256, 288, 320, 352, 384, 448, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192}) {
      bool layer_timed = false;
      if (T <= kMostDecoded)
        for (const int64_t context : contexts) {
          pass({T, 1, context}, layer_timed);
          layer_timed = true;
        }
      for (const int64_t length : {2048, 512, 128, 8192})
        if (T % length == 0 && T / length <= 8) {
          pass({T / length, length, length}, layer_timed);
          layer_timed = true;
        }
    }
    if (c_.is_moe())
      for (const int64_t rows : {1, 4, 16, 32, 64, 128, 256, 512, 1024}) same_rows(rows);
    if (options_.json) print_json(out_, 1);
  }

 private:
  /// An operator to be measured, as it is reported.
  struct Op {
    const char* what;
    const char* op;
    ordered_json shape;
    const char* dtype;
    double bytes, flops;
    StepOp step;
    ordered_json beside_shape = {};  ///< of step.beside
    bool reported = true;
  };

  /// Times the operators of a step in their order, each reading what the one before it has written. With
  /// `only_attention` the others only surround it.
  void pass(const Attended& attended, bool only_attention) {
    const int64_t T = attended.sequences * attended.queries;
    const DType dtype = options_.model.dtype;
    memory_.clear();
    place([&](Arena& arena) { acts_ = model::allocate_serving_activations(arena, c_, dtype, T); });
    for (const Tensor& t : {acts_.x, acts_.qkv, acts_.normed})
      ops::random_fill(ctx_, {.x = t, .std = 1, .seed = 12});
    times_ = !only_attention;
    const std::vector<ops::TokenLayer> token = T == 1 ? token_layers() : std::vector<ops::TokenLayer>();
    step_begin(attended);
    rope_kv_write(T);
    attention(attended);
    if (token.empty())
      rest_of_layer(T);
    else
      token_layer(token);
    if (attended.decodes()) step_end(T);
    measure();
    if (token.empty() || only_attention) return;
    // The same op by op, for parts of it.
    rope_kv_write(T);
    attention(attended);
    for (Op& op : ops_) op.reported = false;
    rest_of_layer(T);
    measure();
  }

  void rest_of_layer(int64_t T) {
    const model::ServingActivations& a = acts_;
    quantize_rows(model::flat(a.attn_out), a.attn_q8, a.attn_scale);
    matmul(products_[kO], rows_of(a.delta, model::flat(a.attn_out), a.attn_q8, a.attn_scale));
    residual_norm(T, 1);
    if (c_.is_moe()) {
      routed(T);
    } else {
      matmul(products_[kGateUp], rows_of(a.shared_h, a.normed, a.q8, a.q8_scale));
      quantize_rows(a.shared_h, a.shared_h_q8, a.shared_h_scale);
      matmul(products_[kDown], rows_of(a.delta, a.shared_h, a.shared_h_q8, a.shared_h_scale));
      residual_norm(T, 1);
    }
    matmul(products_[kQkv], rows_of(model::flat(a.qkv), a.normed, a.q8, a.q8_scale));
  }

  // ---- products

  /// Each call has the next copy of the weights and, with groups, the next routing.
  static std::vector<ops::QuantMatmul> calls_of(const Product& p, const Operands& o,
                                                std::span<const Routing> routings) {
    const auto& [w, scale] = p.weights;
    std::vector<ops::QuantMatmul> calls;
    for (size_t i = 0; i < std::max(w.size(), routings.size()); ++i) {
      const Routing r = routings.empty() ? Routing() : routings[i % routings.size()];
      calls.push_back({.c = o.c,
                       .a = o.a,
                       .a_scale = o.a_scale,
                       .w = w[i % w.size()],
                       .w_scale = scale[i % w.size()],
                       .offsets = r.offsets,
                       .row_ids = p.shape.gathers ? r.row_token : Tensor(),
                       .row_weight = p.shape.weighs ? r.row_weight : Tensor(),
                       .silu_mul = p.shape.silu_mul});
    }
    return calls;
  }
  static StepOp::Call in_turn(std::vector<ops::QuantMatmul> calls) {
    return [calls = std::move(calls)](ExecContext& ctx, size_t i) {
      ops::quant_matmul(ctx, calls[i % calls.size()]);
    };
  }

  /// Of `experts` experts' weights.
  static Op product(const Product& p, const char* op, ordered_json shape, const Operands& o, double experts,
                    std::span<const Routing> routings) {
    const ProductShape& s = p.shape;
    shape.update({{"n", s.n}, {"k", s.k}});
    const auto n = static_cast<double>(s.n), k = static_cast<double>(s.k);
    return {.what = s.name.c_str(),
            .op = op,
            .shape = std::move(shape),
            .dtype = name_of(s.dtype),
            .bytes = experts * n * k * static_cast<double>(size_of(s.dtype)) +
                     static_cast<double>(o.a.bytes() + o.c.bytes()),
            .flops = 2 * static_cast<double>(o.c.dim(0)) * n * k,
            .step = {in_turn(calls_of(p, o, routings))}};
  }

  /// [T, k] x [n, k]^T.
  static Op dense(const Product& p, const Operands& o) {
    return product(p, "matmul", {{"m", o.c.dim(0)}}, o, 1, {});
  }
  void matmul(const Product& p, const Operands& o) { add(dense(p, o)); }

  /// The shared experts' product, which begins under the end of the routed experts'.
  void matmul_beside(const Product& p, const Operands& o, ordered_json routing) {
    Op op = dense(p, o);
    routing.update({{"n", p.shape.n}, {"k", p.shape.k}});
    op.beside_shape = std::move(routing);
    std::vector<ops::QuantMatmul> calls = calls_of(p, o, {});
    for (ops::QuantMatmul& call : calls) call.beside_previous = true;
    op.step.beside = in_turn(std::move(calls));
    add(std::move(op));
  }

  /// An MoE block and the norm behind it over T tokens with random routings: each call meets the experts that
  /// its own draw hits.
  void routed(int64_t T) {
    const int64_t E = c_.num_experts, K = c_.num_experts_per_tok, R = T * K;
    const model::ServingActivations& a = acts_;
    std::vector<Routing> routings(kRoutings + 1);  // the last is what the timed router writes
    place([&](Arena& arena) {
      for (Routing& r : routings)
        r = {.topk_ids = arena.alloc(DType::kI32, {T, K}),
             .topk_weights = arena.alloc(DType::kF32, {T, K}),
             .offsets = arena.alloc(DType::kI32, {E + shared_ + 1}),
             .row_token = arena.alloc(DType::kI32, {T * slots_}),
             .row_weight = arena.alloc(DType::kF32, {T * slots_}),
             .slot_row = arena.alloc(DType::kI32, {T, slots_})};
    });
    const auto route = [this, routings, x = a.normed](ExecContext& ctx, size_t i) {
      const Routing& r = routings[i];
      ops::moe_route(ctx, {.topk_ids = r.topk_ids,
                           .topk_weights = r.topk_weights,
                           .offsets = r.offsets,
                           .row_token = r.row_token,
                           .row_weight = r.row_weight,
                           .slot_row = r.slot_row,
                           .x = x,
                           .gate = gate_,
                           .num_groups = static_cast<int>(c_.num_expert_groups),
                           .renormalize = c_.norm_topk_prob});
    };
    double hit = 0;
    Workspace workspace(planned_bytes(backend_, route), &backend_);
    ExecContext ctx = ctx_;
    ctx.workspace = &workspace;
    for (size_t i = 0; i < routings.size(); ++i) {
      ops::random_fill(ctx, {.x = a.normed, .std = 1, .seed = 100 + i});
      route(ctx, i);
      if (i == kRoutings) break;
      Routing& routed = routings[i];
      routed.offsets = routed.offsets.slice(0, 0, E + 1);
      routed.row_token = routed.row_token.slice(0, 0, R);
      routed.row_weight = routed.row_weight.slice(0, 0, R);
      std::vector<int32_t> offsets(static_cast<size_t>(E + 1));
      download(ctx, offsets.data(), routed.offsets);
      for (size_t e = 1; e < offsets.size(); ++e) hit += offsets[e] > offsets[e - 1] ? 1 : 0;
    }
    hit /= kRoutings;
    const ordered_json shape = {{"tokens", T}, {"experts", E}, {"topk", K}, {"groups", c_.num_expert_groups}};
    ordered_json router = shape;
    router.update({{"shared", shared_}, {"width", D_}});
    add({.what = "router",
         .op = "moe_route",
         .shape = router,
         .dtype = "bf16",
         .bytes = static_cast<double>(T * D_ * 2 + E * D_ * 4 + T * slots_ * 12),
         .flops = 2.0 * static_cast<double>(T * E * D_),
         .step = {[route](ExecContext& ctx, size_t) { route(ctx, kRoutings); }}});
    const std::span<const Routing> drawn(routings.data(), kRoutings);
    add(product(products_[kGateUp], "routed_matmul", shape, rows_of(a.h, a.normed, a.q8, a.q8_scale), hit,
                drawn));
    if (shared_ > 0) {
      matmul_beside(products_[kSharedGateUp], rows_of(a.shared_h, a.normed, a.q8, a.q8_scale), shape);
      quantize_rows(a.shared_h, a.shared_h_q8, a.shared_h_scale);
    }
    quantize_rows(a.h, a.h_q8, a.h_scale);
    add(product(products_[kDown], "routed_matmul", shape,
                rows_of(a.down.slice(0, 0, R), a.h, a.h_q8, a.h_scale), hit, drawn));
    if (shared_ > 0)
      matmul_beside(products_[kSharedDown],
                    rows_of(a.down.slice(0, R, R + T), a.shared_h, a.shared_h_q8, a.shared_h_scale), shape);
    residual_norm(T, slots_, routings[0].slot_row);
  }

  /// Every expert with the same number of rows.
  void same_rows(int64_t rows) {
    const int64_t experts = products_[kGateUp].shape.groups, R = rows * experts, K = c_.num_experts_per_tok,
                  T = (R + K - 1) / K;
    const DType dtype = options_.model.dtype;
    const bool scaled = dtype != DType::kBF16;
    memory_.clear();
    times_ = true;
    Routing r;
    Operands gate_up, down;
    place([&](Arena& arena) {
      r.offsets = arena.alloc(DType::kI32, {experts + 1});
      r.row_token = arena.alloc(DType::kI32, {R});
      r.row_weight = arena.alloc(DType::kF32, {R});
      const auto scale = [&](int64_t n) { return scaled ? arena.alloc(DType::kF32, {n}) : Tensor(); };
      gate_up = {arena.alloc(DType::kBF16, {R, F_}), arena.alloc(dtype, {T, D_}), scale(T)};
      down = {arena.alloc(DType::kBF16, {R, D_}), arena.alloc(dtype, {R, F_}), scale(R)};
    });
    std::vector<int32_t> offsets(static_cast<size_t>(experts) + 1), tokens(static_cast<size_t>(R));
    for (size_t e = 0; e < offsets.size(); ++e)
      offsets[e] = static_cast<int32_t>(e) * static_cast<int32_t>(rows);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % static_cast<size_t>(T));
    upload(ctx_, r.offsets, offsets.data());
    upload(ctx_, r.row_token, tokens.data());
    synchronize(ctx_, "ops benchmark");
    for (const Tensor& t : {r.row_weight, gate_up.a, gate_up.a_scale, down.a, down.a_scale})
      if (t) ops::random_fill(ctx_, {.x = t, .std = 1, .seed = 8});
    const ordered_json shape = {{"m", rows}, {"experts", experts}};
    const auto all = static_cast<double>(experts);
    add(product(products_[kGateUp], "grouped_matmul", shape, gate_up, all, {&r, 1}));
    add(product(products_[kDown], "grouped_matmul", shape, down, all, {&r, 1}));
    measure();
  }

  /// All that an MoE layer does to one token between two attentions as one op; none where there is no such
  /// op.
  std::vector<ops::TokenLayer> token_layers() const {
    if (!c_.is_moe() || options_.model.dtype != DType::kI8) return {};
    const ops::TokenLayer call{.x = acts_.x,
                               .qkv = model::flat(acts_.qkv),
                               .attn_out = model::flat(acts_.attn_out),
                               .norm = norm_,
                               .gate = gate_,
                               .next_norm = norm_,
                               .experts_per_token = static_cast<int>(c_.num_experts_per_tok),
                               .num_groups = static_cast<int>(c_.num_expert_groups),
                               .renormalize = c_.norm_topk_prob};
    std::vector<ops::TokenLayer> calls;
    for (size_t i = 0; i < kRoutings; ++i) {
      ops::TokenLayer& one = calls.emplace_back(call);
      const auto take = [&](ProductIndex product, Tensor& w, Tensor& scale) {
        const ProductWeights& p = products_[product].weights;
        w = p.w[i % p.w.size()];
        scale = p.scale[i % p.w.size()];
      };
      take(kO, one.o_proj, one.o_scale);
      take(kGateUp, one.gate_up, one.gate_up_scale);
      take(kDown, one.down, one.down_scale);
      if (shared_ > 0) {
        take(kSharedGateUp, one.shared_gate_up, one.shared_gate_up_scale);
        take(kSharedDown, one.shared_down, one.shared_down_scale);
      }
      take(kQkv, one.next_qkv, one.next_scale);
    }
    return ops::has_token_layer(ctx_, calls[0]) ? calls : std::vector<ops::TokenLayer>();
  }
  void token_layer(const std::vector<ops::TokenLayer>& calls) {
    const int64_t N = products_[kQkv].shape.n;
    const int64_t weights = N * D_ + D_ * c_.q_dim() + model::slots_per_token(c_) * 3 * F_ * D_;
    add({.what = "token_layer",
         .op = "token_layer",
         .shape = {{"tokens", 1},
                   {"width", D_},
                   {"q_width", c_.q_dim()},
                   {"qkv", N},
                   {"expert_width", F_},
                   {"experts", c_.num_experts},
                   {"topk", c_.num_experts_per_tok},
                   {"groups", c_.num_expert_groups},
                   {"shared", c_.num_shared_experts()}},
         .dtype = name_of(options_.model.dtype),
         .bytes = static_cast<double>(weights + c_.num_experts * D_ * 4),
         .flops = 2 * static_cast<double>(weights),
         .step = {[calls](ExecContext& ctx, size_t i) { ops::token_layer(ctx, calls[i % calls.size()]); }}});
  }

  // ---- between the products

  /// Adds one row to each token, or in an MoE the slots' rows too. The latter goes on to the residual stream
  /// and the next layer's first product alone, the former to the router too, which reads bf16, and in an MoE
  /// to the stream later.
  void residual_norm(int64_t T, int64_t added, const Tensor& slot_row = {}) {
    const DType dtype = options_.model.dtype;
    const bool quantised = dtype != DType::kBF16, bf16 = !quantised || (c_.is_moe() && !slot_row);
    const ops::ResidualNorm call{.x = acts_.x,
                                 .delta = acts_.delta,
                                 .rows = slot_row ? acts_.down : Tensor(),
                                 .slot_row = slot_row,
                                 .weight = norm_,
                                 .normed = bf16 ? acts_.normed : Tensor(),
                                 .q = acts_.q8,
                                 .q_scale = acts_.q8_scale,
                                 .keep_x = c_.is_moe() && !slot_row};
    add({.what = slot_row ? "norm_combine" : "norm",
         .op = "residual_norm",
         .shape = {{"rows", T}, {"width", D_}, {"slots", added}},
         .dtype = name_of(dtype),
         .bytes = static_cast<double>(
             T * D_ *
             ((call.keep_x ? 4 : 8) + 2 + (slot_row ? 2 * added : 0) + (bf16 ? 2 : 0) + (quantised ? 1 : 0))),
         .flops = 0,
         .step = {[call](ExecContext& ctx, size_t) { ops::residual_norm(ctx, call); }}});
  }

  /// Nothing for products of bf16.
  void quantize_rows(const Tensor& x, const Tensor& q, const Tensor& scale) {
    if (!q) return;
    add({.what = "quantize",
         .op = "quantize_rows",
         .shape = {{"rows", x.dim(0)}, {"width", x.dim(1)}},
         .dtype = name_of(q.dtype),
         .bytes = static_cast<double>(x.numel() * 3),
         .flops = 0,
         .step = {
             [=](ExecContext& ctx, size_t) { ops::quantize_rows(ctx, {.q = q, .scale = scale, .x = x}); }}});
  }

  void rope_kv_write(int64_t T) {
    const int64_t H = c_.num_attention_heads, KV = c_.num_key_value_heads, Dh = c_.head_dim;
    const DType kv = options_.model.kv_dtype;
    ops::RopeKvWrite call{.q = acts_.q, .qkv = acts_.qkv, .cos_sin = acts_.cos_sin};
    place([&](Arena& arena) {
      pages_ = pages(arena, (T + kPageSize - 1) / kPageSize);
      call.slots = arena.alloc(DType::kI32, {T});
    });
    call.k_pages = pages_.k, call.v_pages = pages_.v;
    call.k_scales = pages_.k_scales, call.v_scales = pages_.v_scales;
    upload_iota(call.slots);
    add({.what = "rope_kv_write",
         .op = "rope_kv_write",
         .shape = {{"rows", T}, {"heads", H}, {"kv_heads", KV}, {"head_dim", Dh}},
         .dtype = name_of(kv),
         .bytes = static_cast<double>(T * Dh * (4 * H + 2 * KV * (2 + size_of(kv)))),
         .flops = 0,
         .step = {[call](ExecContext& ctx, size_t) { ops::rope_kv_write(ctx, call); }}});
  }

  // ---- attention

  model::KvPages pages(Arena& arena, int64_t count) const {
    const DType kv = options_.model.kv_dtype;
    const int64_t KV = c_.num_key_value_heads;
    const auto elements = [&] { return arena.alloc(kv, {count, KV, kPageSize, c_.head_dim}); };
    const auto scales = [&] {
      return size_of(kv) == 1 ? arena.alloc(DType::kF32, {count, KV, kPageSize}) : Tensor();
    };
    return {.k = elements(), .v = elements(), .k_scales = scales(), .v_scales = scales()};
  }

  /// Decoding calls read caches that the L2 does not hold; a prompt's keys and values have just been written.
  void attention(const Attended& at) {
    const int64_t per_sequence = (at.context + kPageSize - 1) / kPageSize, P = per_sequence * at.sequences,
                  batch = at.sequences, T = batch * at.queries;
    const int64_t H = c_.num_attention_heads, KV = c_.num_key_value_heads, Dh = c_.head_dim;
    const DType kv = options_.model.kv_dtype;
    const bool decodes = at.decodes();
    const int64_t cache_bytes = 2 * P * KV * kPageSize * Dh * size_of(kv);
    const int64_t copies =
        decodes ? std::clamp<int64_t>(3 * backend_.info().l2_bytes / cache_bytes + 1, 1, kMaxCaches) : 1;
    ops::PagedAttention call{
        .out = acts_.attn_out, .q = acts_.q, .scale = 0.1F, .decode_rows = decodes ? 1 : 0};
    model::KvPages cache = pages_;
    place([&](Arena& arena) {
      if (decodes) cache = pages(arena, P * copies);
      call.block_table = arena.alloc(DType::kI32, {batch * copies, per_sequence});
      call.cu_q = arena.alloc(DType::kI32, {batch + 1});
      call.kv_lens = arena.alloc(DType::kI32, {batch});
    });
    if (decodes)
      for (const Tensor& t : {cache.k, cache.v, cache.k_scales, cache.v_scales})
        if (t) ops::random_fill(ctx_, {.x = t, .std = 1e-2F, .seed = 5});
    call.k_pages = cache.k, call.v_pages = cache.v;
    call.k_scales = cache.k_scales, call.v_scales = cache.v_scales;
    upload_iota(call.block_table);
    upload_iota(call.cu_q, at.queries);
    upload_iota(call.kv_lens, 0, at.context);
    const double positions =
        decodes ? static_cast<double>(at.context) : static_cast<double>(at.context + 1) / 2;
    ordered_json shape = {{"heads", H}, {"kv_heads", KV}, {"head_dim", Dh}};
    if (decodes)
      shape.update({{"batch", batch}, {"context", at.context}});
    else
      shape.update({{"sequences", batch}, {"length", at.context}});
    add({.what = decodes ? "attention" : "prefill",
         .op = decodes ? "attention" : "prefill_attention",
         .shape = shape,
         .dtype = name_of(kv),
         .bytes = 2.0 * static_cast<double>(batch * at.context * KV * Dh * size_of(kv)),
         .flops = 4 * static_cast<double>(T * H * Dh) * positions,
         .step = {.call =
                      [call, batch, copies](ExecContext& ctx, size_t i) {
                        ops::PagedAttention one = call;
                        const int64_t copy = static_cast<int64_t>(i) % copies;
                        one.block_table = call.block_table.slice(0, copy * batch, (copy + 1) * batch);
                        ops::paged_attention(ctx, one);
                      },
                  .calls = std::max<size_t>(kRoutings, static_cast<size_t>(copies))}});
    ops_.back().step.timed = true;
  }

  // ---- once a step

  /// What a step begins with, as one: of decoding rows positions and slots; the rotations' table, embeddings.
  void step_begin(const Attended& at) {
    const int64_t T = at.sequences * at.queries;
    const bool decodes = at.decodes();
    ops::DecodeInputs inputs{.page_size = kPageSize, .num_pages = static_cast<int>(T + 1)};
    ops::RopeTable table{.cos_sin = acts_.cos_sin, .theta = c_.rope_theta};
    ops::EmbeddingFwd embedding{.y = acts_.x, .weight = products_[kHead].weights.w[0]};
    place([&](Arena& arena) {
      for (Tensor* t : {&inputs.kv_lens, &inputs.positions, &inputs.slots, &inputs.tokens})
        *t = arena.alloc(DType::kI32, {T});
      inputs.steps = arena.alloc(DType::kI64, {T});
      inputs.block_table = arena.alloc(DType::kI32, {T, 2});
    });
    table.positions = inputs.positions;
    embedding.ids = inputs.tokens;
    upload_iota(inputs.kv_lens, 0, -1);  // idle: lengths that do not run away over the repetitions
    upload_iota(inputs.tokens, 1, 0, c_.vocab_size);
    for (const Tensor& t : {inputs.positions, inputs.slots, inputs.steps, inputs.block_table})
      backend_.fill_bytes(t.data, 0, t.bytes());
    add({.what = decodes ? "step_inputs" : "prompt_inputs",
         .op = decodes ? "step_inputs" : "prompt_inputs",
         .shape = {{"rows", T}, {"width", D_}, {"head_dim", c_.head_dim}},
         .dtype = "bf16",
         .bytes = static_cast<double>(T * D_ * 6),
         .flops = 0,
         .step = {.call =
                      [=](ExecContext& ctx, size_t) {
                        if (decodes) ops::decode_inputs(ctx, inputs);
                        ops::rope_table(ctx, table);
                        ops::embedding_fwd(ctx, embedding);
                      },
                  .part = StepPart::kBegin}});
  }

  /// Logits and greedy sampling.
  void step_end(int64_t B) {
    const auto rows = [&](Arena& arena, DType dtype) { return arena.alloc(dtype, {B}); };
    ops::Sampling call;
    place([&](Arena& arena) {
      call = {.tokens = rows(arena, DType::kI32),
              .logits = arena.alloc(DType::kF32, {B, c_.vocab_size}),
              .temperature = rows(arena, DType::kF32),
              .top_k = rows(arena, DType::kI32),
              .top_p = rows(arena, DType::kF32),
              .min_p = rows(arena, DType::kF32),
              .repetition_penalty = rows(arena, DType::kF32),
              .presence_penalty = rows(arena, DType::kF32),
              .frequency_penalty = rows(arena, DType::kF32),
              .seeds = rows(arena, DType::kI64),
              .steps = rows(arena, DType::kI64)};
    });
    for (const Tensor& t : {call.temperature, call.top_k, call.top_p, call.min_p, call.repetition_penalty,
                            call.presence_penalty, call.frequency_penalty, call.seeds, call.steps})
      backend_.fill_bytes(t.data, 0, t.bytes());
    Op head = dense(products_[kHead], {call.logits, acts_.normed, {}});
    head.step.part = StepPart::kEnd;
    add(std::move(head));
    add({.what = "greedy",
         .op = "sampling",
         .shape = {{"rows", B}, {"vocab", c_.vocab_size}},
         .dtype = "f32",
         .bytes = static_cast<double>(B * c_.vocab_size * 4),
         .flops = 0,
         .step = {.call = [call](ExecContext& ctx, size_t) { ops::sampling(ctx, call); },
                  .part = StepPart::kEnd}});
  }

  // ---- memory, time, output

  /// Runs `allocate` over a counting arena, then over memory of that size, kept until the next pass.
  template <class Allocate>
  void place(const Allocate& allocate) {
    Arena plan;
    allocate(plan);
    memory_.emplace_back(plan.used_bytes(), "ops benchmark", &backend_);
    allocate(memory_.back());
  }

  void add(Op op) {
    op.step.timed = times_;
    ops_.push_back(std::move(op));
  }

  /// first, first + step, ..., modulo `modulus`.
  void upload_iota(const Tensor& to, int64_t step = 1, int64_t first = 0, int64_t modulus = INT32_MAX) {
    std::vector<int32_t> host(static_cast<size_t>(to.numel()));
    for (size_t i = 0; i < host.size(); ++i)
      host[i] = static_cast<int32_t>((first + static_cast<int64_t>(i) * step) % modulus);
    upload(ctx_, to, host.data());
    synchronize(ctx_, "ops benchmark");
  }

  /// Times the operators added so far, reports them and forgets them.
  void measure() {
    std::vector<StepOp> steps;
    for (const Op& op : ops_) steps.push_back(op.step);
    const std::vector<StepOpSeconds> times = timer_.time(steps);
    for (size_t k = 0; k < ops_.size(); ++k) {
      const Op& op = ops_[k];
      if (!op.step.timed || !op.reported) continue;
      report(op, op.op, op.shape, times[k].chain, times[k].span);
      if (op.step.beside) report(op, "matmul_beside_routed", op.beside_shape, times[k].beside, times[k].span);
    }
    ops_.clear();
  }

  void begin() {
    out_ = {{"device", backend_.info().name},
            {"model", options_.model.model},
            {"copy_bandwidth", copy_},
            {"ops", ordered_json::array()}};
    if (!options_.json)
      std::cout << backend_.info().name << ", copy bandwidth " << copy_ * 1e-9 << " GB/s\n"
                << std::left << std::setw(14) << "op" << std::setw(106) << "shape" << std::right
                << std::setw(10) << "us" << std::setw(9) << "GB/s" << std::setw(8) << "% copy" << std::setw(9)
                << "TFLOP/s\n";
  }

  void report(const Op& op, const char* name, ordered_json shape, double seconds, double span) {
    shape["dtype"] = op.dtype;
    out_["ops"].push_back({{"op", name},
                           {"what", op.what},
                           {"shape", shape},
                           {"ms", seconds * 1e3},
                           {"span_ms", span * 1e3},
                           {"bytes_per_second", op.bytes / seconds},
                           {"flops_per_second", op.flops / seconds}});
    if (options_.json) return;
    std::cout << std::left << std::setw(14) << op.what << std::setw(106) << shape.dump() << std::right
              << std::fixed << std::setprecision(1) << std::setw(10) << seconds * 1e6 << std::setw(9)
              << op.bytes / seconds * 1e-9 << std::setw(8) << 100 * op.bytes / seconds / copy_ << std::setw(8)
              << op.flops / seconds * 1e-12 << '\n';
  }

  const DeviceBenchOptions& options_;
  const spec::ModelConfig& c_;
  Backend& backend_;
  ExecContext ctx_;
  StepTimer timer_;
  int64_t D_, F_;
  int64_t shared_;  ///< 1 with shared experts, which are one MLP
  int64_t slots_;   ///< rows that a token's result is made of
  double copy_ = 0;
  std::vector<Arena> memory_;  // of the pass, but for weights
  model::ServingActivations acts_;
  model::KvPages pages_;  // that the pass writes
  std::vector<Op> ops_;
  bool times_ = true;  // the operators that are added
  Arena weights_;
  Tensor gate_, norm_;
  std::vector<Product> products_;
  ordered_json out_;
};

}  // namespace

void bench_device_ops(const DeviceBenchOptions& o) {
  const spec::ModelConfig c = spec::load_model_config(find_model(o.model.model));
  OpsBench(o, c).all();
}

}  // namespace moge::cli

// moge bench ops: the operators of one layer alone.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/bench_device.h"
#include "cli/graph_timer.h"
#include "cli/model_path.h"
#include "cli/product_bench.h"
#include "core/transfer.h"
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

/// Calls of a recorded graph, over which launches do not show; and routings, which differ from call to call.
constexpr size_t kCalls = 8;
constexpr int64_t kPageSize = 64;
constexpr int64_t kMaxCaches = 64;    ///< that decoding attention goes round
constexpr double kMostExcess = 1e-6;  ///< seconds that a kernel may take more among others than in a chain

/// A product's weights, so many copies that the L2 never holds the next one.
struct Product {
  ProductShape shape;
  std::vector<Tensor> w, w_scale;
};
/// Where layer_products() has them.
enum ProductIndex : size_t { kQkv, kO, kGateUp, kDown, kHead, kSharedGateUp, kSharedDown };

/// What moe_route leaves for the products of one layer.
struct Routing {
  Tensor topk_ids, topk_weights, offsets, row_token, row_weight, slot_row;
};

class OpsBench {
 public:
  OpsBench(const DeviceBenchOptions& o, const spec::ModelConfig& c)
      : options_(o),
        c_(c),
        backend_(cuda_backend()),
        ctx_{.device = {DeviceKind::kCuda, 0}, .backend = &backend_},
        D_(c.hidden_size),
        F_(model::expert_width(c)),
        shared_(c.num_shared_experts() > 0 ? 1 : 0),
        slots_(c.num_experts_per_tok + shared_) {
    for (ProductShape& shape : layer_products(c, o.model.dtype))
      products_.push_back({std::move(shape), {}, {}});
    copy_ = backend_.copy_bandwidth();
    const auto weights = [&](Arena& arena) {
      gate_ = arena.alloc(DType::kF32, {std::max<int64_t>(c.num_experts, 1), D_});
      for (Product& p : products_) allocate(arena, p);
    };
    Arena plan;
    weights(plan);
    weights_ = Arena(plan.used_bytes(), "ops benchmark: weights", &backend_);
    weights(weights_);
    ops::random_fill(ctx_, {.x = gate_, .std = 0.02F, .seed = 9, .of_bf16 = true});
    for (const Product& p : products_)
      for (size_t i = 0; i < p.w.size(); ++i) {
        ops::random_fill(ctx_, {.x = p.w[i], .std = 1, .seed = 2 * i});
        if (p.w_scale[i]) ops::random_fill(ctx_, {.x = p.w_scale[i], .std = 1e-3F, .seed = 2 * i + 1});
      }
    begin();
  }

  void all() {
    for (const int64_t T : {1,   2,   4,   8,   16,  24,  32,  48,  64,   96,   128,  160,  192,  224,
                            256, 288, 320, 352, 384, 448, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192}) {
      layer(T);
      measure();
    }
    if (c_.is_moe())
      for (const int64_t rows : {1, 4, 16, 32, 64, 128, 256, 512, 1024}) {
        same_rows(rows);
        measure();
      }
    // One position more than a round number: kernels that cut sequences have a last piece then.
    std::vector<int64_t> contexts = {128, 512, 1024, 2048, 2049, 4096, 8192};
    if (options_.context > 0) contexts = {options_.context};
    for (const int64_t context : contexts)
      for (const int64_t batch : {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 512}) {
        attention(batch, context);
        measure();
      }
    if (options_.json) std::cout << out_.dump(1) << '\n';
  }

 private:
  /// An operator to be measured: its i-th call, which may wrap round.
  struct Op {
    const char* what;
    const char* op;
    ordered_json shape;
    const char* dtype;
    double bytes, flops;
    std::function<void(ExecContext&, size_t)> call;
    size_t calls = kCalls;
  };

  /// The operators of one layer and of a step's ends over T tokens.
  void layer(int64_t T) {
    matmul(products_[kQkv], T);
    rope_kv_write(T);
    for (const int64_t length : {128, 512, 2048, 8192})
      if (T % length == 0 && T / length <= 8) prefill_attention(T / length, length);
    quantize_rows(T, c_.q_dim());
    matmul(products_[kO], T);
    if (c_.is_moe()) {
      routed(T);
    } else {
      residual_norm(T, 1);
      matmul(products_[kGateUp], T);
      quantize_rows(T, F_);
      matmul(products_[kDown], T);
    }
    if (T == 1) token_layer();
    if (T > 512) return;
    matmul(products_[kHead], T);
    sampling(T);
    step_inputs(T);
  }

  // ---- products

  void allocate(Arena& arena, Product& p) const {
    p.w.clear(), p.w_scale.clear();
    const auto& [name, groups, n, k, dtype, silu_mul, gathers, weighs] = p.shape;
    const bool grouped = groups > 1;
    const int64_t copies =
        std::max<int64_t>(2, 3 * backend_.info().l2_bytes / (groups * n * k * size_of(dtype)) + 1);
    for (int64_t i = 0; i < copies; ++i) {
      p.w.push_back(grouped ? arena.alloc(dtype, {groups, n, k}) : arena.alloc(dtype, {n, k}));
      p.w_scale.push_back(dtype == DType::kBF16 ? Tensor()
                          : grouped             ? arena.alloc(DType::kF32, {groups, n})
                                                : arena.alloc(DType::kF32, {n}));
    }
  }

  /// c of `rows` rows from `tokens` rows of a, of `experts` experts' weights: each call with the next copy of
  /// the weights and, with groups, the next routing.
  void product(const Product& p, const char* op, ordered_json shape, int64_t tokens, int64_t rows,
               double experts, const std::vector<Routing>& routings) {
    const ProductShape& s = p.shape;
    const bool gathers = !routings.empty() && s.gathers;
    const int64_t a_rows = gathers ? tokens : rows;
    std::vector<ops::QuantMatmul> calls;
    place([&](Arena& arena) {
      calls.clear();
      const Tensor c = arena.alloc(DType::kBF16, {rows, s.silu_mul ? s.n / 2 : s.n});
      const Tensor a = arena.alloc(s.dtype, {a_rows, s.k});
      const Tensor a_scale = s.dtype == DType::kBF16 ? Tensor() : arena.alloc(DType::kF32, {a_rows});
      for (size_t i = 0; i < kCalls; ++i) {
        const Routing r = routings.empty() ? Routing() : routings[i % routings.size()];
        calls.push_back({.c = c,
                         .a = a,
                         .a_scale = a_scale,
                         .w = p.w[i % p.w.size()],
                         .w_scale = p.w_scale[i % p.w.size()],
                         .offsets = r.offsets,
                         .row_ids = gathers ? r.row_token : Tensor(),
                         .row_weight = s.weighs ? r.row_weight : Tensor(),
                         .silu_mul = s.silu_mul});
      }
    });
    ops::random_fill(ctx_, {.x = calls[0].a, .std = 1, .seed = 3});
    if (calls[0].a_scale) ops::random_fill(ctx_, {.x = calls[0].a_scale, .std = 1e-3F, .seed = 4});
    shape.update({{"n", s.n}, {"k", s.k}});
    const auto n = static_cast<double>(s.n), k = static_cast<double>(s.k), R = static_cast<double>(rows);
    add({s.name.c_str(), op, shape, name_of(s.dtype),
         (experts * n * k + static_cast<double>(a_rows) * k) * static_cast<double>(size_of(s.dtype)) +
             R * n * (s.silu_mul ? 1 : 2),
         2 * R * n * k, [calls](ExecContext& ctx, size_t i) { ops::quant_matmul(ctx, calls[i % kCalls]); }});
  }

  /// [T, k] x [n, k]^T.
  void matmul(const Product& p, int64_t T) { product(p, "matmul", {{"m", T}}, T, T, 1, {}); }

  /// The products and the other operators of an MoE block over T tokens with random routings: each call meets
  /// the experts that its own draw hits.
  void routed(int64_t T) {
    const int64_t E = c_.num_experts, K = c_.num_experts_per_tok, R = T * K;
    std::vector<Routing> routings(kCalls);
    Tensor x;
    place([&](Arena& arena) {
      x = arena.alloc(DType::kBF16, {T, D_});
      for (Routing& r : routings)
        r = {.topk_ids = arena.alloc(DType::kI32, {T, K}),
             .topk_weights = arena.alloc(DType::kF32, {T, K}),
             .offsets = arena.alloc(DType::kI32, {E + shared_ + 1}),
             .row_token = arena.alloc(DType::kI32, {T * slots_}),
             .row_weight = arena.alloc(DType::kF32, {T * slots_}),
             .slot_row = arena.alloc(DType::kI32, {T, slots_})};
    });
    const auto route = [this, routings, x](ExecContext& ctx, size_t i) {
      const Routing& r = routings[i % kCalls];
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
    for (size_t i = 0; i < kCalls; ++i) {
      ops::random_fill(ctx, {.x = x, .std = 1, .seed = 100 + i});
      route(ctx, i);
      Routing& routed = routings[i];
      routed.offsets = routed.offsets.slice(0, 0, E + 1);
      routed.row_token = routed.row_token.slice(0, 0, R);
      routed.row_weight = routed.row_weight.slice(0, 0, R);
      std::vector<int32_t> offsets(static_cast<size_t>(E + 1));
      download(ctx, offsets.data(), routed.offsets);
      for (size_t e = 1; e < offsets.size(); ++e) hit += offsets[e] > offsets[e - 1] ? 1 : 0;
    }
    hit /= kCalls;
    const ordered_json shape = {{"tokens", T}, {"experts", E}, {"topk", K}, {"groups", c_.num_expert_groups}};
    residual_norm(T, 1);
    ordered_json router = shape;
    router.update({{"shared", shared_}, {"width", D_}});
    // Each call has the last draw's tokens: their number is what counts here.
    add({"router", "moe_route", router, "bf16",
         static_cast<double>(T * D_ * 2 + E * D_ * 4 + T * slots_ * 12),
         2.0 * static_cast<double>(T * E * D_),
         [route, spare = kCalls - 1](ExecContext& ctx, size_t) { route(ctx, spare); }});
    product(products_[kGateUp], "routed_matmul", shape, T, R, hit, routings);
    quantize_rows(R, F_);
    product(products_[kDown], "routed_matmul", shape, T, R, hit, routings);
    if (shared_ > 0) {
      matmul(products_[kSharedGateUp], T);
      quantize_rows(T, model::always_on_width(c_));
      matmul(products_[kSharedDown], T);
    }
    residual_norm(T, slots_, routings[0].slot_row);
  }

  /// Every expert with the same number of rows.
  void same_rows(int64_t rows) {
    const int64_t experts = products_[kGateUp].shape.groups, R = rows * experts, K = c_.num_experts_per_tok,
                  T = (R + K - 1) / K;
    Routing r;
    place([&](Arena& arena) {
      r.offsets = arena.alloc(DType::kI32, {experts + 1});
      r.row_token = arena.alloc(DType::kI32, {R});
      r.row_weight = arena.alloc(DType::kF32, {R});
    });
    std::vector<int32_t> offsets(static_cast<size_t>(experts) + 1), tokens(static_cast<size_t>(R));
    for (size_t e = 0; e < offsets.size(); ++e)
      offsets[e] = static_cast<int32_t>(e) * static_cast<int32_t>(rows);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % static_cast<size_t>(T));
    upload(ctx_, r.offsets, offsets.data());
    upload(ctx_, r.row_token, tokens.data());
    synchronize(ctx_, "ops benchmark");
    ops::random_fill(ctx_, {.x = r.row_weight, .std = 1, .seed = 8});
    const ordered_json shape = {{"m", rows}, {"experts", experts}};
    for (const ProductIndex p : {kGateUp, kDown})
      product(products_[p], "grouped_matmul", shape, T, R, static_cast<double>(experts), {r});
  }

  /// All that an MoE layer does to one token between two attentions, where there is an op for that.
  void token_layer() {
    const DType dtype = options_.model.dtype;
    if (!c_.is_moe() || dtype != DType::kI8) return;
    const int64_t N = products_[kQkv].shape.n;
    std::vector<ops::TokenLayer> calls;
    place([&](Arena& arena) {
      calls.clear();
      const ops::TokenLayer call{.x = arena.alloc(DType::kF32, {1, D_}),
                                 .qkv = arena.alloc(DType::kBF16, {1, N}),
                                 .attn_out = arena.alloc(DType::kBF16, {1, c_.q_dim()}),
                                 .norm = arena.alloc(DType::kF32, {D_}),
                                 .gate = gate_,
                                 .next_norm = arena.alloc(DType::kF32, {D_}),
                                 .experts_per_token = static_cast<int>(c_.num_experts_per_tok),
                                 .num_groups = static_cast<int>(c_.num_expert_groups),
                                 .renormalize = c_.norm_topk_prob};
      for (size_t i = 0; i < kCalls; ++i) {
        ops::TokenLayer& one = calls.emplace_back(call);
        const auto take = [&](ProductIndex product, Tensor& w, Tensor& scale) {
          const Product& p = products_[product];
          w = p.w[i % p.w.size()];
          scale = p.w_scale[i % p.w.size()];
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
    });
    const ops::TokenLayer& first = calls[0];
    if (!ops::has_token_layer(ctx_, first)) return;
    for (const Tensor& t : {first.x, first.attn_out, first.norm, first.next_norm})
      ops::random_fill(ctx_, {.x = t, .std = 1, .seed = 11});
    const int64_t weights = N * D_ + D_ * c_.q_dim() + model::slots_per_token(c_) * 3 * F_ * D_;
    add({"token_layer",
         "token_layer",
         {{"tokens", 1},
          {"width", D_},
          {"q_width", c_.q_dim()},
          {"qkv", N},
          {"expert_width", F_},
          {"experts", c_.num_experts},
          {"topk", c_.num_experts_per_tok},
          {"groups", c_.num_expert_groups},
          {"shared", c_.num_shared_experts()}},
         name_of(dtype),
         static_cast<double>(weights + c_.num_experts * D_ * 4),
         2 * static_cast<double>(weights),
         [calls](ExecContext& ctx, size_t i) { ops::token_layer(ctx, calls[i % kCalls]); }});
  }

  // ---- between the products

  /// Adds one row to each token, or in an MoE the slots' rows too. The latter goes on to the residual stream
  /// and the next layer's first product alone, the former to the router too, which reads bf16, and in an MoE
  /// to the stream later.
  void residual_norm(int64_t T, int64_t added, const Tensor& slot_row = {}) {
    const DType dtype = options_.model.dtype;
    const bool quantised = dtype != DType::kBF16, bf16 = !quantised || !slot_row;
    ops::ResidualNorm call{.slot_row = slot_row, .keep_x = c_.is_moe() && !slot_row};
    place([&](Arena& arena) {
      call.x = arena.alloc(DType::kF32, {T, D_});
      call.delta = arena.alloc(DType::kBF16, {T, D_});
      if (slot_row) call.rows = arena.alloc(DType::kBF16, {T * added, D_});
      call.weight = arena.alloc(DType::kF32, {D_});
      if (bf16) call.normed = arena.alloc(DType::kBF16, {T, D_});
      if (!quantised) return;
      call.q = arena.alloc(dtype, {T, D_});
      call.q_scale = arena.alloc(DType::kF32, {T});
    });
    for (const Tensor& t : {call.x, call.rows, call.delta, call.weight})
      if (t) ops::random_fill(ctx_, {.x = t, .std = 1e-2F, .seed = 6});
    add({slot_row ? "norm_combine" : "norm",
         "residual_norm",
         {{"rows", T}, {"width", D_}, {"slots", added}},
         name_of(dtype),
         static_cast<double>(
             T * D_ *
             ((call.keep_x ? 4 : 8) + 2 + (slot_row ? 2 * added : 0) + (bf16 ? 2 : 0) + (quantised ? 1 : 0))),
         0,
         [call](ExecContext& ctx, size_t) { ops::residual_norm(ctx, call); }});
  }

  void quantize_rows(int64_t rows, int64_t width) {
    const DType dtype = options_.model.dtype;
    if (dtype == DType::kBF16) return;
    ops::QuantizeRows call;
    place([&](Arena& arena) {
      call = {.q = arena.alloc(dtype, {rows, width}),
              .scale = arena.alloc(DType::kF32, {rows}),
              .x = arena.alloc(DType::kBF16, {rows, width})};
    });
    ops::random_fill(ctx_, {.x = call.x, .std = 1, .seed = 7});
    add({"quantize",
         "quantize_rows",
         {{"rows", rows}, {"width", width}},
         name_of(dtype),
         static_cast<double>(rows * width * 3),
         0,
         [call](ExecContext& ctx, size_t) { ops::quantize_rows(ctx, call); }});
  }

  void rope_kv_write(int64_t T) {
    const int64_t H = c_.num_attention_heads, KV = c_.num_key_value_heads, Dh = c_.head_dim;
    const DType kv = options_.model.kv_dtype;
    const int64_t pages = (T + kPageSize - 1) / kPageSize;
    ops::RopeKvWrite call;
    place([&](Arena& arena) {
      call.q = arena.alloc(DType::kBF16, {T, H, Dh});
      for (Tensor* t : {&call.k_pages, &call.v_pages}) *t = arena.alloc(kv, {pages, KV, kPageSize, Dh});
      if (size_of(kv) == 1)
        for (Tensor* t : {&call.k_scales, &call.v_scales})
          *t = arena.alloc(DType::kF32, {pages, KV, kPageSize});
      call.qkv = arena.alloc(DType::kBF16, {T, H + 2 * KV, Dh});
      call.cos_sin = arena.alloc(DType::kF32, {T, Dh});
      call.slots = arena.alloc(DType::kI32, {T});
    });
    for (const Tensor& t : {call.qkv, call.cos_sin}) ops::random_fill(ctx_, {.x = t, .std = 1, .seed = 10});
    upload_iota(call.slots);
    add({"rope_kv_write",
         "rope_kv_write",
         {{"rows", T}, {"heads", H}, {"kv_heads", KV}, {"head_dim", Dh}},
         name_of(kv),
         static_cast<double>(T * Dh * (4 * H + 2 * KV * (2 + size_of(kv)))),
         0,
         [call](ExecContext& ctx, size_t) { ops::rope_kv_write(ctx, call); }});
  }

  // ---- attention

  void attention(int64_t batch, int64_t context) { paged_attention(batch, context, 1); }
  void prefill_attention(int64_t sequences, int64_t length) { paged_attention(sequences, length, length); }

  /// `queries` rows of each sequence: 1 is decoding, all of them a whole prompt. Decoding calls read caches
  /// that the L2 does not hold; a prompt's keys and values have just been written.
  void paged_attention(int64_t batch, int64_t context, int64_t queries) {
    const int64_t pages = (context + kPageSize - 1) / kPageSize, P = pages * batch, T = batch * queries;
    const int64_t H = c_.num_attention_heads, KV = c_.num_key_value_heads, Dh = c_.head_dim;
    const DType kv = options_.model.kv_dtype;
    const bool decodes = queries == 1;
    const int64_t cache_bytes = 2 * P * KV * kPageSize * Dh * size_of(kv);
    const int64_t copies =
        decodes ? std::clamp<int64_t>(3 * backend_.info().l2_bytes / cache_bytes + 1, 1, kMaxCaches) : 1;
    ops::PagedAttention call{.scale = 0.1F, .decode_rows = decodes ? 1 : 0};
    place([&](Arena& arena) {
      call.out = arena.alloc(DType::kBF16, {T, H, Dh});
      call.q = arena.alloc(DType::kBF16, {T, H, Dh});
      for (Tensor* t : {&call.k_pages, &call.v_pages}) *t = arena.alloc(kv, {P * copies, KV, kPageSize, Dh});
      if (size_of(kv) == 1)
        for (Tensor* t : {&call.k_scales, &call.v_scales})
          *t = arena.alloc(DType::kF32, {P * copies, KV, kPageSize});
      call.block_table = arena.alloc(DType::kI32, {batch * copies, pages});
      call.cu_q = arena.alloc(DType::kI32, {batch + 1});
      call.kv_lens = arena.alloc(DType::kI32, {batch});
    });
    for (const Tensor& t : {call.q, call.k_pages, call.v_pages, call.k_scales, call.v_scales})
      if (t) ops::random_fill(ctx_, {.x = t, .std = 1e-2F, .seed = 5});
    upload_iota(call.block_table);
    upload_iota(call.cu_q, queries);
    upload_iota(call.kv_lens, 0, context);
    const double positions = decodes ? static_cast<double>(context) : static_cast<double>(context + 1) / 2;
    ordered_json shape = {{"heads", H}, {"kv_heads", KV}, {"head_dim", Dh}};
    if (decodes)
      shape.update({{"batch", batch}, {"context", context}});
    else
      shape.update({{"sequences", batch}, {"length", context}});
    add({decodes ? "attention" : "prefill", decodes ? "attention" : "prefill_attention", shape, name_of(kv),
         2.0 * static_cast<double>(batch * context * KV * Dh * size_of(kv)),
         4 * static_cast<double>(T * H * Dh) * positions,
         [call, batch, copies](ExecContext& ctx, size_t i) {
           ops::PagedAttention one = call;
           const int64_t copy = static_cast<int64_t>(i) % copies;
           one.block_table = call.block_table.slice(0, copy * batch, (copy + 1) * batch);
           ops::paged_attention(ctx, one);
         },
         std::max(kCalls, static_cast<size_t>(copies))});
  }

  // ---- once a step

  void sampling(int64_t B) {
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
    ops::random_fill(ctx_, {.x = call.logits, .std = 1, .seed = 11});
    for (const Tensor& t : {call.temperature, call.top_k, call.top_p, call.min_p, call.repetition_penalty,
                            call.presence_penalty, call.frequency_penalty, call.seeds, call.steps})
      backend_.fill_bytes(t.data, 0, t.bytes());
    add({"greedy",
         "sampling",
         {{"rows", B}, {"vocab", c_.vocab_size}},
         "f32",
         static_cast<double>(B * c_.vocab_size * 4),
         0,
         [call](ExecContext& ctx, size_t) { ops::sampling(ctx, call); }});
  }

  /// What a step begins with, as one: positions and slots, the rotations' table, the embeddings.
  void step_inputs(int64_t B) {
    ops::DecodeInputs inputs{.page_size = kPageSize, .num_pages = static_cast<int>(B + 1)};
    ops::RopeTable table{.theta = c_.rope_theta};
    ops::EmbeddingFwd embedding{.weight = products_[kHead].w[0]};
    place([&](Arena& arena) {
      for (Tensor* t : {&inputs.kv_lens, &inputs.positions, &inputs.slots, &inputs.tokens})
        *t = arena.alloc(DType::kI32, {B});
      inputs.steps = arena.alloc(DType::kI64, {B});
      inputs.block_table = arena.alloc(DType::kI32, {B, 2});
      table.cos_sin = arena.alloc(DType::kF32, {B, c_.head_dim});
      embedding.y = arena.alloc(DType::kF32, {B, D_});
    });
    table.positions = inputs.positions;
    embedding.ids = inputs.tokens;
    upload_iota(inputs.kv_lens, 0, -1);  // idle: lengths that do not run away over the repetitions
    upload_iota(inputs.tokens);
    for (const Tensor& t : {inputs.positions, inputs.slots, inputs.steps, inputs.block_table})
      backend_.fill_bytes(t.data, 0, t.bytes());
    add({"step_inputs",
         "step_inputs",
         {{"rows", B}, {"width", D_}, {"head_dim", c_.head_dim}},
         "bf16",
         static_cast<double>(B * D_ * 6),
         0,
         [inputs, table, embedding](ExecContext& ctx, size_t) {
           ops::decode_inputs(ctx, inputs);
           ops::rope_table(ctx, table);
           ops::embedding_fwd(ctx, embedding);
         }});
  }

  // ---- memory, time, output

  /// Runs `allocate` over a counting arena, then over memory of that size, kept until the next measure().
  template <class Allocate>
  void place(const Allocate& allocate) {
    Arena plan;
    allocate(plan);
    memory_.emplace_back(plan.used_bytes(), "ops benchmark", &backend_);
    allocate(memory_.back());
  }

  void add(Op op) { ops_.push_back(std::move(op)); }

  /// first, first + step, ...
  void upload_iota(const Tensor& to, int64_t step = 1, int64_t first = 0) {
    std::vector<int32_t> host(static_cast<size_t>(to.numel()));
    for (size_t i = 0; i < host.size(); ++i)
      host[i] = static_cast<int32_t>(first + static_cast<int64_t>(i) * step);
    upload(ctx_, to, host.data());
    synchronize(ctx_, "ops benchmark");
  }

  std::unique_ptr<Graph> record(const std::function<void()>& work) {
    backend_.begin_capture();
    work();
    return backend_.end_capture();
  }
  static double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
  }
  double seconds(Graph& graph) { return launch_seconds(backend_, graph); }

  /// Measures the operators added so far, and forgets them. Each is timed alone, kCalls in a chain, but
  /// behind a layer of all of them, long enough that clocks are those of the layer and not of one kernel;
  /// then among the others: what the layer takes more than its operators alone (cold instructions, other
  /// shapes of grids) is spread evenly over them.
  void measure() {
    constexpr int kRepeats = 5;
    constexpr double kHotSeconds = 10e-3, kReheatSeconds = 1.5e-3, kTimedSeconds = 1e-3;
    const size_t num_layers = ops_.size() == 1 ? ops_[0].calls : 4;
    int64_t bytes = 0;
    for (const Op& op : ops_) bytes = std::max(bytes, planned_bytes(backend_, op.call));
    Workspace workspace(bytes, &backend_);
    ExecContext ctx = ctx_;
    ctx.workspace = &workspace;
    for (const Op& op : ops_) op.call(ctx, 0);
    const std::unique_ptr<Graph> layers = record([&] {
      for (size_t i = 0; i < num_layers; ++i)
        for (const Op& op : ops_) op.call(ctx, i);
    });
    const auto heat = [&](double least) {
      for (double ran = 0; ran < least;) ran += seconds(*layers);
    };
    heat(kHotSeconds);
    std::vector<double> alone, together;
    for (const Op& op : ops_) {
      const double one = seconds(*record([&] { op.call(ctx, 0); }));
      const size_t calls = std::clamp<size_t>(static_cast<size_t>(kTimedSeconds / one), 1, op.calls);
      const std::unique_ptr<Graph> graph = record([&] {
        for (size_t i = 0; i < calls; ++i) op.call(ctx, i);
      });
      std::vector<double> times;
      for (int r = 0; r < kRepeats; ++r) {
        heat(kReheatSeconds);
        times.push_back(seconds(*graph) / static_cast<double>(calls));
      }
      alone.push_back(median(times));
    }
    for (int r = 0; r < kRepeats; ++r) together.push_back(seconds(*layers) / static_cast<double>(num_layers));
    const double excess = std::max(0.0, median(together) - std::accumulate(alone.begin(), alone.end(), 0.0)) /
                          static_cast<double>(ops_.size());
    const std::vector<double> between_events = spans(ctx, num_layers);
    for (size_t i = 0; i < ops_.size(); ++i)
      // Of long kernels it is only the noise of clocks.
      report(ops_[i], alone[i] + std::min(excess, kMostExcess), between_events[i]);
    ops_.clear();
    memory_.clear();
  }

  /// Median seconds of each operator between events in the layer's graph: no kernel overlaps the end of the
  /// one before it.
  std::vector<double> spans(ExecContext& ctx, size_t layers) {
    std::vector<std::unique_ptr<Event>> begins, ends;
    const std::unique_ptr<Graph> graph = record([&] {
      for (size_t i = 0; i < layers; ++i)
        for (const Op& op : ops_) {
          begins.push_back(backend_.make_event());
          ends.push_back(backend_.make_event());
          begins.back()->record();
          op.call(ctx, i);
          ends.back()->record();
        }
    });
    for (int r = 0; r < 3; ++r) seconds(*graph);
    std::vector<double> times;
    for (size_t op = 0; op < ops_.size(); ++op) {
      std::vector<double> calls;
      for (size_t i = op; i < ends.size(); i += ops_.size())
        calls.push_back(ends[i]->seconds_since(*begins[i]));
      times.push_back(median(calls));
    }
    return times;
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

  void report(const Op& op, double seconds, double span) {
    ordered_json shape = op.shape;
    shape["dtype"] = op.dtype;
    out_["ops"].push_back({{"op", op.op},
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
  int64_t D_, F_;
  int64_t shared_;  ///< 1 with shared experts, which are one MLP
  int64_t slots_;   ///< rows that a token's result is made of
  double copy_ = 0;
  std::vector<Arena> memory_;  // of the operators to be measured
  std::vector<Op> ops_;
  Arena weights_;
  Tensor gate_;
  std::vector<Product> products_;
  ordered_json out_;
};

}  // namespace

void bench_device_ops(const DeviceBenchOptions& o) {
  const spec::ModelConfig c = spec::load_model_config(find_model(o.model.model));
  OpsBench(o, c).all();
}

}  // namespace moge::cli

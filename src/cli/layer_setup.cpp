#include "cli/layer_setup.h"

#include <algorithm>

#include "cli/graph_timer.h"
#include "core/transfer.h"
#include "model/weights.h"
#include "ops/moe_route.h"
#include "ops/random_fill.h"

namespace moge::cli {

namespace {

constexpr size_t kRoutings = 8;
/// Scales of the layers' weights, so small that the residual stream, to which each call adds, stays the
/// random rows that it was: tokens that become alike would all choose the same experts.
constexpr float kScaleStd = 1e-7F, kWeightStd = 1e-6F;

}  // namespace

LayerSetup::LayerSetup(Backend& on, const spec::ModelConfig& c, DType of_weights, DType of_kv)
    : config(c),
      dtype(of_weights),
      kv_dtype(of_kv),
      backend(on),
      ctx{.device = {DeviceKind::kCuda, 0}, .backend = &backend},
      D(c.hidden_size),
      F(model::expert_width(c)),
      shared(c.num_shared_experts() > 0 ? 1 : 0),
      slots(c.num_experts_per_tok + shared) {
  for (ProductShape& shape : layer_products(c, dtype)) products.push_back({std::move(shape), {}});
  const auto allocate = [&](Arena& arena) {
    gate = arena.alloc(DType::kF32, {std::max<int64_t>(c.num_experts, 1), D});
    norm = arena.alloc(DType::kF32, {D});
    for (Product& p : products) p.weights = allocate_weights(arena, backend, p.shape);
  };
  Arena plan;
  allocate(plan);
  weights = Arena(plan.used_bytes(), "ops benchmark: weights", &backend);
  allocate(weights);
  ops::random_fill(ctx, {.x = gate, .std = 0.02F, .seed = 9, .of_bf16 = true});
  ops::random_fill(ctx, {.x = norm, .std = 1, .seed = 6});
  for (size_t k = 0; k < products.size(); ++k) {
    const auto& [w, scale] = products[k].weights;
    for (size_t i = 0; i < w.size(); ++i) {
      ops::random_fill(ctx, {.x = w[i], .std = k == kHead ? 1 : kWeightStd, .seed = 2 * i});
      if (scale[i]) ops::random_fill(ctx, {.x = scale[i], .std = kScaleStd, .seed = 2 * i + 1});
    }
  }
}

void LayerSetup::begin_pass(int64_t T) {
  clear();
  place([&](Arena& arena) { acts = model::allocate_serving_activations(arena, config, dtype, T); });
  for (const Tensor& t : {acts.x, acts.qkv, acts.normed})
    ops::random_fill(ctx, {.x = t, .std = 1, .seed = 12});
}

void LayerSetup::route(ExecContext& run, const Routing& to) const {
  ops::moe_route(run, {.topk_ids = to.topk_ids,
                       .topk_weights = to.topk_weights,
                       .offsets = to.offsets,
                       .row_token = to.row_token,
                       .row_weight = to.row_weight,
                       .slot_row = to.slot_row,
                       .x = acts.normed,
                       .gate = gate,
                       .num_groups = static_cast<int>(config.num_expert_groups),
                       .renormalize = config.norm_topk_prob});
}

Routings LayerSetup::draw_routings(int64_t T) {
  const int64_t E = config.num_experts, K = config.num_experts_per_tok, R = T * K;
  Routings routings;
  routings.drawn.resize(kRoutings);
  place([&](Arena& arena) {
    const auto allocate = [&](Routing& r) {
      r = {.topk_ids = arena.alloc(DType::kI32, {T, K}),
           .topk_weights = arena.alloc(DType::kF32, {T, K}),
           .offsets = arena.alloc(DType::kI32, {E + shared + 1}),
           .row_token = arena.alloc(DType::kI32, {T * slots}),
           .row_weight = arena.alloc(DType::kF32, {T * slots}),
           .slot_row = arena.alloc(DType::kI32, {T, slots})};
    };
    for (Routing& r : routings.drawn) allocate(r);
    allocate(routings.written);
  });
  Workspace workspace(planned_bytes(backend, [&](ExecContext& run, size_t) { route(run, routings.written); }),
                      &backend);
  ExecContext run = ctx;
  run.workspace = &workspace;
  uint64_t seed = 100;
  const auto draw = [&](const Routing& to) {
    ops::random_fill(run, {.x = acts.normed, .std = 1, .seed = seed++});
    route(run, to);
  };
  for (Routing& r : routings.drawn) {
    draw(r);
    r.offsets = r.offsets.slice(0, 0, E + 1);
    r.row_token = r.row_token.slice(0, 0, R);
    r.row_weight = r.row_weight.slice(0, 0, R);
    std::vector<int32_t> offsets(static_cast<size_t>(E + 1));
    download(run, offsets.data(), r.offsets);
    for (size_t e = 1; e < offsets.size(); ++e) routings.experts_hit += offsets[e] > offsets[e - 1] ? 1 : 0;
  }
  routings.experts_hit /= kRoutings;
  draw(routings.written);
  return routings;
}

SameRows LayerSetup::same_rows(int64_t rows) {
  const int64_t experts = products[kGateUp].shape.groups, R = rows * experts, K = config.num_experts_per_tok,
                T = (R + K - 1) / K;
  SameRows same;
  Routing& r = same.routing;
  place([&](Arena& arena) {
    r.offsets = arena.alloc(DType::kI32, {experts + 1});
    r.row_token = arena.alloc(DType::kI32, {R});
    r.row_weight = arena.alloc(DType::kF32, {R});
    const auto scale = [&](int64_t n) {
      return dtype != DType::kBF16 ? arena.alloc(DType::kF32, {n}) : Tensor();
    };
    same.gate_up = {arena.alloc(DType::kBF16, {R, F}), arena.alloc(dtype, {T, D}), scale(T)};
    same.down = {arena.alloc(DType::kBF16, {R, D}), arena.alloc(dtype, {R, F}), scale(R)};
  });
  upload_iota(r.offsets, rows);
  upload_iota(r.row_token, 1, 0, T);
  for (const Tensor& t : {r.row_weight, same.gate_up.a, same.gate_up.a_scale, same.down.a, same.down.a_scale})
    if (t) ops::random_fill(ctx, {.x = t, .std = 1, .seed = 8});
  return same;
}

model::KvPages LayerSetup::pages(Arena& arena, int64_t count) const {
  const int64_t KV = config.num_key_value_heads;
  const auto elements = [&] { return arena.alloc(kv_dtype, {count, KV, kPageSize, config.head_dim}); };
  const auto scales = [&] {
    return size_of(kv_dtype) == 1 ? arena.alloc(DType::kF32, {count, KV, kPageSize}) : Tensor();
  };
  return {.k = elements(), .v = elements(), .k_scales = scales(), .v_scales = scales()};
}

void LayerSetup::upload_iota(const Tensor& to, int64_t step, int64_t first, int64_t modulus) {
  std::vector<int32_t> host(static_cast<size_t>(to.numel()));
  for (size_t i = 0; i < host.size(); ++i)
    host[i] = static_cast<int32_t>((first + static_cast<int64_t>(i) * step) % modulus);
  upload(ctx, to, host.data());
  synchronize(ctx, "ops benchmark");
}

}  // namespace moge::cli

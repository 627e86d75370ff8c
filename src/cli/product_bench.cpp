#include "cli/product_bench.h"

#include <algorithm>
#include <numeric>

#include "cli/graph_timer.h"
#include "core/rng.h"
#include "core/transfer.h"
#include "model/weights.h"
#include "ops/random_fill.h"

namespace moge::cli {

std::vector<ProductShape> layer_products(const spec::ModelConfig& c, DType dtype) {
  const int64_t D = c.hidden_size, F = model::expert_width(c), M = model::always_on_width(c);
  const int64_t experts = std::max<int64_t>(c.num_experts, 1);
  std::vector<ProductShape> products = {{"qkv_proj", 1, c.q_dim() + 2 * c.kv_dim(), D, dtype},
                                        {"o_proj", 1, D, c.q_dim(), dtype},
                                        {"gate_up_proj", experts, 2 * F, D, dtype, true, true, false},
                                        {"down_proj", experts, D, F, dtype, false, false, true},
                                        {"lm_head", 1, c.vocab_size, D, DType::kBF16}};
  if (c.is_moe() && M > 0) {
    products.push_back({"shared_gate_up_proj", 1, 2 * M, D, dtype, true});
    products.push_back({"shared_down_proj", 1, D, M, dtype});
  }
  return products;
}

ProductWeights allocate_weights(Arena& arena, const Backend& backend, const ProductShape& s) {
  const bool grouped = s.groups > 1;
  const int64_t bytes = s.groups * s.n * s.k * size_of(s.dtype);
  const int64_t copies = std::max<int64_t>(2, 3 * backend.info().l2_bytes / bytes + 1);
  ProductWeights weights;
  for (int64_t i = 0; i < copies; ++i) {
    weights.w.push_back(arena.alloc(s.dtype, grouped ? Shape{s.groups, s.n, s.k} : Shape{s.n, s.k}));
    weights.scale.push_back(s.dtype == DType::kBF16
                                ? Tensor()
                                : arena.alloc(DType::kF32, grouped ? Shape{s.groups, s.n} : Shape{s.n}));
  }
  return weights;
}

GroupRows same_rows(int64_t groups, int64_t tokens) {
  std::vector<int32_t> all(static_cast<size_t>(tokens));
  std::iota(all.begin(), all.end(), 0);
  return GroupRows(static_cast<size_t>(groups), all);
}

GroupRows routed_rows(const spec::ModelConfig& c, int64_t tokens) {
  GroupRows rows(static_cast<size_t>(c.num_experts));
  const int64_t groups = std::max<int64_t>(c.num_expert_groups, 1), of_group = c.num_experts / groups;
  const int64_t picks = c.num_experts_per_tok / groups;
  const Rng rng(1, 0);
  uint64_t draw = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t g = 0; g < groups && of_group > 0; ++g) {
      const auto first = static_cast<int64_t>(rng.uniform(draw++) * static_cast<double>(of_group));
      for (int64_t i = 0; i < picks; ++i)
        rows[static_cast<size_t>(g * of_group + (first + i) % of_group)].push_back(static_cast<int32_t>(t));
    }
  }
  return rows;
}

ProductBench::ProductBench(Backend& backend, const ProductShape& shape, const GroupRows& rows, bool gathered)
    : backend_(backend) {
  std::vector<int32_t> offsets{0}, row_ids;
  for (const std::vector<int32_t>& group : rows) {
    row_ids.insert(row_ids.end(), group.begin(), group.end());
    offsets.push_back(static_cast<int32_t>(row_ids.size()));
  }
  const auto num_rows = static_cast<int64_t>(row_ids.size());
  const int64_t num_tokens = 1 + *std::ranges::max_element(row_ids);
  gathered = gathered && shape.gathers && shape.groups > 1;
  Arena plan;
  allocate(plan, shape, num_rows, num_tokens, gathered);
  memory_ = Arena(plan.used_bytes(), "benchmark of " + shape.name, &backend);
  allocate(memory_, shape, num_rows, num_tokens, gathered);

  ExecContext ctx{.device = {DeviceKind::kCuda, 0}, .backend = &backend};
  const ops::QuantMatmul& first = calls_[0];
  ops::random_fill(ctx, {.x = first.a, .std = 1, .seed = 2});
  const auto fill_factors = [&](const Tensor& factors) {
    if (factors) ops::random_fill(ctx, {.x = factors, .std = 1e-3F, .seed = 3});
  };
  for (const Tensor& factors : {first.a_scale, first.row_weight}) fill_factors(factors);
  for (const ops::QuantMatmul& call : calls_) {
    ops::random_fill(ctx, {.x = call.w, .std = 1, .seed = 1});
    fill_factors(call.w_scale);
  }
  if (first.offsets) upload(ctx, first.offsets, offsets.data());
  if (first.row_ids) upload(ctx, first.row_ids, row_ids.data());
  synchronize(ctx, "products to time");
}

void ProductBench::allocate(Arena& arena, const ProductShape& s, int64_t num_rows, int64_t num_tokens,
                            bool gathered) {
  const bool grouped = s.groups > 1, scaled = s.dtype != DType::kBF16;
  const auto f32 = [&](bool present, Shape shape) {
    return present ? arena.alloc(DType::kF32, shape) : Tensor();
  };
  const auto i32 = [&](bool present, Shape shape) {
    return present ? arena.alloc(DType::kI32, shape) : Tensor();
  };
  const ops::QuantMatmul call{
      .c = arena.alloc(DType::kBF16, {num_rows, s.silu_mul ? s.n / 2 : s.n}),
      .a = arena.alloc(s.dtype, {gathered ? num_tokens : num_rows, s.k}),
      .a_scale = f32(scaled, {gathered ? num_tokens : num_rows}),
      .offsets = i32(grouped, {s.groups + 1}),
      .row_ids = i32(gathered, {num_rows}),
      .row_weight = f32(grouped && s.weighs, {num_rows}),
      .silu_mul = s.silu_mul,
  };
  const ProductWeights weights = allocate_weights(arena, backend_, s);
  calls_.assign(weights.w.size(), call);
  for (size_t i = 0; i < calls_.size(); ++i) {
    calls_[i].w = weights.w[i];
    calls_[i].w_scale = weights.scale[i];
  }
}

double ProductBench::seconds(const Run& run) const {
  return graph_seconds(backend_, [&](ExecContext& ctx, size_t i) { run(ctx, calls_[i % calls_.size()]); });
}

double ProductBench::bytes() const {
  return static_cast<double>(product().w.bytes() + product().a.bytes() + product().c.bytes());
}

double ProductBench::flops() const {
  return 2.0 * static_cast<double>(num_rows()) * static_cast<double>(product().w.dim(-2)) *
         static_cast<double>(product().w.dim(-1));
}

}  // namespace moge::cli

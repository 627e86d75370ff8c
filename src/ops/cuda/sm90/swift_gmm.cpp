#include "ops/cuda/sm90/swift_gmm.h"

#include "ops/cuda/quant_matmul.h"
#include "ops/cuda/sm90/swift_gather.h"
#include "ops/cuda/sm90/swift_profile.h"
#include "ops/cuda/tensor_map.h"

namespace moge::ops::cuda {

namespace {

constexpr int64_t kCopyAlignment = 16;  // bytes, of the copy engine's addresses and strides
constexpr int64_t kBlockBytes = 128;    // of K
constexpr int64_t kManyResults = 32;    // bytes of weights for each of c, at most

bool aligned(const Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.data) % kCopyAlignment == 0;
}
template <class T>
T* data_of(const Tensor& t) {
  return t ? t.ptr<T>() : nullptr;
}

int64_t num_groups(const QuantMatmul& a) {
  return a.offsets ? a.w.dim(0) : 1;
}
int64_t rows_of_average_group(const QuantMatmul& a) {
  return (a.c.dim(0) + num_groups(a) - 1) / num_groups(a);
}

}  // namespace

Refusal swift_gmm_refusal(const QuantMatmul& a) {
  const int64_t element = size_of(a.a.dtype);
  const int64_t groups = num_groups(a);
  if (groups > kSwiftMaxGroups) return str(groups, " groups: expected at most ", kSwiftMaxGroups);
  if (a.a.dim(0) * a.a.stride(0) * element >= int64_t{16} << 32) return "a: expected fewer than 64 GiB";
  if (a.w.dim(-1) * element % kCopyAlignment != 0)
    return str("K = ", a.w.dim(-1), " in ", name_of(a.a.dtype), ": expected a multiple of ",
               kCopyAlignment / element, " (", kCopyAlignment, " bytes)");
  if (a.a.stride(0) * element % kCopyAlignment != 0 || a.a.stride(1) != 1)
    return str("rows of a: expected a multiple of ", kCopyAlignment, " bytes apart, without gaps in them");
  if (!aligned(a.a) || !aligned(a.w)) return str("a and w: expected alignment to ", kCopyAlignment, " bytes");
  if (a.bias && a.row_weight) return "bias together with row_weight: not supported";
  if (a.c.stride(1) != 1) return "c: expected contiguous rows";
  for (const Tensor* t : {&a.a_scale, &a.w_scale, &a.bias, &a.offsets, &a.row_ids, &a.row_weight})
    if (*t && !t->is_contiguous()) return str(t->str(), ": expected a contiguous tensor");
  constexpr int64_t kMax = INT32_MAX;
  if (groups * a.w.dim(-2) > kMax || a.w.dim(-1) > kMax / 2 || a.a.dim(0) > kMax || a.c.dim(0) > kMax)
    return "expected sizes below 2^31";
  return {};
}

namespace {

/// For products that nobody has timed. Many rows: large tiles, so that little is read twice. Few rows and few
/// features in all: fewer of them a tile, so that every multiprocessor has one.
SwiftTile default_tile(const QuantMatmul& a, int num_sms) {
  const int64_t rows = rows_of_average_group(a);
  if (rows > 128) return SwiftTile::k256x256;
  if (rows > 64) return SwiftTile::k128x128;
  const bool narrow = num_groups(a) == 1 && a.w.dim(-2) < 256 * num_sms;
  if (!narrow) return SwiftTile::k128x64;
  return rows <= 16 ? SwiftTile::k64x16 : SwiftTile::k64x64;
}

SwiftTile choose_tile(const ExecContext& ctx, const QuantMatmul& a) {
  static const TileProfile profile = swift_profile(ctx.backend->info().name);
  TileProblem problem{.dtype = a.a.dtype,
                      .groups = num_groups(a),
                      .gathered = bool(a.row_ids),
                      .n = a.w.dim(-2),
                      .k = a.w.dim(-1)};
  std::optional<TileShape> measured = profile.find(problem, a.c.dim(0));
  if (!measured && problem.gathered) {  // the head of some sequences, say
    problem.gathered = false;
    measured = profile.find(problem, a.c.dim(0));
  }
  for (size_t i = 0; measured && i < kSwiftTiles.size(); ++i)
    if (kSwiftTiles[i].shape == *measured) return static_cast<SwiftTile>(i);
  return default_tile(a, ctx.backend->info().num_sms);
}

/// For rows gathered once in device memory, instead of by every tile that reads them.
int64_t workspace_bytes(const QuantMatmul& a, SwiftTile tile) {
  const bool gathers_first = a.row_ids && (blocks_of(tile) > 1 || rows_of_average_group(a) > 128);
  return gathers_first ? a.c.dim(0) * a.a.dim(1) * size_of(a.a.dtype) : 0;
}

}  // namespace

void swift_gmm(ExecContext& ctx, const QuantMatmul& a, SwiftTile tile, std::span<std::byte> workspace) {
  const int64_t n = a.w.dim(-2), k = a.w.dim(-1), groups = num_groups(a);
  const int64_t k_bytes = k * size_of(a.a.dtype);
  const bool half_block = k_bytes % kBlockBytes != 0 && k_bytes % kBlockBytes <= kBlockBytes / 2;
  const int64_t blocks = (k_bytes + kBlockBytes - 1) / kBlockBytes;
  const int box_columns = static_cast<int>(kBlockBytes / size_of(a.a.dtype));
  const bool gather_first = !workspace.empty(), gather = a.row_ids && !gather_first;
  dcheck(!gather || blocks_of(tile) == 1, "quant_matmul: pairs of blocks cannot gather");
  if (gather_first) gather_rows(ctx, a, workspace.data());
  // The end of a row and the beginning of the next are wanted at different times: where 256 bytes hold both,
  // fetching them together fetches them twice.
  const L2Fetch fetch = k_bytes % 256 == 0 ? L2Fetch::k256 : L2Fetch::k128;
  const auto map_of = [&](const void* data, int64_t rows, int box_rows, int64_t stride) {
    return matrix_map("quant_matmul", data, a.a.dtype, rows, k, box_rows, box_columns, fetch, stride);
  };
  SwiftMaps maps{.w = map_of(a.w.data, groups * n, 64, k), .a = {}, .c = {}};
  for (int i = 0; 8 << i <= shape_of(tile).rows; ++i) {
    maps.a[i] = gather_first ? map_of(workspace.data(), a.c.dim(0), 8 << i, k)
                             : map_of(a.a.data, a.a.dim(0), 8 << i, a.a.stride(0));
  }
  const int64_t c_columns = a.c.dim(1);
  const bool c_vectors = c_columns % 8 == 0 && a.c.stride(0) % 8 == 0 && aligned(a.c);
  const bool stores_boxes = shape_of(tile).rows == 256 && a.c.dtype == DType::kBF16 && c_vectors;
  for (int i = 0; stores_boxes && i < static_cast<int>(std::size(maps.c)); ++i)
    maps.c[i] = matrix_map("quant_matmul", a.c.data, DType::kBF16, a.c.dim(0), c_columns, 1 << i,
                           a.silu_mul ? 32 : 64, L2Fetch::k128, a.c.stride(0));
  const SwiftGmmParams params{
      .c = a.c.data,
      .c_stride = a.c.stride(0),
      .a = a.a.data,
      .a_scale = data_of<float>(a.a_scale),
      .w_scale = data_of<float>(a.w_scale),
      .bias = data_of<float>(a.bias),
      .row_weight = data_of<float>(a.row_weight),
      .offsets = data_of<int32_t>(a.offsets),
      .row_ids = data_of<int32_t>(a.row_ids),
      .gather = gather,
      .num_groups = static_cast<int>(groups),
      .num_rows = static_cast<int>(a.c.dim(0)),
      .n = static_cast<int>(n),
      .k_bytes = static_cast<int>(k_bytes),
      .a_stride_units = static_cast<uint32_t>(a.a.stride(0) * size_of(a.a.dtype) / 16),
      .full_blocks = static_cast<int>(blocks - (half_block ? 1 : 0)),
      .half_block = half_block,
      .c_vectors = c_vectors,
      .stores_boxes = stores_boxes,
      .beside_previous = a.beside_previous && !gather_first,
      .many_results = groups > 1 && a.c.bytes() > a.w.bytes() / kManyResults,
      .takes_steps = groups > 1 && !a.beside_previous,
      .output = a.silu_mul                  ? SwiftOutput::kSiluMulBF16
                : a.c.dtype == DType::kBF16 ? SwiftOutput::kBF16
                                            : SwiftOutput::kF32,
  };
  switch (a.a.dtype) {
    case DType::kI8:
      return launch_swift_gmm<DType::kI8>(ctx, tile, maps, params);
    case DType::kFP8E4M3:
      return launch_swift_gmm<DType::kFP8E4M3>(ctx, tile, maps, params);
    default:
      return launch_swift_gmm<DType::kBF16>(ctx, tile, maps, params);
  }
}

namespace {

template <SwiftTile kTile>
Impl<QuantMatmul> impl_of_tile() {
  return {kSwiftTiles[static_cast<size_t>(kTile)].impl, DeviceKind::kCuda, swift_gmm_refusal,
          [](ExecContext& ctx, const QuantMatmul& a, std::span<std::byte> workspace) {
            if (a.c.numel() > 0) swift_gmm(ctx, a, kTile, workspace);
          },
          [](const ExecContext&, const QuantMatmul& a) { return workspace_bytes(a, kTile); }};
}
template <size_t... kTiles>
void add_tiles(std::vector<Impl<QuantMatmul>>& impls, std::index_sequence<kTiles...>) {
  (impls.push_back(impl_of_tile<static_cast<SwiftTile>(kTiles)>()), ...);
}

}  // namespace

std::vector<Impl<QuantMatmul>> swift_gmm_impls() {
  std::vector<Impl<QuantMatmul>> impls{
      {kSwiftImpl, DeviceKind::kCuda, swift_gmm_refusal,
       [](ExecContext& ctx, const QuantMatmul& a, std::span<std::byte> workspace) {
         if (a.c.numel() > 0) swift_gmm(ctx, a, choose_tile(ctx, a), workspace);
       },
       [](const ExecContext& ctx, const QuantMatmul& a) { return workspace_bytes(a, choose_tile(ctx, a)); }}};
  add_tiles(impls, std::make_index_sequence<kSwiftTiles.size()>{});
  return impls;
}

}  // namespace moge::ops::cuda

// moge tune: which tile of SwiftGMM is fastest for a model's products on this GPU.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <map>
#include <optional>
#include <set>

#include "cli/command.h"
#include "cli/model_path.h"
#include "cli/product_bench.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "ops/tile_profile.h"

namespace moge::cli {

namespace {

struct TuneOptions {
  std::string model;
  DType dtype = DType::kI8;
  bool verbose = false;

  std::vector<Option> options() {
    return {{.name = "MODEL",
             .target = &model,
             .help = "Hugging Face directory, or a config's name (moge --help lists them)"},
            {.name = "dtype",
             .target = &dtype,
             .value = "TYPE",
             .help = "Of weights and activations: i8, fp8_e4m3 or bf16",
             .choices = {"i8", "fp8_e4m3", "bf16"}},
            {.name = "verbose", .target = &verbose, .help = "Print the time of every tile"}};
  }
};

/// The tile that an implementation of the product always takes: "cuda.swift_gmm.128x256".
std::optional<ops::TileShape> tile_of(const std::string& impl) {
  const size_t x = impl.rfind('x'), dot = impl.rfind('.');
  if (x == std::string::npos || dot == std::string::npos || x < dot) return {};
  const auto number = [](const std::string& digits) {
    const bool ok =
        !digits.empty() && digits.size() < 6 && digits.find_first_not_of("0123456789") == std::string::npos;
    return ok ? std::stoi(digits) : 0;
  };
  const ops::TileShape tile{number(impl.substr(dot + 1, x - dot - 1)), number(impl.substr(x + 1))};
  return tile.features > 0 && tile.rows > 0 ? std::optional(tile) : std::nullopt;
}

/// Times every tile of one product, at rising numbers of rows.
class ProductTuner {
 public:
  ProductTuner(Backend& backend, const ProductShape& shape, bool verbose)
      : backend_(backend), shape_(shape), verbose_(verbose) {}

  /// The fastest tile; none if no tile takes the product.
  std::optional<ops::TileTiming> tune(const GroupRows& rows) {
    const ProductBench bench(backend_, shape_, rows, true);
    const ops::QuantMatmul& product = bench.product();
    ops::TileTiming best{.problem = {.dtype = shape_.dtype,
                                     .groups = shape_.groups,
                                     .gathered = bool(product.row_ids),
                                     .n = shape_.n,
                                     .k = shape_.k},
                         .rows = bench.num_rows(),
                         .tile = {},
                         .microseconds = 0};
    const Times times = time(bench);
    const auto fastest = fastest_of(times);
    if (fastest == times.end()) return {};
    best.tile = *tile_of(fastest->first);
    best.microseconds = fastest->second;
    for (const auto& [impl, us] : times)
      if (us > kHopeless * best.microseconds && tile_of(impl)->rows <= best.tile.rows) hopeless_.insert(impl);
    print(best, times, bench);
    if (verbose_ && product.row_ids) print_side_by_side(rows);
    return best;
  }

 private:
  /// A tile so much slower than the best, and no taller, is not tried with more rows.
  static constexpr double kHopeless = 2.5;

  /// Microseconds by implementation.
  using Times = std::map<std::string, double>;
  /// Of every tile that takes the product and is not hopeless.
  Times time(const ProductBench& bench) const {
    Times times;
    const auto& table = ops::quant_matmul_table();
    for (const Impl<ops::QuantMatmul>& impl : table.impls) {
      if (!tile_of(impl.name) || hopeless_.contains(impl.name) || !impl.supports(bench.product()).empty())
        continue;
      times[impl.name] = 1e6 * bench.seconds([&](ExecContext& ctx, const ops::QuantMatmul& a) {
        run_impl(ctx, table, impl, a);
      });
    }
    return times;
  }
  static Times::const_iterator fastest_of(const Times& times) {
    return std::ranges::min_element(times, {}, &Times::value_type::second);
  }

  void print(const ops::TileTiming& best, const Times& times, const ProductBench& bench) const {
    std::cout << std::left << std::setw(14) << shape_.name << std::right << std::setw(8) << best.rows
              << std::setw(8) << best.tile.features << 'x' << std::left << std::setw(4) << best.tile.rows
              << std::right << std::fixed << std::setprecision(1) << std::setw(9) << best.microseconds
              << std::setw(9) << bench.flops() / best.microseconds * 1e-6 << std::endl;
    if (!verbose_) return;
    for (const auto& [impl, us] : times) std::cout << "    " << impl.substr(impl.rfind('.') + 1) << ' ' << us;
    std::cout << std::endl;
  }

  /// The same product of rows that need no gathering: what torch._scaled_grouped_mm is given
  /// (bench/peers/torch_gpu.py). The profile does not use it.
  void print_side_by_side(const GroupRows& rows) const {
    const ProductBench bench(backend_, shape_, rows, false);
    const Times times = time(bench);
    const auto fastest = fastest_of(times);
    if (fastest == times.end()) return;
    const auto& [impl, us] = *fastest;
    std::cout << "    rows side by side: " << impl.substr(impl.rfind('.') + 1) << ' ' << us << ", "
              << bench.flops() / us * 1e-6 << " TFLOP/s" << std::endl;
  }

  Backend& backend_;
  const ProductShape& shape_;
  bool verbose_;
  std::set<std::string> hopeless_;
};

void tune(const TuneOptions& o) {
  const spec::ModelConfig config = spec::load_model_config(find_model(o.model));
  Backend& backend = cuda_backend();
  const std::string& device = backend.info().name;
  const std::filesystem::path path = ops::tile_profile_path(device);
  check<UsageError>(!path.empty(), "nowhere to write: expected MOGE_CACHE, XDG_CACHE_HOME or HOME");
  make_directories(path.parent_path());  // if it fails, then before the timing
  ops::TileProfile profile;
  try {
    profile = ops::load_tile_profile(device);
  } catch (const FileError& broken) {
    log_warning(broken.what(), "; it is written anew");
  }

  std::cout << device << "\nproduct           rows      tile       us  TFLOP/s\n";
  std::vector<ops::TileTiming> timings;
  for (const ProductShape& shape : layer_products(config, o.dtype)) {
    ProductTuner tuner(backend, shape, o.verbose);
    for (const int64_t tokens :
         {1, 8, 16, 32, 64, 96, 128, 192, 256, 320, 512, 768, 1024, 2048, 4096, 8192}) {
      if (shape.name == "lm_head" && tokens > 512) break;  // one row a sequence
      const auto best = tuner.tune(shape.groups > 1 ? routed_rows(config, tokens) : same_rows(1, tokens));
      if (!best) {
        log_warning(shape.name, ": no tile takes a product of N = ", shape.n, " and K = ", shape.k);
        break;
      }
      timings.push_back(*best);
    }
  }
  profile.replace_by(ops::TileProfile(timings));
  ops::save_tile_profile(device, profile);
  log_info("wrote ", path.string());
}

}  // namespace

Command tune_command() {
  return make_command<TuneOptions>(
      {"tune", "finds the fastest tiles for a model's products on this GPU",
       "A product's kernel comes in several tile shapes; which is fastest depends on the card, the shape "
       "and\n"
       "the rows. This times them all for the model's products at 1 to 8192 tokens (a minute) and "
       "writes\n"
       "the winners to tiles-DEVICE.txt in MOGE_CACHE, XDG_CACHE_HOME/moge or ~/.cache/moge, where later\n"
       "commands find them. Results do not change by a bit, only times. Without the file built-in tables "
       "hold.\n\n"
       "  moge tune pangu-pro-moe-72b-a16b --dtype fp8_e4m3\n"},
      tune);
}

}  // namespace moge::cli

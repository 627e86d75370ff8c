// Encodes a text file line by line in one thread and prints the rate (by CPU time) and a hash of the ids: our
// half of bench/tokenizer_bench.py.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "text/tokenizer.h"

namespace {
// One thread works, so its CPU time is the cost, whatever else the machine does.
double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}
}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: tokenizer_bench MODEL_DIR TEXT_FILE\n");
    return 2;
  }
  try {
    const double load_begin = cpu_seconds();
    const auto tokenizer = moge::text::load_tokenizer(argv[1]);
    const double load_time = cpu_seconds() - load_begin;
    const std::string text = moge::read_text_file(argv[2]);
    int64_t num_ids = 0;
    uint64_t hash = 0;
    double best = 1e30;
    for (int repeat = 0; repeat < 3; ++repeat) {
      num_ids = 0;
      hash = 0;
      const double begin = cpu_seconds();
      for (std::string_view rest = text; !rest.empty();) {
        const size_t end = std::min(rest.find('\n'), rest.size() - 1) + 1;
        const auto ids =
            tokenizer->encode(rest.substr(0, end), {.add_special_tokens = false, .parse_special = true});
        num_ids += static_cast<int64_t>(ids.size());
        for (const int32_t id : ids) hash = (hash * 31 + static_cast<uint64_t>(id)) % 1'000'000'007;
        rest.remove_prefix(end);
      }
      best = std::min(best, cpu_seconds() - begin);
    }
    std::printf("{\"mb_per_s\": %.2f, \"ids\": %lld, \"hash\": %llu, \"load_s\": %.3f}\n",
                static_cast<double>(text.size()) / best * 1e-6, static_cast<long long>(num_ids),
                static_cast<unsigned long long>(hash), load_time);
  } catch (const moge::Error& e) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", e.what());
    return static_cast<int>(e.exit_code);
  }
}

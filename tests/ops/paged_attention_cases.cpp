#include <algorithm>
#include <numeric>

#include "ops/attention.h"
#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::KvWrite;
using ops::PagedAttention;

/// A sequence's cached tokens and how many of them, the last ones, ask.
struct Sequence {
  int32_t kv_len, n;
};

struct Dims {
  std::vector<Sequence> seqs;
  int64_t H, KV, Dh, PS;
  DType dtype;  ///< of the pages
  bool perf = false;
  DType q = DType::kF32;  ///< of q and out
  int decode_rows = 0;
  float sharpness = 1;  ///< times the usual scale: where it is high, a row's largest score keeps growing
  std::string params() const {
    std::string s = "kv:n=";
    for (size_t i = 0; i < seqs.size() && i < 3; ++i) s += str(i ? "," : "", seqs[i].kv_len, ":", seqs[i].n);
    if (seqs.size() > 3) s += str(",..(", seqs.size(), ")");
    return s + str(" H=", H, " KV=", KV, " Dh=", Dh, " PS=", PS, " ", name_of(dtype),
                   q == DType::kF32 ? "" : str(" q ", name_of(q)), decode_rows ? " decode" : "",
                   sharpness == 1 ? "" : str(" sharpness ", sharpness));
  }
  int64_t longest() const {
    int64_t n = 0;
    for (const Sequence& s : seqs) n = std::max<int64_t>(n, s.kv_len);
    return n;
  }
  double roundings() const {
    return 4 * std::sqrt(static_cast<double>(Dh)) + 4 * std::sqrt(static_cast<double>(longest())) + 16;
  }
  double pairs() const {
    double sum = 0;
    for (const Sequence& s : seqs) sum += double{static_cast<double>(s.n)} * (s.kv_len - (s.n - 1) / 2.0);
    return sum * static_cast<double>(H);
  }
  double cache_bytes() const {
    double sum = 0;
    for (const Sequence& s : seqs) sum += s.kv_len;
    return sum * 2 * static_cast<double>(KV * (Dh * size_of(dtype) + (quantised() ? 4 : 0)));
  }
  bool quantised() const { return size_of(dtype) == 1; }
};

/// Every sequence has its own pages, in random order.
PagedAttention make(Inputs& in, const Dims& d) {
  std::vector<int32_t> cu{0}, lens;
  int64_t pages = 0;
  const int64_t MP = (d.longest() + d.PS - 1) / d.PS + 1;
  for (const Sequence& s : d.seqs) {
    cu.push_back(cu.back() + s.n);
    lens.push_back(s.kv_len);
    pages += (std::max(s.kv_len, 0) + d.PS - 1) / d.PS;
  }
  std::vector<int32_t> order(pages);
  std::iota(order.begin(), order.end(), 0);
  Rng rng = in.rng();
  for (int64_t i = pages - 1; i > 0; --i)
    std::swap(order[i], order[rng.next_below(static_cast<uint32_t>(i + 1))]);
  const auto B = static_cast<int64_t>(d.seqs.size());
  const Tensor table = in.zeros({B, MP}, DType::kI32);
  int64_t next = 0;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t i = 0; i < MP; ++i)
      table.ptr<int32_t>()[b * MP + i] = i * d.PS < lens[b] ? order[next++] : -1;
  // Rows strided as in a fused projection; eight-bit pages of numbers whose scales bring them to size one.
  const Tensor qkv = in.normal({cu.back(), d.H + 2, d.Dh}, 1, d.q);
  const float size = d.quantised() ? 40 : 1;
  const auto scales = [&] {
    return d.quantised() ? in.uniform({pages, d.KV, d.PS}, 0.5F / size, 2 / size) : Tensor{};
  };
  return {.out = in.output({cu.back(), d.H, d.Dh}, d.q),
          .q = qkv.slice(1, 1, d.H + 1),
          .k_pages = in.normal({pages, d.KV, d.PS, d.Dh}, size, d.dtype),
          .v_pages = in.normal({pages, d.KV, d.PS, d.Dh}, size, d.dtype),
          .k_scales = scales(),
          .v_scales = scales(),
          .block_table = table,
          .cu_q = in.values(cu),
          .kv_lens = in.values(lens),
          .scale = d.sharpness / std::sqrt(static_cast<float>(d.Dh)),
          .decode_rows = d.decode_rows};
}

/// What one rounding (times eps) of keys, values, weights and the result changes an element of `out` by, as
/// independent errors add up. With weights p and out = sum p_j v_j: a key's roundings change its score by
/// scale |q k|_2, and with it the element by p_j (v_j - out); those of a weight and of a value by p_j v_j
/// each.
std::vector<double> magnitude(const PagedAttention& a) {
  const int64_t H = a.q.dim(1), KV = a.k_pages.dim(1), PS = a.k_pages.dim(2), Dh = a.q.dim(2);
  const auto q = to_doubles(a.q), k = to_doubles(a.k_pages), v = to_doubles(a.v_pages);
  const auto scales = [&](const Tensor& t) {
    return t ? to_doubles(t) : std::vector<double>(a.k_pages.numel() / Dh, 1.0);
  };
  const auto k_scales = scales(a.k_scales), v_scales = scales(a.v_scales);
  std::vector<double> result(q.size());
  for (int64_t b = 0; b < a.kv_lens.dim(0); ++b) {
    const int64_t first = a.cu_q.ptr<int32_t>()[b], n = a.cu_q.ptr<int32_t>()[b + 1] - first;
    for (int64_t i = 0; i < n * H; ++i) {
      const int64_t row = first * H + i, visible = a.kv_lens.ptr<int32_t>()[b] - n + i / H + 1;
      if (a.kv_lens.ptr<int32_t>()[b] <= 0) continue;
      struct Seen {
        int64_t at;  ///< of [P, KV, PS]
        double weight, score_error;
      };
      std::vector<Seen> all;
      double largest = -INFINITY, sum = 0;
      for (int64_t j = 0; j < visible; ++j) {
        const int64_t page = a.block_table.ptr<int32_t>()[b * a.block_table.stride(0) + j / PS];
        const int64_t at = (page * KV + i % H / (H / KV)) * PS + j % PS;
        double score = 0, squares = 0;
        for (int64_t d = 0; d < Dh; ++d) {
          const double x = q[row * Dh + d] * k[at * Dh + d] * k_scales[at] * a.scale;
          score += x, squares += x * x;
        }
        all.push_back({at, score, std::sqrt(squares)});
        largest = std::max(largest, score);
      }
      for (Seen& s : all) sum += s.weight = std::exp(s.weight - largest);
      std::vector<double> out(Dh), squares(Dh);
      for (const Seen& s : all)
        for (int64_t d = 0; d < Dh; ++d) out[d] += s.weight / sum * v[s.at * Dh + d] * v_scales[s.at];
      for (const Seen& s : all) {
        const double p = s.weight / sum;
        for (int64_t d = 0; d < Dh; ++d) {
          const double value = v[s.at * Dh + d] * v_scales[s.at];
          const double key = p * s.score_error * (value - out[d]), own = p * value;
          squares[d] += key * key + 2 * own * own;
        }
      }
      for (int64_t d = 0; d < Dh; ++d) result[row * Dh + d] = std::sqrt(squares[d] + out[d] * out[d]);
    }
  }
  return result;
}

/// Rows [begin, end) of sequence b, as a call of their own.
PagedAttention part(Inputs& in, const PagedAttention& a, int64_t b, int64_t begin, int64_t end) {
  const int32_t* cu = a.cu_q.ptr<int32_t>();
  const int64_t n = cu[b + 1] - cu[b];
  PagedAttention p = a;
  p.q = a.q.slice(0, cu[b] + begin, cu[b] + end);
  p.out = in.output({end - begin, a.q.dim(1), a.q.dim(2)}, a.q.dtype);
  p.block_table = a.block_table.slice(0, b, b + 1);
  p.cu_q = in.values(std::vector<int32_t>{0, static_cast<int32_t>(end - begin)});
  p.kv_lens = in.values(std::vector<int32_t>{static_cast<int32_t>(a.kv_lens.ptr<int32_t>()[b] - n + end)});
  return p;
}

/// The batch in one call against these sequences alone, cut into chunks of these sizes, in turn.
std::string same_alone(const std::string& name, const Dims& d, const std::vector<int64_t>& sequences,
                       const std::vector<int64_t>& chunks) {
  const OpTable<PagedAttention>& table = ops::paged_attention_table();
  const Impl<PagedAttention>& impl = find_impl(table, name);
  Inputs in(kSeed);
  Bench bench(2);
  const PagedAttention whole = make(in, d);
  bench.run(table, impl, whole);
  size_t turn = 0;
  for (const int64_t b : sequences) {
    const int64_t row = whole.cu_q.ptr<int32_t>()[b], n = d.seqs[static_cast<size_t>(b)].n;
    for (int64_t begin = 0; begin < n;) {
      const int64_t end = std::min(n, begin + chunks[turn++ % chunks.size()]);
      const PagedAttention p = part(in, whole, b, begin, end);
      bench.run(table, impl, p);
      const std::string why = same_bits("out", whole.out.slice(0, row + begin, row + end), p.out);
      if (!why.empty()) return str("sequence ", b, " rows ", begin, "..", end, ": ", why);
      begin = end;
    }
  }
  return "";
}

/// same_alone() as a case.
void add_alone(const char* what, const Dims& d, const std::vector<int64_t>& sequences,
               const std::vector<int64_t>& chunks) {
  AnyCase any = erase(ops::paged_attention_table(), str(d.params(), " ", what));
  any.test = [=](const std::string& impl) { return same_alone(impl, d, sequences, chunks); };
  any.refusal = [=](const std::string& impl) {
    Inputs in(kSeed);
    return find_impl(ops::paged_attention_table(), impl).supports(make(in, d));
  };
  all_cases().push_back(std::move(any));
}

/// More sequences than a GPU has places for, the first and the last of them long: work is shared in all ways.
std::vector<Sequence> crowd(int32_t rows, size_t sequences = 182) {
  std::vector<Sequence> seqs;
  for (const int32_t n : {2070, 3100, 1300, 1025, 2048, 0}) seqs.push_back({n, rows});
  seqs.resize(sequences - 2, {17, rows});
  for (const int32_t n : {1025, 2304}) seqs.push_back({n, rows});
  return seqs;
}

const Cases cases([] {
  const DType f32 = DType::kF32, bf16 = DType::kBF16;
  for (const Dims& d : {Dims{{{1, 1}}, 1, 1, 64, 16, f32},
                        {{{15, 1}, {16, 1}, {17, 1}}, 4, 4, 8, 1, f32},
                        {{{63, 63}, {64, 1}, {65, 30}, {511, 2}}, 4, 1, 80, 16, bf16},
                        {{{511, 511}}, 4, 2, 16, 64, f32},
                        {{{129, 1}, {128, 128}, {0, 0}, {200, 7}}, 8, 1, 128, 64, bf16},
                        {{{300, 150}}, 3, 3, 33, 16, bf16},
                        {{{20'000, 1}}, 4, 1, 64, 16, bf16},
                        {{{7, 2}, {0, 3}, {40, 1}, {-1, 1}}, 4, 2, 16, 16, f32}}) {  // two are idle
    add<PagedAttention>(ops::paged_attention_table(),
                        {.params = d.params(),
                         .make = [=](Inputs& in) { return make(in, d); },
                         .outputs = {{"out", &PagedAttention::out, d.roundings()}}});
  }
  for (const DType pages : {bf16, DType::kF16, DType::kI8, DType::kFP8E4M3}) {
    std::vector<Dims> cases = {
        {{{1, 1}, {15, 1}, {16, 1}, {17, 1}, {-1, 1}, {300, 1}, {0, 1}},
         40,
         8,
         128,
         16,
         pages,
         false,
         bf16,
         1},
        {{{64, 3}, {5, 3}, {-1, 3}, {129, 3}}, 16, 8, 128, 64, pages, false, bf16, 3},
        {{{63, 63}, {65, 64}, {0, 0}, {200, 7}}, 8, 1, 64, 64, pages, false, bf16},
        {{{300, 300}, {190, 100}}, 4, 2, 128, 64, pages, false, bf16, 0, 16},
        {{{3000, 1}}, 8, 8, 128, 64, pages, false, bf16, 1},
        // more chunks than a block merges at once, and for one type of pages more spans
        {{{6000, 1}}, 2, 2, 128, 64, pages, false, bf16, 1},
        {crowd(1), 10, 2, 64, 64, pages, false, bf16, 1}};
    if (pages == bf16) cases.push_back({{{17'000, 1}}, 8, 8, 128, 64, pages, false, bf16, 1});
    const size_t first_of_gpu = cases.size();
    cases.insert(cases.end(), {{{{100'000, 1}}, 5, 1, 128, 64, pages, false, bf16, 1},
                               {{{100'000, 8}}, 2, 1, 128, 64, pages, false, bf16},
                               {{{2100, 2100}}, 2, 1, 128, 64, pages, false, bf16},
                               {crowd(1, 352), 40, 8, 128, 64, pages, false, bf16, 1}});
    for (const Dims& d : cases) {
      const bool gpu_only = &d - cases.data() >= static_cast<int64_t>(first_of_gpu);
      // Tensor cores take bf16: weights may be rounded to it, and keys and values that were unpacked.
      add<PagedAttention>(ops::paged_attention_table(),
                          {.params = d.params(),
                           .make = [=](Inputs& in) { return make(in, d); },
                           .outputs = {{"out", &PagedAttention::out, 4, 0x1p-8, magnitude}},
                           .gpu_only = gpu_only,
                           // Pages of bf16 and i8 have the same synchronisation.
                           .slow_races = gpu_only || (d.longest() > 1000 &&
                                                      (pages == DType::kF16 || pages == DType::kFP8E4M3))});
    }
  }
  for (const Dims& d : {Dims{{{4096, 1}}, 40, 8, 128, 16, bf16},
                        {std::vector<Sequence>(8, {4096, 1}), 40, 8, 128, 16, bf16},
                        {std::vector<Sequence>(8, {4096, 1}), 40, 8, 128, 16, f32},
                        {{{20'000, 1}}, 32, 4, 128, 16, bf16},
                        {std::vector<Sequence>(8, {1024, 1}), 4, 2, 64, 16, bf16},
                        {{{4096, 512}}, 16, 4, 128, 16, bf16},
                        {{{2048, 2048}}, 4, 2, 64, 16, f32}}) {
    add<PagedAttention>(ops::paged_attention_table(), {.params = d.params(),
                                                       .make = [=](Inputs& in) { return make(in, d); },
                                                       .outputs = {},
                                                       .perf = true,
                                                       .flops = 4.0 * d.pairs() * static_cast<double>(d.Dh),
                                                       .bytes = d.cache_bytes()});
  }
  // A row's bits do not depend on the batch or on the chunks (decode is a chunk of one).
  for (const Dims& d :
       {Dims{{{300, 300}, {70, 40}, {129, 1}}, 8, 2, 64, 16, bf16},
        // more blocks of queries and heads than multiprocessors
        {{{700, 700}, {300, 250}, {129, 100}}, 16, 4, 128, 64, bf16, false, bf16},
        {{{700, 700}, {300, 250}, {129, 100}}, 8, 2, 128, 64, bf16, false, bf16, 0, 16},
        {{{5, 5}, {1, 1}, {400, 3}, {17, 1}, {64, 1}, {700, 1}, {2, 2}, {129, 129}}, 4, 1, 24, 1, f32},
        {std::vector<Sequence>(8, {260, 1}), 16, 8, 128, 64, bf16}}) {
    std::vector<int64_t> all(d.seqs.size());
    std::iota(all.begin(), all.end(), 0);
    add_alone("chunks", d, all, {1, 64, 5, 129, 16});
  }
  for (const auto& [pages, rows] :
       {std::pair{bf16, 1}, {DType::kF16, 1}, {DType::kI8, 1}, {DType::kFP8E4M3, 2}}) {
    const Dims d{crowd(rows), 10, 2, 64, 64, pages, false, bf16, rows};
    add_alone("alone", d, {0, 1, 2, 3, 4, 5, 100, 180, 181}, {rows});
  }
  struct Write {
    int64_t T, H, KV, Dh;
    bool perf = false;
  };
  for (const DType pages : {f32, bf16}) {
    for (const Write& w : {Write{37, 4, 2, 20},
                           {1, 1, 1, 1},
                           {0, 1, 1, 8},
                           {300, 3, 5, 33},
                           {65, 8, 2, 128},
                           {1, 40, 8, 128, true},
                           {256, 40, 8, 128, true},
                           {2048, 4, 2, 64, true}}) {
      constexpr int64_t PS = 16;
      add<KvWrite>(ops::kv_write_table(),
                   {.params = str("T=", w.T, " H=", w.H, " KV=", w.KV, " Dh=", w.Dh, " ", name_of(pages)),
                    .make =
                        [=](Inputs& in) {
                          // Every token its slot, in an order that jumps between pages; one page more than is
                          // used.
                          const int64_t P = (w.T + PS - 1) / PS + 1;
                          std::vector<int32_t> slots;
                          for (int64_t t = 0; t < w.T; ++t)
                            slots.push_back(static_cast<int32_t>(t * 7 % (P * PS)));
                          const Tensor qkv = in.normal({w.T, w.H + 2 * w.KV, w.Dh});
                          return KvWrite{.k_pages = in.zeros({P, w.KV, PS, w.Dh}, pages),
                                         .v_pages = in.zeros({P, w.KV, PS, w.Dh}, pages),
                                         .k = qkv.slice(1, w.H, w.H + w.KV),
                                         .v = qkv.slice(1, w.H + w.KV, w.H + 2 * w.KV),
                                         .slots = in.values(slots)};
                        },
                    .outputs = {{"k_pages", &KvWrite::k_pages}, {"v_pages", &KvWrite::v_pages}},
                    .perf = w.perf,
                    .bytes = static_cast<double>(2 * w.T * w.KV * w.Dh * (4 + size_of(pages)))});
    }
  }
});

}  // namespace
}  // namespace moge::test

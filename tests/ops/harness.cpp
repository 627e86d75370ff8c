#include "ops/harness.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

namespace moge::test {

std::vector<AnyCase>& all_cases() {
  static std::vector<AnyCase> cases;
  return cases;
}

Tensor Inputs::make(DType dtype, Shape shape) {
  owned_.push_back(std::make_unique<OwnedTensor>(dtype, shape));
  return owned_.back()->get();
}

namespace {

/// Fills with value(i), repeating after a prime number of elements: big perf shapes need no more randomness.
template <class Value>
void fill_random(const Tensor& t, const Value& value) {
  constexpr int64_t kPeriod = 99'991;
  const int64_t n = t.numel();
  for (int64_t i = 0; i < std::min(n, kPeriod); ++i) set_element(t, i, value(i));
  auto* bytes = static_cast<std::byte*>(t.data);
  for (int64_t i = kPeriod; i < n; i += kPeriod)
    std::memcpy(bytes + i * size_of(t.dtype), bytes, std::min(kPeriod, n - i) * size_of(t.dtype));
}

}  // namespace

Tensor Inputs::normal(Shape shape, float scale, DType dtype) {
  const Tensor t = make(dtype, shape);
  fill_random(t, [&, r = rng()](int64_t i) { return double{scale} * r.normal(i); });
  return t;
}

Tensor Inputs::uniform(Shape shape, float low, float high) {
  const Tensor t = make(DType::kF32, shape);
  fill_random(t, [&, r = rng()](int64_t i) { return low + (high - low) * double{r.uniform(i)}; });
  return t;
}

Tensor Inputs::ints(Shape shape, int32_t low, int32_t high) {
  const Tensor t = make(DType::kI32, shape);
  Rng r = rng();
  for (int32_t& v : elements<int32_t>(t)) v = low + static_cast<int32_t>(r.next_below(high - low));
  return t;
}

namespace {

template <class T>
Tensor fill(const Tensor& t, const std::vector<T>& values) {
  std::copy(values.begin(), values.end(), t.ptr<T>());
  return t;
}

/// The flat row-major index as an element offset.
int64_t offset_of(const Tensor& t, int64_t i) {
  int64_t offset = 0;
  for (int d = t.shape.ndim() - 1; d >= 0; --d) {
    offset += i % t.dim(d) * t.stride(d);
    i /= t.dim(d);
  }
  return offset;
}

/// Every element of T, in row-major order.
template <class T, class Value>
void append(std::vector<double>& to, const Tensor& t, const Value& value) {
  const int64_t n = t.numel(), row = t.shape.ndim() > 0 ? t.dim(-1) : 1;
  const int64_t step = t.shape.ndim() > 0 ? t.stride(-1) : 1;
  for (int64_t i = 0; i < n; i += row) {
    const T* const first = t.ptr<T>() + offset_of(t, i);
    for (int64_t k = 0; k < row; ++k) to.push_back(value(first[k * step]));
  }
}

}  // namespace

Tensor Inputs::values(const std::vector<int32_t>& v) {
  return fill(make(DType::kI32, {static_cast<int64_t>(v.size())}), v);
}
Tensor Inputs::values(const std::vector<int64_t>& v) {
  return fill(make(DType::kI64, {static_cast<int64_t>(v.size())}), v);
}
Tensor Inputs::values(const std::vector<float>& v) {
  return fill(make(DType::kF32, {static_cast<int64_t>(v.size())}), v);
}
Tensor Inputs::zeros(Shape shape, DType dtype) {
  return make(dtype, shape);
}
Tensor Inputs::output(Shape shape, DType dtype) {
  const Tensor t = make(dtype, shape);
  if (t.data) std::memset(t.data, 0xff, t.bytes());  // NaN in every float format
  return t;
}

std::vector<double> to_doubles(const Tensor& t) {
  const auto number = [](auto x) { return static_cast<double>(x); };
  const auto rounded = [](auto x) { return double{to_f32(x)}; };
  std::vector<double> v;
  v.reserve(static_cast<size_t>(t.numel()));
  switch (t.dtype) {
    case DType::kF32:
      append<float>(v, t, number);
      break;
    case DType::kBF16:
      append<BF16>(v, t, rounded);
      break;
    case DType::kF16:
      append<F16>(v, t, rounded);
      break;
    case DType::kI32:
      append<int32_t>(v, t, number);
      break;
    case DType::kI64:
      append<int64_t>(v, t, number);
      break;
    case DType::kI8:
      append<int8_t>(v, t, number);
      break;
    case DType::kFP8E4M3:
      append<FP8E4M3>(v, t, rounded);
      break;
    default:
      throw Error(str("harness: cannot read ", t.str()));
  }
  return v;
}

void set_element(const Tensor& t, int64_t i, double value) {
  const int64_t at = offset_of(t, i);
  const auto x = static_cast<float>(value);
  switch (t.dtype) {
    case DType::kBF16:
      t.ptr<BF16>()[at] = to_bf16(x);
      break;
    case DType::kF16:
      t.ptr<F16>()[at] = to_f16(x);
      break;
    case DType::kI8:
      t.ptr<int8_t>()[at] = static_cast<int8_t>(std::clamp(std::nearbyint(x), -127.0F, 127.0F));
      break;
    case DType::kFP8E4M3:
      t.ptr<FP8E4M3>()[at] = to_fp8(x);
      break;
    default:
      t.ptr<float>()[at] = x;
  }
}

std::string compare(const char* name, const std::vector<double>& got, const std::vector<double>& ref,
                    double roundings, double eps, const std::vector<double>& magnitude) {
  if (got.size() != ref.size()) return str(name, ": ", got.size(), " elements, reference has ", ref.size());
  double rms = 0;
  for (const double r : ref)
    if (std::isfinite(r)) rms += r * r;
  rms = std::sqrt(rms / std::max<double>(1, static_cast<double>(ref.size())));
  double worst = 0;
  size_t worst_idx = 0;
  for (size_t i = 0; i < ref.size(); ++i) {
    if (std::isnan(got[i]) != std::isnan(ref[i]) || std::isinf(got[i]) != std::isinf(ref[i]))
      return str(name, "[", i, "]: got ", got[i], ", reference ", ref[i]);
    if (!std::isfinite(ref[i]) || got[i] == ref[i]) continue;
    const double bound =
        roundings * eps * (magnitude.empty() ? std::max(std::abs(ref[i]), rms) : magnitude[i]);
    const double excess = std::abs(got[i] - ref[i]) / std::max(bound, std::numeric_limits<double>::min());
    if (excess > worst) {
      worst = excess;
      worst_idx = i;
    }
  }
  if (worst <= 1) return "";
  return str(name, "[", worst_idx, "] of ", ref.size(), ": got ", got[worst_idx], ", reference ",
             ref[worst_idx], ", ", worst, " times the bound");
}

std::string same_bits(const char* name, const Tensor& a, const Tensor& b) {
  if (a.numel() == 0) return "";
  if (a.is_contiguous() && b.is_contiguous() && std::memcmp(a.data, b.data, a.bytes()) == 0) return "";
  for (int64_t i = 0; i < a.numel(); ++i) {
    const auto at = [&](const Tensor& t) {
      return static_cast<std::byte*>(t.data) + offset_of(t, i) * size_of(t.dtype);
    };
    if (std::memcmp(at(a), at(b), size_of(a.dtype)) != 0)
      return str(name, "[", i, "]: the bits of two runs differ");
  }
  return "";
}

double median_seconds(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  run();
  std::vector<double> times;
  const auto start = Clock::now();
  while (times.size() < 5 ||
         (Clock::now() - start < std::chrono::milliseconds(300) && times.size() < 10'000)) {
    const auto t0 = Clock::now();
    run();
    times.push_back(std::chrono::duration<double>(Clock::now() - t0).count());
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size()) / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace moge::test

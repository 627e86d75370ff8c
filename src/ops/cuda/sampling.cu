#include "ops/cuda/sampling.h"

#include <algorithm>

#include "core/match.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sampling_row.cuh"

namespace moge::ops::cuda {

namespace {

/// The largest cluster that every device takes, and the largest that Hopper does: for few requests, twice the
/// multiprocessors for each.
constexpr int kCluster = 8, kLargeCluster = 16;
constexpr int64_t kFewRequests = 4;

template <int kBlocks>
__global__ void __launch_bounds__(kSampleThreads, kBlocks == kCluster ? 2 : 1)
    sampling_kernel(const SamplingParams p) {
  extern __shared__ __align__(16) std::byte memory[];
  using Shared = typename SamplingRow<kBlocks>::Shared;
  auto& shared = *reinterpret_cast<Shared*>(memory);
  let_next_start();
  wait_for_previous();
  SamplingRow<kBlocks>(p, reinterpret_cast<float*>(memory + sizeof(Shared)), shared).run();
}

int64_t slice_of(int64_t vocab, int64_t blocks) {
  return (vocab + blocks * 4 - 1) / (blocks * 4) * 4;
}
template <int kBlocks>
int64_t shared_bytes(int64_t vocab) {
  return static_cast<int64_t>(sizeof(typename SamplingRow<kBlocks>::Shared)) +
         slice_of(vocab, kBlocks) * size_of(DType::kF32);
}

Refusal supports(const Sampling& a) {
  constexpr int64_t kMaxShared = 227 * 1024, kLogitBytes = 4;
  constexpr int64_t kRoom = kMaxShared - static_cast<int64_t>(sizeof(SamplingRow<kCluster>::Shared));
  constexpr int64_t kMostTokens = kRoom / (4 * kLogitBytes) * 4 * kCluster;  // slices are of fours
  const int64_t V = a.logits.dim(1);
  return V <= kMostTokens
             ? ""
             : str("a vocabulary of ", V, ": expected at most ", kMostTokens,
                   " tokens, whose logits fit in the shared memory of ", kCluster, " multiprocessors");
}

/// 45 bits, or fewer when more than 2^18 weights could overflow.
int weight_bits(int64_t vocab) {
  int bits = 63;
  for (int64_t n = 1; n < vocab; n *= 2) --bits;
  return std::min(bits, 45);
}

template <class T>
T* data(const Tensor& t) {
  return t ? t.ptr<T>() : nullptr;
}

template <int kBlocks>
void run_on(ExecContext& ctx, const Sampling& a) {
  const int64_t B = a.logits.dim(0), V = a.logits.dim(1);
  const auto stride = [](const Tensor& t) { return t ? t.stride(0) : 0; };
  const SamplingParams p{.tokens = data<int32_t>(a.tokens),
                         .logprobs = data<float>(a.logprobs),
                         .logits = data<float>(a.logits),
                         .temperature = data<float>(a.temperature),
                         .top_p = data<float>(a.top_p),
                         .min_p = data<float>(a.min_p),
                         .repetition = data<float>(a.repetition_penalty),
                         .presence = data<float>(a.presence_penalty),
                         .frequency = data<float>(a.frequency_penalty),
                         .top_k = data<int32_t>(a.top_k),
                         .counts = data<int32_t>(a.output_counts),
                         .prompt = data<uint8_t>(a.prompt_mask),
                         .seeds = data<int64_t>(a.seeds),
                         .steps = data<int64_t>(a.steps),
                         .logits_stride = stride(a.logits),
                         .counts_stride = stride(a.output_counts),
                         .prompt_stride = stride(a.prompt_mask),
                         .vocab = narrow(V, "sampling: vocabulary"),
                         .slice = narrow(slice_of(V, kBlocks), "sampling: slice"),
                         .weight_bits = weight_bits(V)};
  launch(ctx, "sampling", sampling_kernel<kBlocks>,
         {.grid = static_cast<unsigned>(B * kBlocks),
          .block = kSampleThreads,
          .shared_bytes = narrow(shared_bytes<kBlocks>(V), "sampling: shared memory"),
          .cluster = kBlocks},
         p);
}

void run(ExecContext& ctx, const Sampling& a, std::span<std::byte>) {
  const int64_t B = a.logits.dim(0);
  if (B > 0 && B <= kFewRequests)
    run_on<kLargeCluster>(ctx, a);
  else if (B > 0)
    run_on<kCluster>(ctx, a);
}

}  // namespace

std::vector<Impl<Sampling>> sampling_impls() {
  return {{"cuda.cluster", DeviceKind::kCuda, supports, run}};
}

}  // namespace moge::ops::cuda

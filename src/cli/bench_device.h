// Benchmarks of serving on a GPU: what `moge bench decode | prefill | serve-like | llama | ops` run there.
#pragma once
#include <cstdint>

#include "cli/served_model.h"

namespace moge::cli {

/// Of each of them.
struct DeviceBenchOptions {
  ModelOptions model;
  int64_t layers = 0;  ///< 0: all
  bool json = false;
};

/// Lengths of the sequences of a decode benchmark, in tokens.
struct DecodeLengths {
  int64_t first;    ///< cached before the first step
  int64_t longest;  ///< cached after the last timed one
  int64_t mean;     ///< that the timed steps attend to
};
/// The steps that are timed, after `warm_up` others, lie around `context`; behind it where that many do not
/// fit before it.
DecodeLengths decode_lengths(int64_t context, int64_t warm_up, int64_t steps);

/// Steps of `batch` sequences that hold `context` tokens each, the mean of the timed steps.
struct DecodeBench {
  int64_t batch = 1;
  int64_t context = 2048;
  int64_t steps = 64;  ///< timed
  bool profile = false;
  bool eager = false;  ///< op by op, not as a graph
};
void bench_device_decode(const DeviceBenchOptions& options, const DecodeBench& bench);

/// `batch` prompts of `context` tokens in one pass.
struct PrefillBench {
  int64_t batch = 1;
  int64_t context = 2048;
  int64_t passes = 8;  ///< timed
  bool profile = false;
};
void bench_device_prefill(const DeviceBenchOptions& options, const PrefillBench& bench);

/// `clients`, each with its next request as soon as the last is answered: prompts of `prompt_tokens`, answers
/// of half to one and a half times `answer_tokens`, prefill passes between decode steps.
struct ServeBench {
  int64_t clients = 16;
  int64_t prompt_tokens = 1024;
  int64_t answer_tokens = 128;
  int64_t requests = 64;  ///< in all
};
void bench_device_serve(const DeviceBenchOptions& options, const ServeBench& bench);

/// One sequence: a prompt of 512 tokens (pp512), and 128 tokens generated from nothing (tg128), as
/// llama-bench reports; the medians of `repeats`.
void bench_device_llama(const DeviceBenchOptions& options, int64_t repeats);

/// The operators of one layer and of a step's ends, alone, over numbers of tokens: time, GB/s, TFLOP/s.
/// Attention over a context of `context` tokens, 0: over several. The JSON is what the simulator takes as
/// measured operators (docs/sim.md).
void bench_device_ops(const DeviceBenchOptions& options, int64_t context);

}  // namespace moge::cli

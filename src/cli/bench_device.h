// Benchmarks of serving on a GPU: what `moge bench decode | prefill | ops` run when there is one.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "cli/served_model.h"

namespace moge::cli {

struct DeviceBenchOptions {
  ModelOptions model;
  int64_t layers = 0;  ///< 0: all
  int64_t batch = 1;   ///< sequences
  int64_t context = 2048;
  int64_t steps =
      64;  ///< decode: timed steps; prefill: timed passes; serve-like: tokens of an answer, the mean
  int64_t requests = 64;  ///< serve-like
  bool profile = false;
  bool eager = false;
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

/// A step of `batch` sequences that hold `context` tokens each, the mean of the timed steps.
void bench_device_decode(const DeviceBenchOptions& options);
/// `batch` prompts of `context` tokens in one pass.
void bench_device_prefill(const DeviceBenchOptions& options);
/// `batch` clients, each with its next request as soon as the last is answered: prompts of `context` tokens,
/// answers of half to one and a half times `steps` tokens, prefill passes between decode steps.
void bench_device_serve(const DeviceBenchOptions& options);
/// One sequence: a prompt of 512 tokens (pp512), and 128 tokens generated from nothing (tg128), as
/// llama-bench reports.
void bench_device_llama(const DeviceBenchOptions& options);
/// The operators of one layer and of a step's ends, alone, over numbers of tokens: time, GB/s, TFLOP/s.
/// The JSON is what the simulator takes as measured operators (docs/sim.md).
void bench_device_ops(const DeviceBenchOptions& options);

}  // namespace moge::cli

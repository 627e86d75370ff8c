// The requests that a serving simulation runs: made up from an arrival process and length distributions, or
// read from a file.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moge::sim {

struct Request {
  double arrival_s = 0;
  int64_t input_tokens = 1;
  int64_t output_tokens = 1;  ///< the first one comes from the prompt's last step
};

/// Log-normal with this mean and coefficient of variation (standard deviation / mean), rounded to whole
/// tokens, at least 1. cv = 0: always the mean.
struct LengthDistribution {
  double mean = 1;
  double cv = 0;
};

struct SyntheticTrace {
  int64_t requests = 1000;
  double requests_per_s = 1;
  /// Shape of the gamma-distributed gaps between arrivals, whose coefficient of variation is 1 / sqrt(shape):
  /// 1 is a Poisson process, less is burstier, more is more even. (vLLM's bench calls it burstiness as well.)
  double burstiness = 1;
  LengthDistribution input{2048, 0};
  LengthDistribution output{512, 0};
  uint64_t seed = 0;
};

/// Throws UsageError for sizes or rates that are not positive and finite.
std::vector<Request> make_trace(const SyntheticTrace& setup);

/// A .csv file with a header line, or JSON lines. Columns or keys: timestamp, input_tokens (or input_length),
/// output_tokens (or output_length); others are ignored. `timestamps_per_s`: 1 for seconds, 1000 for
/// milliseconds. The first request arrives at 0. Throws FileError, with the line: no requests, timestamps
/// that go back, counts below 1, anything missing or malformed.
std::vector<Request> read_trace(const std::filesystem::path& file, double timestamps_per_s);
/// The same from memory. `source` names the text in errors.
std::vector<Request> parse_trace_csv(std::string_view text, const std::string& source,
                                     double timestamps_per_s);
std::vector<Request> parse_trace_jsonl(std::string_view text, const std::string& source,
                                       double timestamps_per_s);

}  // namespace moge::sim

// Speculative decoding as flags and files spell it: K,ACCEPT.
#pragma once
#include <cstdint>
#include <string>

namespace moge::sim {

struct Speculation {
  int64_t draft_tokens = 0;  ///< K, verified in a step
  double acceptance = 0;     ///< the probability that one is right if those before it were
};

/// UsageError unless `text` is a whole number from 1 to 16 and a probability, with a comma between.
Speculation parse_speculation(const std::string& text);

}  // namespace moge::sim

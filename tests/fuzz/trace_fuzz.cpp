// Any bytes are either refused with a FileError or a trace that a scheduler can take: in order of arrival,
// with whole, positive counts. The first byte chooses the format.
#include <cmath>
#include <cstdlib>

#include "core/error.h"
#include "sim/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moge::sim;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<Request> trace;
  try {
    trace = data[0] % 2 == 0 ? parse_trace_csv(text, "fuzz", 1) : parse_trace_jsonl(text, "fuzz", 1000);
  } catch (const moge::FileError&) {
    return 0;
  }
  if (trace.empty() || trace[0].arrival_s != 0) std::abort();
  double last = 0;
  for (const Request& r : trace) {
    if (!std::isfinite(r.arrival_s) || r.arrival_s < last || r.input_tokens < 1 || r.output_tokens < 1)
      std::abort();
    last = r.arrival_s;
  }
  return 0;
}

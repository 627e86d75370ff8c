#include "sim/trace.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/nearest.h"
#include "core/rng.h"

namespace moge::sim {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 40;  // sums of a trace's tokens stay far from overflow
constexpr int64_t kMaxRequests = 100'000'000;
constexpr double kMaxSeconds = 1e12;

/// Gamma with the given shape and mean 1 (Marsaglia and Tsang 2000).
class GammaGaps {
 public:
  GammaGaps(double shape, uint64_t seed) : shape_(shape), normals_(seed, 1), uniforms_(seed, 2) {}

  double next() {
    // Below shape 1: a gamma of shape + 1, times u^(1 / shape).
    const double boost = shape_ < 1 ? std::pow(uniform(), 1 / shape_) : 1;
    const double d = (shape_ < 1 ? shape_ + 1 : shape_) - 1.0 / 3;
    const double c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normals_.normal(draws_++);
      const double v = std::pow(1 + c * x, 3);
      if (v > 0 && std::log(uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
        return d * v * boost / shape_;
    }
  }

 private:
  double uniform() { return 1.0 - uniforms_.next_uniform(); }  // never 0
  double shape_;
  Rng normals_, uniforms_;
  uint64_t draws_ = 0;
};

/// Value i of a log-normal distribution with the given mean and cv.
int64_t length(const LengthDistribution& d, const Rng& rng, uint64_t i) {
  const double variance = std::log1p(d.cv * d.cv);  // of the logarithm
  const double log_value = std::log(d.mean) - variance / 2 + std::sqrt(variance) * rng.normal(i);
  return std::clamp<int64_t>(std::llround(std::exp(std::min(log_value, 27.0))), 1, kMaxTokens);
}

void check_positive(double value, double max, const char* what) {
  check<UsageError>(value > 0 && value <= max, what, ": expected a positive number of at most ", max,
                    ", got ", value);
}

/// Appends requests in the order of a file and checks each.
class TraceBuilder {
 public:
  TraceBuilder(std::string source, double timestamps_per_s)
      : source_(std::move(source)), per_second_(timestamps_per_s) {}

  void add(int64_t line, double timestamp, int64_t input, int64_t output) {
    const auto where = [&] { return str(source_, ":", line); };
    const double seconds = timestamp / per_second_;
    check<FileError>(std::abs(seconds) <= kMaxSeconds, where(), ": timestamp ", timestamp,
                     " is out of range");
    if (trace_.empty()) first_ = seconds;
    const double arrival = seconds - first_;
    check<FileError>(trace_.empty() || arrival >= trace_.back().arrival_s, where(), ": timestamp ", timestamp,
                     " is before that of the request above; sort the trace by timestamp");
    for (const auto& [name, tokens] : {std::pair{"input", input}, {"output", output}})
      check<FileError>(tokens >= 1 && tokens <= kMaxTokens, where(), ": ", name, " tokens: expected 1 to ",
                       kMaxTokens, ", got ", tokens);
    trace_.push_back({arrival, input, output});
  }

  std::vector<Request> finish() {
    check<FileError>(!trace_.empty(), source_, ": no requests; expected one a line");
    return std::move(trace_);
  }

 private:
  std::string source_;
  double per_second_;
  double first_ = 0;
  std::vector<Request> trace_;
};

/// Calls fn(line number, text) for each line that is not blank.
void for_each_line(std::string_view text, const std::function<void(int64_t, std::string_view)>& fn) {
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.find_first_not_of(" \t") != std::string_view::npos) fn(number, line);
  }
}

std::vector<std::string_view> cells(std::string_view line) {
  std::vector<std::string_view> out;
  for (;;) {
    const size_t comma = line.find(',');
    std::string_view cell = line.substr(0, comma);
    const size_t begin = std::min(cell.find_first_not_of(" \t\""), cell.size());
    cell = cell.substr(begin, cell.find_last_not_of(" \t\"") + 1 - begin);
    out.push_back(cell);
    if (comma == std::string_view::npos) return out;
    line.remove_prefix(comma + 1);
  }
}

template <class Number>
Number parse_number(std::string_view text, const std::string& where, const char* what) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool good = error == std::errc{} && end == text.data() + text.size();
  if constexpr (std::is_floating_point_v<Number>) good = good && std::isfinite(value);
  check<FileError>(good, where, ": ", what, ": expected a ", std::is_integral_v<Number> ? "whole " : "",
                   "number, got '", text, "'");
  return value;
}

/// The two spellings of a column: ours, and that of the Mooncake traces.
struct Column {
  std::array<const char*, 2> names;
};
constexpr Column kTimestamp{{"timestamp", "timestamp_s"}};
constexpr Column kInput{{"input_tokens", "input_length"}};
constexpr Column kOutput{{"output_tokens", "output_length"}};

size_t find_column(const std::vector<std::string_view>& header, const Column& column,
                   const std::string& source) {
  for (size_t i = 0; i < header.size(); ++i)
    for (const char* name : column.names)
      if (header[i] == name) return i;
  const std::vector<std::string> names(header.begin(), header.end());
  throw FileError(str(source, ":1: no column '", column.names[0], "'", did_you_mean(column.names[0], names)));
}

}  // namespace

std::vector<Request> make_trace(const SyntheticTrace& s) {
  check<UsageError>(s.requests >= 1 && s.requests <= kMaxRequests, "requests: expected 1 to ", kMaxRequests,
                    ", got ", s.requests);
  check_positive(s.requests_per_s, 1e9, "requests per second");
  check_positive(s.burstiness, 1e6, "burstiness");
  for (const LengthDistribution& d : {s.input, s.output}) {
    check_positive(d.mean, 1e9, "mean tokens");
    check<UsageError>(d.cv >= 0 && d.cv <= 100, "coefficient of variation: expected 0 to 100, got ", d.cv);
  }
  std::vector<Request> trace(static_cast<size_t>(s.requests));
  GammaGaps gaps(s.burstiness, s.seed);
  const Rng inputs(s.seed, 3), outputs(s.seed, 4);
  double clock = 0;
  for (uint64_t i = 0; i < trace.size(); ++i) {
    if (i > 0) clock += gaps.next() / s.requests_per_s;
    trace[i] = {clock, length(s.input, inputs, i), length(s.output, outputs, i)};
  }
  return trace;
}

std::vector<Request> parse_trace_csv(std::string_view text, const std::string& source,
                                     double timestamps_per_s) {
  TraceBuilder trace(source, timestamps_per_s);
  std::optional<std::array<size_t, 3>> columns;
  size_t width = 0;
  for_each_line(text, [&](int64_t number, std::string_view line) {
    const std::vector<std::string_view> row = cells(line);
    if (!columns) {
      columns = {find_column(row, kTimestamp, source), find_column(row, kInput, source),
                 find_column(row, kOutput, source)};
      width = row.size();
      return;
    }
    const std::string where = str(source, ":", number);
    check<FileError>(row.size() == width, where, ": ", row.size(), " cells below a header of ", width);
    trace.add(number, parse_number<double>(row[(*columns)[0]], where, kTimestamp.names[0]),
              parse_number<int64_t>(row[(*columns)[1]], where, kInput.names[0]),
              parse_number<int64_t>(row[(*columns)[2]], where, kOutput.names[0]));
  });
  return trace.finish();
}

std::vector<Request> parse_trace_jsonl(std::string_view text, const std::string& source,
                                       double timestamps_per_s) {
  TraceBuilder trace(source, timestamps_per_s);
  for_each_line(text, [&](int64_t number, std::string_view line) {
    const std::string where = str(source, ":", number);
    const nlohmann::json value = parse_json(line, where);
    JsonObject object(value, where);
    const auto key = [&](const Column& c) { return object.has(c.names[1]) ? c.names[1] : c.names[0]; };
    const auto tokens = [&](const Column& c) { return object.require(object.integer(key(c)), key(c)); };
    trace.add(number, object.require(object.number(key(kTimestamp)), key(kTimestamp)), tokens(kInput),
              tokens(kOutput));
  });
  return trace.finish();
}

std::vector<Request> read_trace(const std::filesystem::path& file, double timestamps_per_s) {
  const std::string text = read_text_file(file, int64_t{4} << 30);
  const bool csv = file.extension() == ".csv";
  return (csv ? parse_trace_csv : parse_trace_jsonl)(text, file.string(), timestamps_per_s);
}

}  // namespace moge::sim

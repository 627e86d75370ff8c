#include "engine/op_profile.h"

#include <algorithm>

#include "core/error.h"

namespace moge::engine {

void OpProfile::before(const char* op) {
  spans_.push_back({op, backend_.make_event(), backend_.make_event()});
  spans_.back().begin->record();
}

void OpProfile::after(const char* /*op*/) {
  spans_.back().end->record();
}

std::vector<double> OpProfile::call_seconds() {
  std::vector<double> seconds;
  for (const Span& s : spans_) seconds.push_back(s.end->seconds_since(*s.begin));
  return seconds;
}

double OpProfile::pass_seconds() {
  return spans_.empty() ? 0 : spans_.back().end->seconds_since(*spans_.front().begin);
}

std::vector<OpProfile::Line> OpProfile::lines(const std::vector<double>& seconds) const {
  dcheck(seconds.size() == spans_.size(), "seconds of ", seconds.size(), " calls: expected ", spans_.size());
  std::vector<Line> lines;
  for (size_t i = 0; i < spans_.size(); ++i) {
    const char* op = spans_[i].op;
    auto line = std::ranges::find(lines, op, &Line::op);
    if (line == lines.end()) line = lines.insert(lines.end(), {op});
    line->call_seconds.push_back(seconds[i]);
    line->seconds += seconds[i];
  }
  std::ranges::sort(lines, std::greater{}, &Line::seconds);
  return lines;
}

double OpProfile::event_seconds() {
  std::vector<double> gaps;
  for (size_t i = 1; i < spans_.size(); ++i)
    gaps.push_back(spans_[i].begin->seconds_since(*spans_[i - 1].end));
  if (gaps.empty()) return 0;
  std::ranges::nth_element(gaps, gaps.begin() + std::ssize(gaps) / 2);
  return gaps[gaps.size() / 2];
}

}  // namespace moge::engine

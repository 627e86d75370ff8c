#include "engine/op_profile.h"

#include <algorithm>

namespace moge::engine {

void OpProfile::before(const char* op) {
  spans_.push_back({op, backend_.make_event(), backend_.make_event()});
  spans_.back().begin->record();
}

void OpProfile::after(const char* /*op*/) {
  spans_.back().end->record();
}

std::vector<OpProfile::Line> OpProfile::lines() {
  std::vector<Line> lines;
  for (Span& s : spans_) {
    auto line = std::ranges::find(lines, s.op, &Line::op);
    if (line == lines.end()) line = lines.insert(lines.end(), {s.op});
    line->call_seconds.push_back(s.end->seconds_since(*s.begin));
    line->seconds += line->call_seconds.back();
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

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
    ++line->calls;
    line->seconds += s.end->seconds_since(*s.begin);
  }
  std::ranges::sort(lines, std::greater{}, &Line::seconds);
  return lines;
}

}  // namespace moge::engine

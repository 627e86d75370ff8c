#include "core/nearest.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <vector>

#include "core/str.h"

namespace moge {
namespace {

/// Levenshtein distance, or `limit` when it is at least that.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit) {
  const size_t length_gap = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (length_gap >= limit) return limit;
  std::vector<size_t> row(b.size() + 1);  // row[j]: distance of a[0, i) to b[0, j)
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    size_t smallest = row[0];
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
      smallest = std::min(smallest, row[j]);
    }
    if (smallest >= limit) return limit;
  }
  return std::min(row[b.size()], limit);
}

}  // namespace

std::string nearest(std::string_view name, std::span<const std::string> candidates) {
  size_t best = name.size() / 3 + 1;
  std::string found;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate, best);
    if (distance >= best) continue;
    best = distance;
    found = candidate;
  }
  return found;
}

std::string did_you_mean(std::string_view name, std::span<const std::string> candidates) {
  const std::string found = nearest(name, candidates);
  return found.empty() ? "" : str("; did you mean '", found, "'?");
}

std::string did_you_mean_one_of(std::string_view name, std::span<const std::string> candidates) {
  std::string text = did_you_mean(name, candidates);
  if (!text.empty() || candidates.empty()) return text;
  text = "; there are ";
  for (const std::string& candidate : candidates) text += str("'", candidate, "', ");
  text.resize(text.size() - 2);
  return text;
}

}  // namespace moge

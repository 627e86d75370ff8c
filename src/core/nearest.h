// "did you mean ...?" for misspelt flags, keys and tensor names.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace moge {

/// The candidate with the smallest edit distance to `name` (the first on ties), or "" when none is close:
/// more than a third of the characters would have to change.
std::string nearest(std::string_view name, std::span<const std::string> candidates);

/// "; did you mean 'CANDIDATE'?", or "" when nothing is near.
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);
/// The same of few candidates, which are all named where nothing is near: "; there are 'A', 'B'".
std::string did_you_mean_one_of(std::string_view name, std::span<const std::string> candidates);

}  // namespace moge

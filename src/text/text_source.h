// A stream of texts to train on.
#pragma once
#include <functional>
#include <string>

namespace moge::text {

/// Puts the next text (a line, a paragraph, a document) into its argument; false when there are no more.
using TextSource = std::function<bool(std::string& text)>;

}  // namespace moge::text

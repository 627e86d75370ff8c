// Filters of lists, dicts and strings as sequences; find_filter() searches them.
#pragma once
#include <vector>

#include "text/jinja_builtins.h"

namespace moge::text::jinja {

const std::vector<Builtin>& sequence_filters();

}  // namespace moge::text::jinja

// A template's source as a tree.
#pragma once
#include <string_view>

#include "text/jinja_ast.h"

namespace moge::text::jinja {

/// Throws TemplateError with the line, also for what Jinja has and this subset lacks (include, extends,
/// recursive loops, unknown filters and tests).
Body parse(std::string_view source);

}  // namespace moge::text::jinja

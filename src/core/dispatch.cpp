#include "core/dispatch.h"

#include <cstdlib>
#include <map>

#include "core/log.h"

namespace moge {

namespace {

std::map<std::string, ForcedImpl> parse_forced() {
  std::map<std::string, ForcedImpl> forced;
  const char* env = std::getenv("MOGE_IMPL");
  std::istringstream in(env ? env : "");
  for (std::string item; std::getline(in, item, ',');) {
    const size_t colon = item.find(':');
    const std::string name = item.substr(colon == std::string::npos ? 0 : colon + 1);
    check<UsageError>(!name.empty(), "MOGE_IMPL: expected op:implementation, got '", item, "'");
    forced[colon == std::string::npos ? "" : item.substr(0, colon)] = {name, colon == std::string::npos};
  }
  return forced;
}

}  // namespace

const ForcedImpl& forced_impl(const std::string& op) {
  static const std::map<std::string, ForcedImpl> forced = parse_forced();
  static const ForcedImpl none;
  auto it = forced.find(op);
  if (it == forced.end()) it = forced.find("");
  return it == forced.end() ? none : it->second;
}

bool verbose_dispatch() {
  static const bool on = [] {
    const char* env = std::getenv("MOGE_VERBOSE");
    return env && std::string(env).find("dispatch") != std::string::npos;
  }();
  return on;
}

bool sync_every_op() {
  static const bool on = [] {
    const char* env = std::getenv("MOGE_CUDA_SYNC");
    return env && std::string(env) == "1";
  }();
  return on;
}

void log_dispatch(const std::string& message) {
  log_info("dispatch: ", message);
}

void throw_unsupported(const char* op, const std::vector<std::string>& refusals) {
  std::string all;
  for (const std::string& r : refusals) all += "\n  " + r;
  throw ShapeError(str(op, ": no implementation ",
                       forced_impl(op).name.empty() ? "supports these arguments" : "named by MOGE_IMPL fits",
                       all));
}

}  // namespace moge

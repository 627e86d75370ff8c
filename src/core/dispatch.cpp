#include "core/dispatch.h"

#include <cstdlib>

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

const std::map<std::string, ForcedImpl>& forced_impls() {
  static const std::map<std::string, ForcedImpl> forced = parse_forced();
  return forced;
}

const ForcedImpl& forced_impl(const std::string& op) {
  static const ForcedImpl none;
  const std::map<std::string, ForcedImpl>& forced = forced_impls();
  auto it = forced.find(op);
  if (it == forced.end()) it = forced.find("");
  return it == forced.end() ? none : it->second;
}

bool verbose_dispatch() {
  static const bool on = [] {
    const char* env = std::getenv("MOGE_VERBOSE");
    const std::string name = env ? env : "";
    const bool of_flag = name.empty() || name == "0" || name == "1" || name == "false" || name == "true";
    check<UsageError>(of_flag || name == "dispatch", "MOGE_VERBOSE: expected dispatch, got '", name, "'");
    return !of_flag;
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
  const auto& [forced, if_there_is] = forced_impl(op);
  check<UsageError>(forced.empty() || if_there_is || !refusals.empty(), "MOGE_IMPL: ", op,
                    " has no implementation '", forced, "' on this device");
  std::string all;
  for (const std::string& r : refusals) all += "\n  " + r;
  throw ShapeError(str(op, ": no implementation ",
                       forced.empty() ? "supports these arguments" : "named by MOGE_IMPL fits", all));
}

}  // namespace moge

// str(...): concatenates its arguments into one string (g++ 12 has no <format>).
#pragma once
#include <ostream>
#include <sstream>
#include <string>

namespace moge {

template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace moge

// str(...): concatenates its arguments into one string (g++ 12 has no <format>).
#pragma once
#include <iomanip>
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

/// "3.14" of pi and 2 digits.
inline std::string rounded(double value, int digits) {
  return str(std::fixed, std::setprecision(digits), value);
}

}  // namespace moge

#include "sim/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/str.h"

namespace moge::sim {
namespace {

std::string csv_cell(const std::string& cell) {
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string out;
  for (const char c : cell) out.append(c == '"' ? 2 : 1, c);
  return str('"', out, '"');
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string out;
  for (const std::string& cell : cells) out += str(&cell == cells.data() ? "" : ",", csv_cell(cell));
  return out + "\r\n";
}

}  // namespace

std::string number_text(double value, int significant) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size < 1e-4 || size >= 1e15) {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "%.*e", significant - 1, value);
    return text.data();
  }
  const int whole_digits = static_cast<int>(std::floor(std::log10(size))) + 1;  // <= 0 below 1
  return fixed_text(value, std::clamp(significant - whole_digits, 0, 8));
}

std::string fixed_text(double value, int decimals) {
  std::array<char, 340> buffer{};  // the largest double has 309 digits
  std::snprintf(buffer.data(), buffer.size(), "%.*f", std::clamp(decimals, 0, 20), value);
  std::string text = buffer.data();
  const size_t first_digit = text[0] == '-' ? 1 : 0;
  for (size_t at = std::min(text.find('.'), text.size()); at > first_digit + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string csv(const Table& table) {
  std::string out = csv_line(table.columns);
  for (const std::vector<std::string>& row : table.rows) out += csv_line(row);
  return out;
}

}  // namespace moge::sim

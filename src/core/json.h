// JSON from files that may be broken or hostile: bounded depth, no duplicate keys, typed access; every
// complaint is a FileError with the source, the position or key, what was expected and what was found.
#pragma once
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace moge {

/// Parses exactly one JSON value. `source` names the text in errors, with line and column.
nlohmann::json parse_json(std::string_view text, const std::string& source, int max_depth = 64);

/// The value as one line of at most about `max_chars` characters, for error messages.
std::string json_excerpt(const nlohmann::json& value, size_t max_chars = 60);

/// Checked access to the members of one JSON object. A member that is null counts as absent. Remembers which
/// keys were asked for, so that the caller can refuse or report the others.
class JsonObject {
 public:
  /// Throws FileError unless `value` is an object. It must outlive this. `where` begins every message.
  JsonObject(const nlohmann::json& value, std::string where);

  const std::string& where() const { return where_; }
  bool has(const std::string& key);
  /// Null when absent.
  const nlohmann::json* find(const std::string& key);

  /// These return nothing for an absent key and throw FileError for another type or a value out of range.
  std::optional<int64_t> integer(const std::string& key, int64_t min = std::numeric_limits<int64_t>::min(),
                                 int64_t max = std::numeric_limits<int64_t>::max());
  std::optional<double> number(const std::string& key, double min = -std::numeric_limits<double>::infinity(),
                               double max = std::numeric_limits<double>::infinity());
  std::optional<bool> boolean(const std::string& key);
  std::optional<std::string> text(const std::string& key);

  /// Throws FileError naming the key and, if there is one, the nearest key that the object does have.
  [[noreturn]] void throw_missing(const std::string& key) const;
  [[noreturn]] void throw_wrong(const std::string& key, const std::string& expected) const;
  /// `key` must be present.
  template <class T>
  T require(const std::optional<T>& value, const std::string& key) const {
    if (!value) throw_missing(key);
    return *value;
  }

  /// Keys present, not null, and never asked for, in the object's order.
  std::vector<std::string> unread() const;
  /// Throws FileError for the first unread key, naming the nearest of those that were asked for: call it when
  /// all known keys have been.
  void refuse_unread() const;

 private:
  const nlohmann::json& object_;
  std::string where_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace moge

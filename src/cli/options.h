// The options of one sub-command, declared once: a struct lists its members in options(), and from that list
// come flags, environment twins, ranges, help and JSON. A flag wins over its environment twin, which wins
// over the default (the member's initial value).
//
//   struct EncodeOptions {
//     std::filesystem::path model;
//     bool json = false;
//     std::vector<Option> options() {
//       return {{.name = "MODEL", .target = &model, .help = "folder of the tokenizer"},
//               {.name = "json", .target = &json, .help = "print a JSON array"}};
//     }
//   };
#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/dtype.h"

namespace moge::cli {

/// One flag, or with a name in capitals one positional argument, bound to the member that it sets.
struct Option {
  using Target = std::variant<bool*, int64_t*, double*, std::string*, std::filesystem::path*, DType*,
                              std::vector<std::string>*, std::optional<std::string>*, std::optional<int64_t>*,
                              std::optional<double>*>;
  std::string name;        ///< "max-tokens" (its twin: MOGE_MAX_TOKENS), or "MODEL"
  char letter = 0;         ///< 'p' for -p
  Target target;           ///< bool: a switch; a list: the flag may be repeated
  std::string value = "";  ///< what the help calls the value: "N"
  std::string help = "";   ///< no full stop
  bool required = false;   ///< of flags; an argument is required unless its target is optional or a list
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  ///< of strings and dtypes; empty: any

  bool is_argument() const { return name[0] >= 'A' && name[0] <= 'Z'; }
  std::string twin() const;  ///< "MOGE_MAX_TOKENS"
};

/// `front`, then `back`.
std::vector<Option> joined(std::vector<Option> front, std::vector<Option> back);

/// Sets the targets from the words behind the sub-command and from the environment. Returns false, with
/// nothing set, if --help (-h) is among the words. UsageError: an unknown flag (naming the nearest), a
/// missing or surplus argument, a value of the wrong form or out of range; it names the flag or variable at
/// fault.
bool parse_options(const std::vector<Option>& options, std::span<const std::string> words);

/// "MODEL [-p TEXT] ...": the arguments and required flags.
std::string synopsis(const std::vector<Option>& options);
/// One entry per option: flag, value, help, default.
std::string options_help(const std::vector<Option>& options);
/// The values as they stand, a JSON object in text.
std::string options_json(const std::vector<Option>& options);

}  // namespace moge::cli

#include "cli/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/json_text.h"
#include "core/error.h"
#include "core/nearest.h"

namespace moge::cli {

namespace {

constexpr int kHelpColumn = 28;
constexpr int kHelpWidth = 100;

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

std::string flag_of(const Option& o) {
  return o.is_argument() ? o.name : "--" + o.name;
}

bool is_switch(const Option& o) {
  return std::holds_alternative<bool*>(o.target);
}

bool is_list(const Option& o) {
  return std::holds_alternative<std::vector<std::string>*>(o.target);
}

bool is_required(const Option& o) {
  if (!o.is_argument()) return o.required;
  return std::holds_alternative<std::string*>(o.target) ||
         std::holds_alternative<std::filesystem::path*>(o.target);
}

/// Turns one text into a value. `source` ("--top-k", "MOGE_TOP_K") begins the message of a UsageError.
class Value {
 public:
  Value(const Option& option, const std::string& source, const std::string& text)
      : option_(option), source_(source), text_(text) {}

  bool boolean() const {
    if (text_ == "1" || text_ == "true") return true;
    if (text_ == "0" || text_ == "false") return false;
    fail("true or false");
  }
  template <class Number>
  Number number(const char* kind) const {
    Number n{};
    const char* end = text_.data() + text_.size();
    const auto [rest, error] = std::from_chars(text_.data(), end, n);
    // Written so that NaN is out of range.
    if (error != std::errc{} || rest != end ||
        !(static_cast<double>(n) >= option_.min && static_cast<double>(n) <= option_.max))
      fail(kind + range());
    return n;
  }
  int64_t integer() const { return number<int64_t>("a whole number"); }
  double real() const { return number<double>("a number"); }
  std::string choice() const {
    const std::vector<std::string>& choices = option_.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text_) == choices.end())
      fail(listed(choices));
    return text_;
  }
  std::filesystem::path path() const {
    if (text_.empty()) fail("a path");
    return text_;
  }
  DType dtype() const {
    choice();
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32, DType::kI8, DType::kFP8E4M3})
      if (text_ == name_of(dtype)) return dtype;
    fail("bf16, f16, f32, i8 or fp8_e4m3");
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    throw UsageError(str(source_, ": expected ", expected, ", got '", text_, "'"));
  }
  std::string range() const {
    const bool low = option_.min != -std::numeric_limits<double>::infinity();
    const bool high = option_.max != std::numeric_limits<double>::infinity();
    const auto text = [](double x) {
      return x == std::floor(x) ? str(static_cast<int64_t>(x)) : nlohmann::json(x).dump();
    };
    if (low && high) return str(" from ", text(option_.min), " to ", text(option_.max));
    if (low) return " of at least " + text(option_.min);
    return high ? " of at most " + text(option_.max) : "";
  }
  static std::string listed(const std::vector<std::string>& choices) {
    std::string all;
    for (const std::string& c : choices) all += (all.empty() ? "" : " or ") + c;
    return all;
  }

  const Option& option_;
  const std::string& source_;
  const std::string& text_;
};

void assign(const Option& option, const std::string& source, const std::string& text) {
  const Value value(option, source, text);
  std::visit(
      Overloaded{[&](bool* t) { *t = value.boolean(); }, [&](int64_t* t) { *t = value.integer(); },
                 [&](double* t) { *t = value.real(); }, [&](std::string* t) { *t = value.choice(); },
                 [&](std::filesystem::path* t) { *t = value.path(); }, [&](DType* t) { *t = value.dtype(); },
                 [&](std::vector<std::string>* t) { t->push_back(value.choice()); },
                 [&](std::optional<std::string>* t) { *t = value.choice(); },
                 [&](std::optional<int64_t>* t) { *t = value.integer(); },
                 [&](std::optional<double>* t) { *t = value.real(); }},
      option.target);
}

nlohmann::ordered_json json_of(const Option& option) {
  const auto optional = [](const auto& v) {
    return v ? nlohmann::ordered_json(*v) : nlohmann::ordered_json();
  };
  return std::visit(
      Overloaded{[](const std::filesystem::path* t) { return nlohmann::ordered_json(t->string()); },
                 [](const DType* t) { return nlohmann::ordered_json(name_of(*t)); },
                 [&](const std::optional<std::string>* t) { return optional(*t); },
                 [&](const std::optional<int64_t>* t) { return optional(*t); },
                 [&](const std::optional<double>* t) { return optional(*t); },
                 [](const auto* t) { return nlohmann::ordered_json(*t); }},
      option.target);
}

struct Given {
  std::string source;  ///< the flag as it was written
  std::string text;
};

/// Sorts the words of a command line to the options that they set.
class Words {
 public:
  explicit Words(const std::vector<Option>& options) : options_(options) {
    for (const Option& o : options)
      if (o.is_argument()) arguments_.push_back(&o);
  }

  void read(std::span<const std::string> words) {
    bool flags = true;
    for (size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (flags && word == "--") {
        flags = false;
      } else if (flags && word.size() > 1 && word[0] == '-') {
        const size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
        const std::string flag = word.substr(0, equals);
        const Option& option = find(flag);
        if (equals != std::string::npos) {
          given_[&option].push_back({flag, word.substr(equals + 1)});
        } else if (is_switch(option)) {
          given_[&option].push_back({flag, "true"});
        } else {
          check<UsageError>(i + 1 < words.size(), flag, ": expected a value (", option.value, ") after it");
          given_[&option].push_back({flag, words[++i]});
        }
      } else {
        argument(word);
      }
    }
  }
  const std::vector<Given>* given(const Option& option) const {
    const auto found = given_.find(&option);
    return found == given_.end() ? nullptr : &found->second;
  }

 private:
  const Option& find(const std::string& flag) const {
    std::vector<std::string> names{"--help"};
    for (const Option& o : options_) {
      if (o.is_argument()) continue;
      if (flag == flag_of(o) || (o.letter != 0 && flag == std::string{'-', o.letter})) return o;
      names.push_back(flag_of(o));
      check<UsageError>(o.letter == 0 || !flag.starts_with(std::string{'-', o.letter}), "unknown flag ", flag,
                        "; a value stands apart: -", o.letter, " ", o.value);
    }
    throw UsageError(str("unknown flag ", flag, did_you_mean(flag, names)));
  }
  void argument(const std::string& word) {
    check<UsageError>(next_argument_ < arguments_.size(), "unexpected argument '", word, "'");
    const Option& option = *arguments_[next_argument_];
    given_[&option].push_back({option.name, word});
    if (!is_list(option)) ++next_argument_;
  }

  const std::vector<Option>& options_;
  std::vector<const Option*> arguments_;
  size_t next_argument_ = 0;
  std::map<const Option*, std::vector<Given>> given_;
};

/// The members of a list in the environment are separated by colons, as in PATH.
std::vector<Given> from_environment(const Option& option) {
  const char* text = option.is_argument() ? nullptr : std::getenv(option.twin().c_str());
  if (!text || *text == '\0') return {};
  if (!is_list(option)) return {{option.twin(), text}};
  std::vector<Given> all;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ':');) all.push_back({option.twin(), part});
  return all;
}

/// `text` from column kHelpColumn on, wrapped, behind `head`.
std::string help_entry(const std::string& head, const std::string& text) {
  std::string out = "  " + head;
  size_t column = out.size();
  const auto new_line = [&] {
    out += "\n" + std::string(kHelpColumn, ' ');
    column = kHelpColumn;
  };
  if (column + 2 > kHelpColumn) {
    new_line();
  } else {
    out.resize(kHelpColumn, ' ');
    column = kHelpColumn;
  }
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (column + word.size() >= kHelpWidth) new_line();
    if (column > kHelpColumn) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out + "\n";
}

std::string flag_and_value(const Option& o) {
  std::string head = o.letter != 0 ? str("-", o.letter, ", ", flag_of(o)) : flag_of(o);
  if (!o.value.empty()) head += " " + o.value;
  return head;
}

std::string default_of(const Option& o) {
  const nlohmann::ordered_json value = json_of(o);
  if (o.is_argument() || is_switch(o) || value.is_null() || value.is_array() || value == "") return "";
  return str(" (default ", value.is_string() ? value.get<std::string>() : value.dump(), ")");
}

}  // namespace

std::string Option::twin() const {
  std::string twin = "MOGE_" + name;
  for (char& c : twin) c = c == '-' ? '_' : (c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  return twin;
}

std::vector<Option> joined(std::vector<Option> front, std::vector<Option> back) {
  std::move(back.begin(), back.end(), std::back_inserter(front));
  return front;
}

bool parse_options(const std::vector<Option>& options, std::span<const std::string> words) {
  for (const std::string& word : words) {
    if (word == "--") break;
    if (word == "--help" || word == "-h") return false;
  }
  Words line(options);
  line.read(words);
  for (const Option& option : options) {
    const std::vector<Given>* on_line = line.given(option);
    const std::vector<Given> given = on_line ? *on_line : from_environment(option);
    check<UsageError>(!given.empty() || !is_required(option), "missing ", flag_and_value(option), ": ",
                      option.help);
    for (const Given& g : given) assign(option, g.source, g.text);
  }
  return true;
}

std::string synopsis(const std::vector<Option>& options) {
  std::string line;
  for (const Option& o : options) {
    if (!o.is_argument() && !o.required) continue;
    const std::string text = o.is_argument() ? o.name : flag_and_value(o);
    line += " " + (is_required(o) ? text : "[" + text + "]") + (is_list(o) ? "..." : "");
  }
  return line + " [flags]";
}

std::string options_help(const std::vector<Option>& options) {
  std::string arguments, flags;
  for (const Option& o : options)
    (o.is_argument() ? arguments : flags) += help_entry(flag_and_value(o), o.help + default_of(o));
  flags += help_entry("-h, --help", "Print this");
  return (arguments.empty() ? "" : "Arguments:\n" + arguments + "\n") + "Flags:\n" + flags;
}

std::string options_json(const std::vector<Option>& options) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const Option& o : options) object[o.name] = json_of(o);
  return json_text(object);
}

}  // namespace moge::cli

#include "cli/options.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "core/error.h"
#include "refusal.h"

namespace moge::cli {
namespace {

struct Everything {
  std::string model;
  std::optional<std::string> rest;
  bool json = false;
  int64_t max_tokens = 256;
  double temperature = 0.5;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::string type = "bpe";
  DType dtype = DType::kBF16;
  DType weights = DType::kI8;
  std::filesystem::path output = "out";
  std::vector<std::string> input;

  std::vector<Option> options() {
    return {
        {.name = "MODEL", .target = &model, .help = "which model"},
        {.name = "REST", .target = &rest, .help = "something else"},
        {.name = "json", .target = &json, .help = "print JSON"},
        {.name = "max-tokens",
         .letter = 'n',
         .target = &max_tokens,
         .value = "N",
         .help = "stop after N tokens",
         .min = 1,
         .max = 1000},
        {.name = "temperature", .target = &temperature, .value = "X", .help = "heat", .min = 0},
        {.name = "top-p", .target = &top_p, .value = "X", .help = "nucleus", .min = 0, .max = 1},
        {.name = "top-k", .target = &top_k, .value = "N", .help = "k"},
        {.name = "type", .target = &type, .value = "T", .help = "kind", .choices = {"bpe", "unigram"}},
        {.name = "dtype", .target = &dtype, .value = "T", .help = "numbers"},
        {.name = "weights", .target = &weights, .value = "T", .help = "of these", .choices = {"i8", "bf16"}},
        {.name = "output", .target = &output, .value = "DIR", .help = "where"},
        {.name = "input", .target = &input, .value = "PATH", .help = "what"}};
  }
};

/// Sets a variable for the length of a test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Variable() { ::unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

Everything parsed(const std::vector<std::string>& words) {
  Everything e;
  EXPECT_TRUE(parse_options(e.options(), words));
  return e;
}

/// The message of the UsageError that the words cause.
std::string complaint(const std::vector<std::string>& words) {
  Everything e;
  return test::refusal<UsageError>([&] { parse_options(e.options(), words); });
}

TEST(Options, DefaultsAreTheMembers) {
  const Everything e = parsed({"m"});
  EXPECT_EQ(e.model, "m");
  EXPECT_EQ(e.rest, std::nullopt);
  EXPECT_FALSE(e.json);
  EXPECT_EQ(e.max_tokens, 256);
  EXPECT_EQ(e.top_p, std::nullopt);
}

TEST(Options, EveryTypeAndSpelling) {
  const Everything e =
      parsed({"--json", "m", "-n", "7", "--temperature=0.25", "--top-p", "0.9", "--top-k=-1", "--type",
              "unigram", "--dtype", "f32", "--output", "a b", "--input", "x", "--input=y=z", "--", "--rest"});
  EXPECT_TRUE(e.json);
  EXPECT_EQ(e.max_tokens, 7);
  EXPECT_EQ(e.temperature, 0.25);
  EXPECT_EQ(e.top_p, 0.9);
  EXPECT_EQ(e.top_k, -1);
  EXPECT_EQ(e.type, "unigram");
  EXPECT_EQ(e.dtype, DType::kF32);
  EXPECT_EQ(e.output, "a b");
  EXPECT_EQ(e.input, (std::vector<std::string>{"x", "y=z"}));
  EXPECT_EQ(e.rest, "--rest");
}

TEST(Options, AFlagWinsOverTheEnvironmentWhichWinsOverTheDefault) {
  const Variable n("MOGE_MAX_TOKENS", "9"), t("MOGE_TEMPERATURE", "2"), j("MOGE_JSON", "true"),
      empty("MOGE_TYPE", ""), list("MOGE_INPUT", "a:b");
  const Everything e = parsed({"m", "--max-tokens", "8"});
  EXPECT_EQ(e.max_tokens, 8);
  EXPECT_EQ(e.temperature, 2);
  EXPECT_TRUE(e.json);
  EXPECT_EQ(e.type, "bpe");
  EXPECT_EQ(e.input, (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(parsed({"m", "--json=false"}).json);
  EXPECT_EQ(parsed({"m", "--input", "c"}).input, (std::vector<std::string>{"c"}));
}

TEST(Options, ErrorsSayWhatWhereAndWhatElse) {
  EXPECT_EQ(complaint({"m", "--max-token", "3"}), "unknown flag --max-token; did you mean '--max-tokens'?");
  EXPECT_EQ(complaint({"m", "-x"}), "unknown flag -x");
  EXPECT_EQ(complaint({}), "missing MODEL: which model");
  EXPECT_EQ(complaint({"m", "r", "s"}), "unexpected argument 's'");
  EXPECT_EQ(complaint({"m", "--max-tokens"}), "--max-tokens: expected a value (N) after it");
  EXPECT_EQ(complaint({"m", "-n", "0"}), "-n: expected a whole number from 1 to 1000, got '0'");
  EXPECT_EQ(complaint({"m", "-n", "12x"}), "-n: expected a whole number from 1 to 1000, got '12x'");
  EXPECT_EQ(complaint({"m", "--top-k", "99999999999999999999"}),
            "--top-k: expected a whole number, got '99999999999999999999'");
  EXPECT_EQ(complaint({"m", "--temperature", "nan"}),
            "--temperature: expected a number of at least 0, got 'nan'");
  EXPECT_EQ(complaint({"m", "--type", "word"}), "--type: expected bpe or unigram, got 'word'");
  EXPECT_EQ(complaint({"m", "--dtype", "f64"}),
            "--dtype: expected bf16, f16, f32, i8 or fp8_e4m3, got 'f64'");
  EXPECT_EQ(complaint({"m", "--weights", "f16"}), "--weights: expected i8 or bf16, got 'f16'");
  EXPECT_EQ(complaint({"m", "--json=yes"}), "--json: expected true or false, got 'yes'");
  const Variable n("MOGE_MAX_TOKENS", "many");
  EXPECT_EQ(complaint({"m"}), "MOGE_MAX_TOKENS: expected a whole number from 1 to 1000, got 'many'");
}

TEST(Options, HelpIsAskedForAnywhereAndNamesEverything) {
  Everything e;
  EXPECT_FALSE(parse_options(e.options(), std::vector<std::string>{"--nonsense", "-h"}));
  const std::string help = command_help({"x y", "does", "Teaches."}, e.options());
  EXPECT_NE(help.find("Usage: moge x y MODEL [REST] [flags]"), std::string::npos) << help;
  for (const Option& o : e.options()) EXPECT_NE(help.find(o.name), std::string::npos) << o.name;
  EXPECT_NE(help.find("-n, --max-tokens N"), std::string::npos) << help;
  EXPECT_NE(help.find("stop after N tokens (default 256)"), std::string::npos) << help;
}

TEST(Options, JsonHasEveryValue) {
  Everything e = parsed({"m", "--top-p", "0.5"});
  const auto json = nlohmann::json::parse(options_json(e.options()));
  EXPECT_EQ(json.size(), e.options().size());
  EXPECT_EQ(json["MODEL"], "m");
  EXPECT_EQ(json["top-p"], 0.5);
  EXPECT_TRUE(json["top-k"].is_null());
  EXPECT_EQ(json["dtype"], "bf16");
  EXPECT_EQ(json["output"], "out");
}

TEST(Commands, AreFoundByOneOrTwoWordsOrNamedWhenNear) {
  const auto found = find_command(std::vector<std::string>{"tokenizer", "encode", "dir"});
  EXPECT_EQ(found.command.info.name, "tokenizer encode");
  EXPECT_EQ(found.name_words, 2U);
  const auto message = [](const std::vector<std::string>& words) -> std::string {
    return test::refusal<UsageError>([&] { find_command(words); });
  };
  EXPECT_EQ(message({"insect"}), "unknown command 'insect'; did you mean 'inspect'?");
  EXPECT_NE(message({"tokenizer"}).find("tokenizer train, tokenizer encode"), std::string::npos);
  EXPECT_NE(message({"tokenizer", "trian"}).find("did you mean 'tokenizer train'?"), std::string::npos);
}

TEST(Commands, HaveHelpThatTeaches) {
  for (const Command& c : all_commands()) {
    EXPECT_NE(program_help().find(c.info.name), std::string::npos) << c.info.name;
    EXPECT_NE(c.info.about.find("  moge " + c.info.name), std::string::npos)
        << c.info.name << " has no example";
  }
}

}  // namespace
}  // namespace moge::cli

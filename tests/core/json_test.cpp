#include "core/json.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/nearest.h"
#include "refusal.h"

namespace moge {
namespace {

void expect_refused(std::string_view text, const std::string& part) {
  const std::string message = test::refusal([&] { parse_json(text, "x.json"); });
  EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(message.rfind("x.json: ", 0), 0U) << message;
}

TEST(Json, SaysWhereItIsBroken) {
  expect_refused("{\"a\": 1,\n \"b\": }", "line 2, column 7");
  expect_refused("", "broken JSON");
  expect_refused("{} {}", "broken JSON");
  expect_refused("{\"a\": 1e999}", "broken JSON");
  expect_refused("[\"\xff\"]", "broken JSON");
}

TEST(Json, RefusesDuplicateKeysAndDeepNesting) {
  expect_refused(R"({"a": 1, "b": {"c": 1}, "a": 2})", "duplicate JSON key \"a\"");
  expect_refused(R"([{"b": {"c": 1, "c": 2}}])", "duplicate JSON key \"c\"");
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": {"a": 2}}])", "x"));
  expect_refused(std::string(100000, '['), "deeper than 64");
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "x"));
}

TEST(Json, ExcerptsNameNumbersThatJsonDoesNotHave) {
  EXPECT_EQ(json_excerpt(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(json_excerpt(std::numeric_limits<double>::quiet_NaN()), "nan");
}

TEST(JsonObject, TypedAccess) {
  const auto json = parse_json(
      R"({"i": 7, "f": 1.5, "b": true, "s": "x", "none": null, "big": 18446744073709551615, "left": 0})",
      "x");
  JsonObject object(json, "x.json");
  EXPECT_EQ(object.integer("i"), 7);
  EXPECT_EQ(object.number("f"), 1.5);
  EXPECT_EQ(object.number("i"), 7.0);
  EXPECT_EQ(object.boolean("b"), true);
  EXPECT_EQ(object.text("s"), "x");
  EXPECT_FALSE(object.has("none"));
  EXPECT_EQ(object.integer("absent"), std::nullopt);
  EXPECT_EQ(test::refusal([&] { object.integer("i", 0, 6); }),
            "x.json: key 'i': expected an integer from 0 to 6, got 7");
  EXPECT_EQ(object.number("f", 1.5, 1.5), 1.5);
  EXPECT_EQ(test::refusal([&] { object.number("f", 0, 1); }),
            "x.json: key 'f': expected a number from 0 to 1, got 1.5");
  EXPECT_EQ(test::refusal([&] { object.number("f", 2, 3.5); }),
            "x.json: key 'f': expected a number from 2 to 3.5, got 1.5");
  EXPECT_EQ(test::refusal([&] { object.integer("big"); }),
            "x.json: key 'big': expected an integer, got 18446744073709551615");
  EXPECT_EQ(test::refusal([&] { object.integer("f"); }), "x.json: key 'f': expected an integer, got 1.5");
  EXPECT_EQ(test::refusal([&] { object.boolean("s"); }),
            "x.json: key 's': expected true or false, got \"x\"");
  EXPECT_EQ(object.unread(), std::vector<std::string>{"left"});
  EXPECT_EQ(test::refusal([&] { object.require(object.integer("lefty"), "lefty"); }),
            "x.json: key 'lefty' is missing; did you mean 'left'?");
  const nlohmann::json null = parse_json("{\"left\": null}", "x.json");
  JsonObject nothing(null, "x.json");
  EXPECT_EQ(test::refusal([&] { nothing.require(nothing.integer("left"), "left"); }),
            "x.json: key 'left' is null, expected a value");
}

TEST(Nearest, FindsCloseNamesOnly) {
  const std::vector<std::string> names = {"hidden_size", "head_dim", "vocab_size"};
  EXPECT_EQ(nearest("hiden_size", names), "hidden_size");
  EXPECT_EQ(nearest("headdim", names), "head_dim");
  EXPECT_EQ(nearest("rope_theta", names), "");
  EXPECT_EQ(nearest("", names), "");
  EXPECT_EQ(did_you_mean("vocab_sise", names), "; did you mean 'vocab_size'?");
  EXPECT_EQ(did_you_mean_one_of("vocab_sise", names), "; did you mean 'vocab_size'?");
  EXPECT_EQ(did_you_mean_one_of("x", std::vector<std::string>{"aa", "bb"}), "; there are 'aa', 'bb'");
}

}  // namespace
}  // namespace moge

#include "sim/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "refusal.h"

namespace moge::sim {
namespace {

using testing::HasSubstr;

struct Moments {
  double mean = 0, cv = 0;
};
Moments moments(const std::vector<double>& v) {
  double sum = 0, squares = 0;
  for (const double x : v) sum += x, squares += x * x;
  const double n = static_cast<double>(v.size()), mean = sum / n;
  return {mean, std::sqrt(squares / n - mean * mean) / mean};
}

TEST(Trace, GapsAndLengthsHaveTheMomentsAskedFor) {
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    SyntheticTrace setup{200'000, 5, burstiness, {1000, 0.6}, {50, 0}, 7};
    const std::vector<Request> trace = make_trace(setup);
    std::vector<double> gaps, inputs;
    for (size_t i = 1; i < trace.size(); ++i) {
      gaps.push_back(trace[i].arrival_s - trace[i - 1].arrival_s);
      inputs.push_back(static_cast<double>(trace[i].input_tokens));
      ASSERT_GE(gaps.back(), 0);
      ASSERT_EQ(trace[i].output_tokens, 50);
    }
    const double cv = 1 / std::sqrt(burstiness);
    EXPECT_NEAR(moments(gaps).mean, 0.2, 5 * 0.2 * cv / std::sqrt(2e5));
    EXPECT_NEAR(moments(gaps).cv, cv, 0.02 * cv);
    EXPECT_NEAR(moments(inputs).mean, 1000, 5 * 600 / std::sqrt(2e5));
    EXPECT_NEAR(moments(inputs).cv, 0.6, 0.01);
  }
  SyntheticTrace setup;
  const std::vector<Request> a = make_trace(setup);
  setup.seed = 1;
  EXPECT_EQ(a[0].arrival_s, 0);
  EXPECT_NE(a[1].arrival_s, make_trace(setup)[1].arrival_s);
}

TEST(Trace, ReadsCsv) {
  const auto trace = parse_trace_csv(
      "id,timestamp, output_tokens,\"input_tokens\"\r\na,10.5,2,100\r\n\r\nb,11,3,200", "t.csv", 1);
  ASSERT_EQ(trace.size(), 2U);
  EXPECT_EQ(trace[0].arrival_s, 0);
  EXPECT_EQ(trace[1].arrival_s, 0.5);
  EXPECT_EQ(trace[1].input_tokens, 200);
  EXPECT_EQ(trace[1].output_tokens, 3);
}

TEST(Trace, ReadsJsonLines) {
  const auto trace =
      parse_trace_jsonl(R"({"timestamp": 1000, "input_length": 7, "output_length": 8, "hash_ids": [1]}

{"timestamp": 3000, "input_tokens": 9, "output_tokens": 1}
)",
                        "t.jsonl", 1000);
  ASSERT_EQ(trace.size(), 2U);
  EXPECT_EQ(trace[0].input_tokens, 7);
  EXPECT_EQ(trace[0].output_tokens, 8);
  EXPECT_EQ(trace[1].arrival_s, 2);
}

TEST(Trace, ReadsFilesByTheirName) {
  const std::filesystem::path fixtures = std::filesystem::path(MOGE_SOURCE_DIR) / "tests/sim/fixtures";
  const std::vector<Request> csv = read_trace(fixtures / "trace.csv", 1);
  const std::vector<Request> jsonl = read_trace(fixtures / "trace.jsonl", 1000);
  ASSERT_EQ(csv.size(), 3U);
  ASSERT_EQ(jsonl.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(csv[i].arrival_s, jsonl[i].arrival_s);
    EXPECT_EQ(csv[i].input_tokens, jsonl[i].input_tokens);
    EXPECT_EQ(csv[i].output_tokens, jsonl[i].output_tokens);
  }
  EXPECT_THAT(test::refusal([&] { read_trace(fixtures / "missing.csv", 1); }), HasSubstr("missing.csv"));
}

TEST(Trace, SaysWhatIsWrongAndWhere) {
  const auto csv = [](const char* text) { return test::refusal([&] { parse_trace_csv(text, "t", 1); }); };
  EXPECT_THAT(csv(""), HasSubstr("t: no requests"));
  EXPECT_THAT(csv("timestamp,input_tokens,output_tokens\n"), HasSubstr("t: no requests"));
  EXPECT_THAT(csv("timestamp,input_token,output_tokens\n"),
              HasSubstr("t:1: no column 'input_tokens'; did you mean 'input_token'"));
  const std::string head = "timestamp,input_tokens,output_tokens\n";
  EXPECT_THAT(csv((head + "1,1,1\n0.5,1,1").c_str()), HasSubstr("t:3: timestamp 0.5 is before"));
  EXPECT_THAT(csv((head + "1,0,1").c_str()), HasSubstr("t:2: input tokens: expected 1"));
  EXPECT_THAT(csv((head + "1,1,-3").c_str()), HasSubstr("output tokens: expected 1"));
  EXPECT_THAT(csv((head + "1,1,99999999999999999999").c_str()), HasSubstr("got '99999999999999999999'"));
  EXPECT_THAT(csv((head + "nan,1,1").c_str()), HasSubstr("timestamp: expected a number, got 'nan'"));
  EXPECT_THAT(csv((head + "1e300,1,1").c_str()), HasSubstr("out of range"));
  EXPECT_THAT(csv((head + "1,1").c_str()), HasSubstr("2 cells below a header of 3"));
  EXPECT_THAT(csv((head + ",,").c_str()), HasSubstr("got ''"));
  const auto jsonl = [](const char* text) { return test::refusal([&] { parse_trace_jsonl(text, "t", 1); }); };
  EXPECT_THAT(jsonl("\n\n"), HasSubstr("no requests"));
  EXPECT_THAT(jsonl("{\"timestamp\": 1, \"input_tokens\": 1}"), HasSubstr("output_tokens"));
  EXPECT_THAT(jsonl("{\"timestamp\": 1"), HasSubstr("t:1"));
  EXPECT_THAT(jsonl("[]"), HasSubstr("t:1"));
  EXPECT_THAT(jsonl("{\"timestamp\": 1, \"input_tokens\": 1.5, \"output_tokens\": 1}"),
              HasSubstr("input_tokens"));
  const auto synthetic = [](SyntheticTrace s) { return test::refusal<UsageError>([&] { make_trace(s); }); };
  EXPECT_THAT(synthetic({.requests = 0}), HasSubstr("requests"));
  EXPECT_THAT(synthetic({.requests_per_s = -1}), HasSubstr("requests per second"));
  EXPECT_THAT(synthetic({.burstiness = NAN}), HasSubstr("burstiness"));
  EXPECT_THAT(synthetic({.input = {0, 0}}), HasSubstr("mean tokens"));
  EXPECT_THAT(synthetic({.output = {1, -1}}), HasSubstr("coefficient of variation"));
}

}  // namespace
}  // namespace moge::sim

#include "sim/calibrate.h"

#include <gtest/gtest.h>

#include <fstream>

#include "machines.h"
#include "refusal.h"
#include "sim/rows.h"
#include "temp_dir.h"

namespace moge::sim {
namespace {

using test::refusal;

std::vector<Observation> shipped_rows(const std::string& hardware) {
  for (MachineRows& machine : load_rows(kConfigs + "sim/rows.toml", shipped_model)) {
    if (machine.hardware != hardware) continue;
    for (Observation& row : machine.rows) row.devices *= shipped_hardware(hardware).devices_per_card;
    return machine.rows;
  }
  return {};
}

int num_fitted(const Calibration& c) {
  int n = 0;
  for (const ConstantField& field : constant_fields()) n += (c.*field.member).fitted() ? 1 : 0;
  return n;
}

TEST(Calibrate, DenseRowsOfTheA2) {
  const std::vector<Observation> rows = shipped_rows("ascend-800i-a2");
  ASSERT_EQ(rows.size(), 6U);
  const Calibration frozen = shipped_calibration("ascend-800i-a2");
  EXPECT_LE(num_fitted(frozen), 7);
  const ErrorSummary in = summary(errors(shipped_hardware("ascend-800i-a2"), frozen, rows, {}), false);
  EXPECT_LE(in.mean, 0.025);
  EXPECT_LE(in.max, 0.06);
  const ErrorSummary out = summary(leave_one_out(shipped_hardware("ascend-800i-a2"), frozen, rows), true);
  EXPECT_LE(out.mean, 0.05);
  EXPECT_LE(out.max, 0.10);
}

TEST(Calibrate, RowsOfTheDuo) {
  const std::vector<Observation> rows = shipped_rows("ascend-300i-duo");
  ASSERT_EQ(rows.size(), 2U);
  const Calibration frozen = shipped_calibration("ascend-300i-duo");
  EXPECT_LE(num_fitted(frozen), 2);
  EXPECT_LE(summary(errors(shipped_hardware("ascend-300i-duo"), frozen, rows, {}), false).max, 0.06);
}

/// The shipped constants are what the fit gives, not what a hand has put there.
TEST(Calibrate, FrozenConstantsAreTheFits) {
  for (const char* name : {"ascend-800i-a2", "ascend-300i-duo"}) {
    const Calibration frozen = shipped_calibration(name);
    const Calibration refitted = fit(shipped_hardware(name), frozen, shipped_rows(name));
    for (const ConstantField& field : constant_fields())
      EXPECT_NEAR((refitted.*field.member).value, (frozen.*field.member).value,
                  1e-3 * (frozen.*field.member).value)
          << name << " " << field.name;
    EXPECT_EQ(refitted.rows, frozen.rows);
  }
}

/// Rows made with known constants give those back when priors are weak.
TEST(Calibrate, RecoversKnownConstants) {
  const spec::Hardware hardware = shipped_hardware("ascend-800i-a2");
  std::vector<Observation> rows = shipped_rows("ascend-800i-a2");
  Calibration truth = shipped_calibration("ascend-800i-a2");
  truth.matmul_efficiency.value = 0.5;
  truth.memory_efficiency.value = 0.6;
  for (Observation& row : rows) row.measured_s = predict(hardware, truth, row);
  Calibration start = truth;
  for (const ConstantField& field : constant_fields()) {
    Constant& c = start.*field.member;
    if (c.fitted()) c.status = "prior";
  }
  start.matmul_efficiency = {.value = 0.9, .status = "fitted", .source = "t", .prior = 0.8, .spread = 10};
  start.memory_efficiency = {.value = 0.9, .status = "fitted", .source = "t", .prior = 0.8, .spread = 10};
  const Calibration found = fit(hardware, start, rows);
  EXPECT_NEAR(found.matmul_efficiency.value, 0.5, 1e-3);
  EXPECT_NEAR(found.memory_efficiency.value, 0.6, 1e-3);
}

double latency_ms(const std::string& model, int64_t devices, const StepLoad& load, double cached) {
  const PlanSearch search(shipped_model(model), shipped_device("ascend-800i-a2"),
                          {WeightFormat::kW8A8, KvFormat::k16}, devices);
  return search.fastest(load, cached, 2048).seconds * 1e3;
}

/// The sparse model reads half the bytes of the dense 32B and is slower still: kernels, collectives and
/// routing are most of a step of one request (as the report measured).
TEST(Calibrate, SparseIsSlowerThanDenseAtBatchOne) {
  const double moge = latency_ms("pangu-pro-moe-72b-a16b", 4, decode_load(1, 2048), 1);
  const double d32 = latency_ms("dense-32b", 4, decode_load(1, 2048), 1);
  const double d72 = latency_ms("dense-72b", 4, decode_load(1, 2048), 1);
  EXPECT_GT(moge, d32);
  EXPECT_LT(moge, d72);
}

TEST(Calibrate, OrderOfThroughputAndFirstToken) {
  const auto rate = [](const std::string& model) {
    const PlanSearch search(shipped_model(model), shipped_device("ascend-800i-a2"),
                            {WeightFormat::kW8A8, KvFormat::k16}, 4);
    return search.best_batch({.context = 2048, .max_step_s = 0.1})->tokens_per_s;
  };
  EXPECT_GT(rate("pangu-pro-moe-72b-a16b"), rate("dense-32b"));
  EXPECT_GT(rate("dense-32b"), rate("dense-72b"));
  const double moge = latency_ms("pangu-pro-moe-72b-a16b", 2, prefill_load(2, 2048), 2);
  const double d32 = latency_ms("dense-32b", 2, prefill_load(2, 2048), 2);
  const double d72 = latency_ms("dense-72b", 2, prefill_load(2, 2048), 2);
  EXPECT_LT(moge, d32);
  EXPECT_LT(d32, d72);
}

TEST(Calibrate, RefusesTooManyConstants) {
  Calibration c = shipped_calibration("ascend-800i-a2");
  const std::vector<Observation> rows = shipped_rows("ascend-800i-a2");
  c.step_us = c.link_efficiency = c.op_us;
  c.link_efficiency = {.value = 0.8, .status = "fitted", .source = "t", .prior = 0.8, .spread = 0.1};
  EXPECT_NE(refusal<UsageError>([&] {
              fit(shipped_hardware("ascend-800i-a2"), c, rows);
            }).find("8 fitted constants"),
            std::string::npos);
  EXPECT_THROW(fit(shipped_hardware("h100-sxm"), shipped_calibration("h100-sxm"), rows), UsageError);
  EXPECT_THROW(fit(shipped_hardware("ascend-800i-a2"), shipped_calibration("ascend-800i-a2"), {}),
               UsageError);
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(Calibration, EveryMachineHasOne) {
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs + "hardware")) {
    const std::string name = entry.path().stem();
    EXPECT_EQ(shipped_calibration(name).hardware, name);
    EXPECT_GT(shipped_device(name).dense_flops, 0) << name;
  }
}

TEST(Calibration, WritesWhatItReads) {
  const test::TempDir dir;
  const Calibration a = shipped_calibration("ascend-800i-a2");
  std::ofstream(dir / "c.toml") << to_toml(a);
  const Calibration b = load_calibration(dir / "c.toml");
  EXPECT_EQ(to_toml(a), to_toml(b));
}

TEST(Calibration, RefusesBrokenFiles) {
  const test::TempDir dir;
  const std::string good = to_toml(shipped_calibration("ascend-800i-a2"));
  const auto complaint = [&](const std::string& from, const std::string& to) {
    std::ofstream(dir / "c.toml") << with(good, from, to);
    return refusal([&] { load_calibration(dir / "c.toml"); });
  };
  EXPECT_NE(complaint("[op_us]", "[op_ms]").find("'op_us'"), std::string::npos);
  EXPECT_NE(complaint("value = 0.45", "value = 1.45").find("from 0.001 to 1"), std::string::npos);
  EXPECT_NE(complaint("value = 0.45", "value = nan").find("attention_efficiency"), std::string::npos);
  EXPECT_NE(complaint("value = 0.45", "value = -1").find("from 0.001 to 1"), std::string::npos);
  EXPECT_NE(complaint("\"fitted\"", "\"believed\"").find("status 'believed'"), std::string::npos);
  EXPECT_NE(complaint("spread = 0.3", "spread = 0.0").find("positive prior"), std::string::npos);
  EXPECT_NE(complaint("hardware =", "hardwear =").find("hardware"), std::string::npos);
}

TEST(Rows, RefusesBrokenFiles) {
  const test::TempDir dir;
  const std::string good = R"([[row]]
id = "a"
hardware = "ascend-800i-a2"
model = "dense-32b"
stage = "decode"
cards = 4
batch = 1
context = 2048
latency_ms = 16.26
)";
  const auto complaint = [&](const std::string& text) {
    std::ofstream(dir / "rows.toml") << text;
    return refusal([&] { load_rows(dir / "rows.toml", shipped_model); });
  };
  EXPECT_EQ(complaint(good), "(accepted)");
  EXPECT_NE(complaint(good + good).find("two rows have the id 'a'"), std::string::npos);
  EXPECT_NE(complaint(with(good, "batch = 1", "batch = 0")).find("batch"), std::string::npos);
  EXPECT_NE(complaint(with(good, "16.26", "-3.0")).find("latency_ms"), std::string::npos);
  EXPECT_NE(complaint(with(good, "decode", "train")).find("stage 'train'"), std::string::npos);
  EXPECT_NE(complaint(with(good, "context", "contxt")).find("context"), std::string::npos);
  EXPECT_NE(complaint("row = 3").find("[[row]]"), std::string::npos);
}

}  // namespace
}  // namespace moge::sim

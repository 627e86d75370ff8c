// What moge sim decode and prefill write besides their answer: a page, pictures, a table.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/report_options.h"
#include "cli/sim_setup.h"
#include "sim/throughput.h"

namespace moge::cli {

struct StepPageOptions {
  ReportOptions files;
  std::vector<std::string> compare;  ///< models: further lines of throughput against latency

  std::vector<Option> options();
};

/// `result` is the answer with --json. Draws throughput lines of the model, of the models it is compared
/// with, and of the plans that are best somewhere.
void write_step_page(const StepPageOptions& wanted, const SimSetupOptions& options, const SimSetup& setup,
                     const nlohmann::ordered_json& result, const sim::ThroughputSetup& lines);

}  // namespace moge::cli

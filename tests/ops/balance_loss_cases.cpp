#include "ops/balance_loss.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::BalanceLoss;
using ops::ExpertCounts;
using ops::ZLoss;

struct Dims {
  int64_t T, E, K;
  std::vector<int32_t> segments;
  bool perf;
};

BalanceLoss make_balance(Inputs& in, const Dims& d) {
  const auto S = static_cast<int64_t>(d.segments.size()) - 1;
  return {.loss = in.output({1}),
          .dprobs = in.output({d.T, d.E}),
          .probs = in.uniform({d.T, d.E}, 0, 1),
          .counts = in.ints({S, d.E}, 0, 1000),
          .segment_tokens = in.ints({S}, 0, 5000),
          .segments = in.values(d.segments),
          .topk = static_cast<int>(d.K),
          .weight = 0.01F};
}

const Cases cases([] {
  for (const Dims& d : {Dims{1, 1, 1, {0, 1}, false},
                        {7, 16, 4, {0, 7}, false},
                        {65, 63, 8, {0, 10, 10, 64, 65}, false},
                        {2500, 16, 4, {3, 1500, 2400}, false},  // rows before and behind the segments
                        {2500, 40, 7, {0, 1100, 2500}, false},
                        {0, 16, 4, {0, 0}, false},
                        {4096, 16, 4, {0, 4096}, true},
                        {4096, 64, 8, {0, 1024, 2048, 3072, 4096}, true}}) {
    const std::string params = str("T=", d.T, " E=", d.E, " K=", d.K, " S=", d.segments.size() - 1);
    add<BalanceLoss>(ops::balance_loss_table(),
                     {.params = params,
                      .make = [=](Inputs& in) { return make_balance(in, d); },
                      .outputs = {{"loss", &BalanceLoss::loss, 8 + std::sqrt(static_cast<double>(d.E))},
                                  {"dprobs", &BalanceLoss::dprobs}},
                      .perf = d.perf,
                      .bytes = 8.0 * static_cast<double>(d.T * d.E)});
    add<ExpertCounts>(ops::expert_counts_table(),
                      {.params = params,
                       .make =
                           [=](Inputs& in) {
                             const auto S = static_cast<int64_t>(d.segments.size()) - 1;
                             return ExpertCounts{
                                 .counts = in.ints({S, d.E}, 0, 10),
                                 .topk_ids = in.ints({d.T, d.K}, 0, static_cast<int32_t>(d.E)),
                                 .segments = in.values(d.segments)};
                           },
                       .outputs = {{"counts", &ExpertCounts::counts}},
                       .perf = d.perf,
                       .bytes = 4.0 * static_cast<double>(d.T * d.K)});
  }
  for (const auto& [T, perf] :
       {std::pair<int64_t, bool>{1, false}, {65, false}, {40000, false}, {4096, true}}) {
    add<ZLoss>(ops::z_loss_table(), {.params = str("T=", T),
                                     .make =
                                         [=](Inputs& in) {
                                           return ZLoss{.loss = in.output({1}),
                                                        .dlse = in.output({T}),
                                                        .lse = in.normal({T}, 5),
                                                        .weight = 0.001F};
                                         },
                                     .outputs = {{"loss", &ZLoss::loss, 2}, {"dlse", &ZLoss::dlse}},
                                     .perf = perf,
                                     .bytes = 8.0 * static_cast<double>(T)});
  }
  add_grad<BalanceLoss, BalanceLoss>(ops::balance_loss_table(), ops::balance_loss_table(),
                                     {.params = "T=9 E=6 K=2 S=2",
                                      .make =
                                          [](Inputs& in) {
                                            BalanceLoss f = make_balance(in, {9, 6, 2, {1, 4, 8}, false});
                                            f.dprobs = {};
                                            return f;
                                          },
                                      .outputs = {{&BalanceLoss::loss, nullptr}},
                                      .bind =
                                          [](const BalanceLoss& f, Inputs& in) {
                                            BalanceLoss b = f;
                                            b.loss = in.output(f.loss.shape);
                                            b.dprobs = in.output(f.probs.shape);
                                            return b;
                                          },
                                      .inputs = {{&BalanceLoss::probs, &BalanceLoss::dprobs}}});
  add_grad<ZLoss, ZLoss>(
      ops::z_loss_table(), ops::z_loss_table(),
      {.params = "T=33",
       .make =
           [](Inputs& in) {
             return ZLoss{.loss = in.output({1}), .dlse = {}, .lse = in.normal({33}, 5), .weight = 0.001F};
           },
       .outputs = {{&ZLoss::loss, nullptr}},
       .bind =
           [](const ZLoss& f, Inputs& in) {
             ZLoss b = f;
             b.loss = in.output(f.loss.shape);
             b.dlse = in.output(f.lse.shape);
             return b;
           },
       .inputs = {{&ZLoss::lse, &ZLoss::dlse}}});
});

}  // namespace
}  // namespace moge::test

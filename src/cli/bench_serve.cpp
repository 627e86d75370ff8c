// moge bench serve-like: requests that come and go.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/bench_runner.h"
#include "cli/json_text.h"
#include "cli/quantile.h"
#include "core/rng.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

/// The clients, each in the row of its number. Times are events in the stream, so that nothing waits for the
/// host while requests are served.
class Clients {
 public:
  Clients(BenchRunner& bench, const ServeBench& load, uint64_t seed)
      : bench_(bench), load_(load), clients_(static_cast<size_t>(load.clients)), lengths_(seed, 99) {}

  /// Until every request is answered. New prompts first: a prefill pass stops the others' decoding.
  void serve() {
    begin_ = last_pass_ = now();
    while (true) {
      const auto waiting = std::ranges::find_if(clients_, &Client::waits);
      if (waiting != clients_.end() && next_request_ < load_.requests)
        prefill(waiting - clients_.begin());
      else if (std::ranges::all_of(clients_, &Client::waits))
        break;
      else
        decode();
    }
  }

  /// Of all requests. Waits for the device.
  double seconds() const { return last_pass_->seconds_since(*begin_); }
  int64_t answer_tokens() const { return answer_tokens_; }
  size_t num_served() const { return served_.size(); }
  const Work& work() const { return work_; }
  /// From the pass before a request to its first token, of each.
  std::vector<double> first_token_ms() const {
    std::vector<double> ms;
    for (const Served& s : served_) ms.push_back(1e3 * s.first->seconds_since(*s.begin));
    return ms;
  }
  /// Between two tokens of an answer, the mean of each.
  std::vector<double> token_ms() const {
    std::vector<double> ms;
    for (const Served& s : served_)
      ms.push_back(1e3 * s.last->seconds_since(*s.first) / static_cast<double>(s.tokens - 1));
    return ms;
  }

 private:
  struct Client {
    int64_t left = 0;  // tokens to come
    Event* begin = nullptr;
    Event* first = nullptr;
    bool waits() const { return left == 0; }
  };
  struct Served {
    Event *begin, *first, *last;
    int64_t tokens;
  };

  Event* now() {
    events_.push_back(bench_.backend().make_event());
    events_.back()->record();
    return events_.back().get();
  }
  int64_t next_answer() {
    const int64_t mean = load_.answer_tokens;
    return std::max<int64_t>(mean / 2 + lengths_.next_below(static_cast<uint32_t>(mean) + 1), 2);
  }

  /// The clients that wait from this row on, side by side, as many as a pass takes.
  void prefill(int64_t first_row) {
    engine::Runner& runner = bench_.runner();
    const int64_t most = runner.limits().max_batch_tokens / load_.prompt_tokens;
    std::vector<std::vector<int32_t>> prompts;
    for (int64_t row = first_row; row < load_.clients && clients_[static_cast<size_t>(row)].waits() &&
                                  next_request_ < load_.requests && std::ssize(prompts) < most;
         ++row) {
      const int64_t answer = next_answer();
      clients_[static_cast<size_t>(row)] = {.left = answer - 1, .begin = last_pass_};
      answer_tokens_ += answer;
      runner.start(row, load_.prompt_tokens + answer, {.temperature = 0});
      prompts.push_back(bench_.ids(load_.prompt_tokens, static_cast<uint64_t>(next_request_++)));
    }
    runner.prefill(first_row, std::vector<std::span<const int32_t>>(prompts.begin(), prompts.end()));
    last_pass_ = now();
    work_ += bench_.prompt_work(std::ssize(prompts), load_.prompt_tokens);
    for (size_t i = 0; i < prompts.size(); ++i)
      clients_[static_cast<size_t>(first_row) + i].first = last_pass_;
  }

  void decode() {
    engine::Runner& runner = bench_.runner();
    runner.decode();
    last_pass_ = now();
    int64_t decoding = 0, positions = 0;
    for (int64_t row = 0; row < load_.clients; ++row) {
      Client& c = clients_[static_cast<size_t>(row)];
      if (c.waits()) continue;
      ++decoding;
      positions += runner.length(row);
      if (--c.left > 0) continue;
      served_.push_back({c.begin, c.first, last_pass_, runner.length(row) - load_.prompt_tokens + 1});
      runner.stop(row);
    }
    work_ += bench_.decode_work(decoding, positions);
  }

  BenchRunner& bench_;
  const ServeBench& load_;
  std::vector<Client> clients_;
  Rng lengths_;
  int64_t next_request_ = 0, answer_tokens_ = 0;
  std::vector<std::unique_ptr<Event>> events_;
  Event* begin_ = nullptr;
  Event* last_pass_ = nullptr;
  std::vector<Served> served_;
  Work work_;
};

}  // namespace

void bench_device_serve(const DeviceBenchOptions& o, const ServeBench& b) {
  BenchRunner bench(o, {.max_sequences = b.clients,
                        .context = b.prompt_tokens + b.answer_tokens * 3 / 2 + 1,
                        .max_batch_tokens = std::max<int64_t>(b.prompt_tokens, 4096),
                        .kv_dtype = o.model.kv_dtype});
  Clients clients(bench, b, static_cast<uint64_t>(o.model.seed));
  clients.serve();

  const double seconds = clients.seconds();
  const double prompts = static_cast<double>(b.requests * b.prompt_tokens) / seconds;
  const double answers = static_cast<double>(clients.answer_tokens()) / seconds;
  const std::vector<double> ttft = clients.first_token_ms(), tpot = clients.token_ms();
  ordered_json out = bench.header("serve-like", b.clients);
  out.update({{"context", b.prompt_tokens},
              {"requests", clients.num_served()},
              {"seconds", seconds},
              {"prompt_tokens_per_second", prompts},
              {"answer_tokens_per_second", answers},
              {"ttft_ms", median(ttft)},
              {"ttft_ms_p90", quantile(ttft, 0.9)},
              {"tpot_ms", median(tpot)},
              {"tpot_ms_p90", quantile(tpot, 0.9)}});
  add_work(out, clients.work(), seconds, bench.roof());
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(1) << clients.num_served() << " requests of "
            << b.prompt_tokens << " + about " << b.answer_tokens << " tokens, " << b.clients
            << " at a time: " << seconds << " s\nprompts  " << prompts << " tokens/s; to the first token "
            << median(ttft) << " ms (p90 " << quantile(ttft, 0.9) << ")\nanswers  " << answers
            << " tokens/s; between tokens " << median(tpot) << " ms (p90 " << quantile(tpot, 0.9) << ")\n"
            << work_text(clients.work(), seconds, bench.roof());
}

}  // namespace moge::cli

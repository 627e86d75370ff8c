#include "sim/serving.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "core/error.h"
#include "core/rng.h"

namespace moge::sim {
namespace {

class Scheduler {
 public:
  Scheduler(std::span<const Request> trace, const SchedulerPolicy& policy, const StepTime& step_time)
      : trace_(trace),
        policy_(policy),
        step_time_(step_time),
        num_blocks_(policy.cache_tokens / policy.block_tokens),
        free_blocks_(num_blocks_) {
    run_.served.resize(trace.size());
  }

  ServingRun run() {
    while (arrived_ < trace_.size() || !waiting_.empty() || !running_.empty()) {
      if (waiting_.empty() && running_.empty()) pass_to(std::max(clock_, trace_[arrived_].arrival_s));
      receive();
      run_.max_waiting = std::max(run_.max_waiting, static_cast<int64_t>(waiting_.size()));
      const ServingStep step = schedule();
      sample_timeline();
      const double seconds = step_time_(step);
      dcheck(seconds > 0 && std::isfinite(seconds), "a step of ", seconds, " s");
      pass_to(clock_ + seconds);
      run_.busy_s += seconds;
      ++run_.steps;
      if (step.decode_requests > 0) {
        ++decode_steps_;
        decoded_ += step.decode_requests;
      }
      advance();
    }
    run_.end_s = clock_;
    run_.mean_waiting /= std::max(clock_, 1e-300);
    run_.mean_block_use /= std::max(clock_, 1e-300) * static_cast<double>(num_blocks_);
    run_.mean_decoding =
        static_cast<double>(decoded_) / static_cast<double>(std::max<int64_t>(decode_steps_, 1));
    return std::move(run_);
  }

 private:
  struct Running {
    size_t request = 0;
    int64_t generated = 0;  ///< output tokens so far; they are input when computed anew
    int64_t computed = 0;   ///< tokens whose keys and values are cached
    int64_t blocks = 0;
    int64_t scheduled = 0;  ///< tokens of this step
    bool started = false;   ///< its first token is out
  };

  int64_t known_tokens(const Running& r) const { return trace_[r.request].input_tokens + r.generated; }
  bool decodes(const Running& r) const { return r.generated > 0 && known_tokens(r) - r.computed == 1; }

  /// Those who arrived during the last step waited since.
  void receive() {
    while (arrived_ < trace_.size() && trace_[arrived_].arrival_s <= clock_) {
      run_.mean_waiting += clock_ - trace_[arrived_].arrival_s;
      waiting_.push_back({arrived_++});
    }
  }

  ServingStep schedule() {
    ServingStep step;
    budget_ = policy_.max_step_tokens;
    bool preempted = false;
    for (size_t i = 0; i < running_.size(); ++i) {
      running_[i].scheduled = 0;
      if (budget_ == 0) continue;
      while (!reserve(running_[i], step)) {
        // The one admitted last gives way: this one itself if nobody came after it.
        preempted = true;
        preempt_last();
        if (i == running_.size()) break;
      }
    }
    while (!preempted && budget_ > 0 && !waiting_.empty() &&
           running_.size() < static_cast<size_t>(policy_.max_running)) {
      if (!reserve(waiting_.front(), step)) break;
      running_.push_back(waiting_.front());
      waiting_.pop_front();
    }
    return step;
  }

  /// Gives `r` its tokens of this step and the blocks for them; false if there are not enough blocks.
  bool reserve(Running& r, ServingStep& step) {
    const bool decoding = decodes(r);
    const int64_t tokens = std::min(known_tokens(r) - r.computed, budget_);
    const int64_t drafts = decoding ? policy_.draft_tokens : 0;
    const int64_t blocks = (r.computed + tokens + drafts + policy_.block_tokens - 1) / policy_.block_tokens;
    const int64_t more = std::max<int64_t>(0, blocks - r.blocks);
    if (more > free_blocks_) return false;
    free_blocks_ -= more;
    r.blocks += more;
    r.scheduled = tokens;
    budget_ = std::max<int64_t>(0, budget_ - tokens - drafts);
    if (decoding) {
      ++step.decode_requests;
      step.decode_positions += r.computed + 1;
    } else {
      step.prefill_tokens += tokens;
      step.prefill_positions += tokens * r.computed + tokens * (tokens + 1) / 2;
      step.prefill_ends += r.computed + tokens == known_tokens(r);
    }
    return true;
  }

  void preempt_last() {
    Running r = running_.back();
    running_.pop_back();
    free_blocks_ += r.blocks;
    r.blocks = r.computed = r.scheduled = 0;
    waiting_.push_front(r);
    ++run_.preemptions;
  }

  /// The step's tokens are computed: counts them, and lets go who is done.
  void advance() {
    size_t kept = 0;
    for (size_t i = 0; i < running_.size(); ++i) {
      Running& r = running_[i];
      const bool decoding = decodes(r);
      r.computed += r.scheduled;
      run_.computed_tokens += r.scheduled;
      if (r.scheduled > 0 && r.computed == known_tokens(r)) emit(r, decoding ? 1 + accepted(r) : 1);
      if (r.generated == trace_[r.request].output_tokens)
        free_blocks_ += r.blocks;
      else
        running_[kept++] = r;
    }
    running_.resize(kept);
  }

  void emit(Running& r, int64_t tokens) {
    const int64_t left = trace_[r.request].output_tokens - r.generated;
    const int64_t kept = std::min(tokens, left);
    r.generated += kept;
    r.computed += kept - 1;  // accepted drafts were computed as drafts
    run_.computed_tokens += kept - 1;
    Served& served = run_.served[r.request];
    if (!r.started) served.first_token_s = clock_;
    r.started = true;
    if (r.generated == trace_[r.request].output_tokens) served.finish_s = clock_;
  }

  int64_t accepted(const Running& r) const {
    const Rng rng(policy_.seed, r.request);
    const auto at = static_cast<uint64_t>(r.generated * policy_.draft_tokens);
    int64_t n = 0;
    while (n < policy_.draft_tokens && rng.uniform(at + static_cast<uint64_t>(n)) < policy_.acceptance) ++n;
    return n;
  }

  void pass_to(double time) {
    run_.mean_waiting += static_cast<double>(waiting_.size()) * (time - clock_);
    run_.mean_block_use += static_cast<double>(num_blocks_ - free_blocks_) * (time - clock_);
    clock_ = time;
  }

  /// Keeps every stride-th step; when that gets too much, every second of them and twice the stride.
  void sample_timeline() {
    if (run_.steps % stride_ != 0) return;
    if (run_.timeline.size() == kMaxTimeline) {
      for (size_t i = 0; i < kMaxTimeline / 2; ++i) run_.timeline[i] = run_.timeline[2 * i];
      run_.timeline.resize(kMaxTimeline / 2);
      stride_ *= 2;
      if (run_.steps % stride_ != 0) return;
    }
    run_.timeline.push_back({clock_, static_cast<int64_t>(waiting_.size()),
                             static_cast<int64_t>(running_.size()), num_blocks_ - free_blocks_});
  }

  std::span<const Request> trace_;
  const SchedulerPolicy& policy_;
  const StepTime& step_time_;
  const int64_t num_blocks_;
  int64_t free_blocks_;
  int64_t budget_ = 0;
  double clock_ = 0;
  size_t arrived_ = 0;
  std::deque<Running> waiting_;
  std::vector<Running> running_;  // in the order of admission
  int64_t stride_ = 1;
  int64_t decode_steps_ = 0, decoded_ = 0;
  ServingRun run_;
};

/// Keys and values that a request needs at its longest: its last token is never an input.
int64_t cached_at_most(const Request& r, const SchedulerPolicy& policy) {
  return r.input_tokens + r.output_tokens - 1 + (r.output_tokens > 1 ? policy.draft_tokens : 0);
}

void check_fits(std::span<const Request> trace, const SchedulerPolicy& policy) {
  const int64_t capacity =
      policy.cache_tokens / policy.block_tokens / policy.cache_parts * policy.block_tokens;
  for (size_t i = 0; i < trace.size(); ++i) {
    const int64_t need = cached_at_most(trace[i], policy);
    check<UsageError>(need <= capacity, "request ", i, " (", trace[i].input_tokens, " tokens in, ",
                      trace[i].output_tokens, " out) can never run: it needs ", need, " cached tokens, ",
                      need - capacity, " more than the ", capacity, " that ",
                      policy.cache_parts > 1 ? "one attention replica's" : "the", " cache holds");
  }
}

}  // namespace

void SchedulerPolicy::validate() const {
  const auto positive = [](int64_t value, const char* what) {
    check<UsageError>(value >= 1, what, ": expected at least 1, got ", value);
  };
  positive(max_step_tokens, "tokens of a step");
  positive(max_running, "running requests");
  positive(block_tokens, "tokens of a block");
  positive(cache_parts, "parts of the cache");
  check<UsageError>(cache_tokens >= block_tokens, "the cache holds ", cache_tokens,
                    " tokens, less than one block of ", block_tokens);
  check<UsageError>(draft_tokens >= 0 && draft_tokens <= 64, "draft tokens: expected 0 to 64, got ",
                    draft_tokens);
  check<UsageError>(acceptance >= 0 && acceptance <= 1, "acceptance: expected 0 to 1, got ", acceptance);
}

ServingRun simulate_serving(std::span<const Request> trace, const SchedulerPolicy& policy,
                            const StepTime& step_time) {
  policy.validate();
  check<UsageError>(!trace.empty(), "the trace has no requests");
  check_fits(trace, policy);
  return Scheduler(trace, policy, step_time).run();
}

ServingRun simulate_replicas(std::span<const Request> trace, const SchedulerPolicy& policy,
                             const StepTime& step_time, int64_t replicas, ThreadPool& pool) {
  check<UsageError>(replicas >= 1, "replicas: expected at least 1, got ", replicas);
  if (replicas == 1) return simulate_serving(trace, policy, step_time);
  policy.validate();
  check_fits(trace, policy);  // here, so that an error counts requests as the trace does
  const auto n = std::min(static_cast<size_t>(replicas), trace.size());
  std::vector<std::vector<Request>> shares(n);
  for (size_t i = 0; i < trace.size(); ++i) shares[i % n].push_back(trace[i]);
  std::vector<ServingRun> runs(n);
  pool.run(static_cast<int64_t>(n), [&](int64_t task, int) {
    const auto i = static_cast<size_t>(task);
    runs[i] = simulate_serving(shares[i], policy, step_time);
  });

  ServingRun all;
  all.timeline = runs[0].timeline;
  all.served.resize(trace.size());
  for (size_t i = 0; i < trace.size(); ++i) all.served[i] = runs[i % n].served[i / n];
  for (const ServingRun& r : runs) {
    all.end_s = std::max(all.end_s, r.end_s);
    all.busy_s += r.busy_s;
    all.steps += r.steps;
    all.computed_tokens += r.computed_tokens;
    all.preemptions += r.preemptions;
    all.max_waiting = std::max(all.max_waiting, r.max_waiting);
    all.mean_waiting += r.mean_waiting / static_cast<double>(n);
    all.mean_decoding += r.mean_decoding / static_cast<double>(n);
    all.mean_block_use += r.mean_block_use / static_cast<double>(n);
  }
  return all;
}

}  // namespace moge::sim

// moge bench ops: the operators of one layer alone.
#include <algorithm>

#include "cli/bench_device.h"
#include "cli/layer_ops.h"
#include "cli/model_path.h"
#include "cli/ops_report.h"

namespace moge::cli {

namespace {

constexpr int64_t kMostDecoded = 512;  ///< rows of a decoding step; more are prompts

class OpsBench {
 public:
  OpsBench(const DeviceBenchOptions& o, int64_t context, const spec::ModelConfig& c)
      : context_(context),
        report_(cuda_backend(), o.model.model, o.model.dtype, o.json),
        layer_(cuda_backend(), c, o.model.dtype, o.model.kv_dtype),
        timer_(cuda_backend()) {}

  void all() {
    // One position more than a round number, and some: kernels that cut sequences have a last piece then.
    std::vector<int64_t> contexts = {2049, 128, 512, 1024, 2048, 2304, 4096, 8192};
    if (context_ > 0) contexts = {context_};
    for (const int64_t T : {1,   2,   4,   8,   16,  24,  32,  48,  64,   96,   128,  160,  192,  224,
                            256, 288, 320, 352, 384, 448, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192}) {
      bool layer_timed = false;
      if (T <= kMostDecoded)
        for (const int64_t context : contexts) {
          pass({T, 1, context}, layer_timed);
          layer_timed = true;
        }
      for (const int64_t length : {2048, 512, 128, 8192})
        if (T % length == 0 && T / length <= 8) {
          pass({T / length, length, length}, layer_timed);
          layer_timed = true;
        }
    }
    if (layer_.config.is_moe())
      for (const int64_t rows : {1, 4, 16, 32, 64, 128, 256, 512, 1024}) same_rows(rows);
    report_.finish();
  }

 private:
  /// Times the operators of a step in their order, each reading what the one before it has written. With
  /// `only_attention` the others only surround it.
  void pass(const Attended& attended, bool only_attention) {
    const int64_t T = attended.tokens();
    layer_.begin_pass(T);
    times_ = !only_attention;
    const std::optional<LayerOp> token_layer = T == 1 ? token_layer_op(layer_) : std::nullopt;
    add(step_inputs_op(layer_, attended));
    attention(attended);
    if (token_layer)
      add(*token_layer);
    else
      rest_of_layer(T);
    if (attended.decodes()) step_end(T);
    measure();
    if (!token_layer || only_attention) return;
    // The same op by op, for parts of it.
    attention(attended);
    for (LayerOp& op : ops_) op.reported = false;
    rest_of_layer(T);
    measure();
  }

  /// Timed in every pass.
  void attention(const Attended& attended) {
    add(rope_kv_write_op(layer_, attended.tokens()));
    add(attention_op(layer_, attended));
    ops_.back().step.timed = true;
  }

  void rest_of_layer(int64_t T) {
    const model::ServingActivations& a = layer_.acts;
    quantize(model::flat(a.attn_out), a.attn_q8, a.attn_scale);
    add(dense_op(layer_, kO, rows_of(a.delta, model::flat(a.attn_out), a.attn_q8, a.attn_scale)));
    add(residual_norm_op(layer_, T, 1));
    if (layer_.config.is_moe()) {
      routed(T);
    } else {
      add(dense_op(layer_, kGateUp, rows_of(a.shared_h, a.normed, a.q8, a.q8_scale)));
      quantize(a.shared_h, a.shared_h_q8, a.shared_h_scale);
      add(dense_op(layer_, kDown, rows_of(a.delta, a.shared_h, a.shared_h_q8, a.shared_h_scale)));
      add(residual_norm_op(layer_, T, 1));
    }
    add(dense_op(layer_, kQkv, rows_of(model::flat(a.qkv), a.normed, a.q8, a.q8_scale)));
  }

  /// An MoE block and the norm behind it over T tokens with random routings.
  void routed(int64_t T) {
    const int64_t R = T * layer_.config.num_experts_per_tok;
    const bool shared = layer_.shared > 0;
    const model::ServingActivations& a = layer_.acts;
    const Routings routings = layer_.draw_routings(T);
    add(router_op(layer_, routings, T));
    add(routed_op(layer_, kGateUp, rows_of(a.h, a.normed, a.q8, a.q8_scale), routings, T));
    if (shared) {
      add(dense_beside_op(layer_, kSharedGateUp, rows_of(a.shared_h, a.normed, a.q8, a.q8_scale), T));
      quantize(a.shared_h, a.shared_h_q8, a.shared_h_scale);
    }
    quantize(a.h, a.h_q8, a.h_scale);
    add(routed_op(layer_, kDown, rows_of(a.down.slice(0, 0, R), a.h, a.h_q8, a.h_scale), routings, T));
    if (shared)
      add(dense_beside_op(layer_, kSharedDown,
                          rows_of(a.down.slice(0, R, R + T), a.shared_h, a.shared_h_q8, a.shared_h_scale),
                          T));
    add(residual_norm_op(layer_, T, layer_.slots, routings.drawn[0].slot_row));
  }

  /// Logits and greedy sampling.
  void step_end(int64_t B) {
    Tensor logits;
    layer_.place([&](Arena& arena) { logits = arena.alloc(DType::kF32, {B, layer_.config.vocab_size}); });
    LayerOp head = dense_op(layer_, kHead, {logits, layer_.acts.normed, {}});
    head.step.part = StepPart::kEnd;
    add(std::move(head));
    add(sampling_op(layer_, logits));
  }

  /// Every expert with the same number of rows.
  void same_rows(int64_t rows) {
    layer_.clear();
    times_ = true;
    const SameRows same = layer_.same_rows(rows);
    add(grouped_op(layer_, kGateUp, same.gate_up, same.routing, rows));
    add(grouped_op(layer_, kDown, same.down, same.routing, rows));
    measure();
  }

  /// Nothing for products of bf16.
  void quantize(const Tensor& x, const Tensor& q, const Tensor& scale) {
    if (q) add(quantize_op(x, q, scale));
  }

  void add(LayerOp op) {
    op.step.timed = times_;
    ops_.push_back(std::move(op));
  }

  /// Times the operators added so far, reports them and forgets them.
  void measure() {
    std::vector<StepOp> steps;
    for (const LayerOp& op : ops_) steps.push_back(op.step);
    const std::vector<StepOpSeconds> times = timer_.time(steps);
    for (size_t k = 0; k < ops_.size(); ++k)
      if (ops_[k].step.timed && ops_[k].reported) report_.add(ops_[k], times[k]);
    ops_.clear();
  }

  int64_t context_;
  OpsReport report_;  // measures before the layer takes its memory
  LayerSetup layer_;
  StepTimer timer_;
  std::vector<LayerOp> ops_;
  bool times_ = true;  // the operators that are added
};

}  // namespace

void bench_device_ops(const DeviceBenchOptions& o, int64_t context) {
  const spec::ModelConfig c = spec::load_model_config(find_model(o.model.model));
  OpsBench(o, context, c).all();
}

}  // namespace moge::cli

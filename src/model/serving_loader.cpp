#include "model/serving_loader.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

#include "core/transfer.h"
#include "io/copy_convert.h"
#include "io/hf_checkpoint.h"
#include "model/loader.h"
#include "ops/quant_matmul.h"
#include "ops/quantize.h"

namespace moge::model {

namespace {

/// Host memory that tensors pass through on their way to a device, in turns: while one part is copied, the
/// next is filled. Pinned for a device, so that copies run beside the CPU's work.
class Staging {
 public:
  Staging(ExecContext& ctx, int64_t part_bytes) : ctx_(ctx), part_bytes_(part_bytes) {
    for (Part& part : parts_) {
      if (ctx_.backend) {
        part.pinned = ctx_.backend->allocate_pinned(part_bytes, "loader: staging");
        part.sent = ctx_.backend->make_event();
      } else {
        part.memory = Buffer(part_bytes, "loader: staging");
        part.pinned = part.memory.data();
      }
    }
  }
  ~Staging() {
    for (const Part& part : parts_)
      if (ctx_.backend && part.pinned) ctx_.backend->deallocate_pinned(part.pinned);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  int64_t part_bytes() const { return part_bytes_; }
  /// A tensor to fill, of at most part_bytes(). What was sent from the same memory has arrived.
  Tensor next(DType dtype, Shape shape) {
    turn_ = (turn_ + 1) % 2;
    if (parts_[turn_].sent) parts_[turn_].sent->wait();
    return {parts_[turn_].pinned, dtype, shape};
  }
  /// Queues the copy of what next() gave last.
  void send(const Tensor& to) {
    upload(ctx_, to, parts_[turn_].pinned);
    if (parts_[turn_].sent) parts_[turn_].sent->record();
  }

 private:
  struct Part {
    void* pinned = nullptr;
    Buffer memory;
    std::unique_ptr<Event> sent;
  };
  ExecContext& ctx_;
  int64_t part_bytes_;
  std::array<Part, 2> parts_;
  size_t turn_ = 0;
};

/// Turns a layer as the checkpoint has it into the serving form. For a device the host only copies: bf16 rows
/// go there as they are and are quantised there, with the same bits.
class Converter {
 public:
  Converter(ExecContext& ctx, const spec::ModelConfig& config, DType dtype)
      : ctx_(ctx),
        staging_(ctx, part_bytes(config)),
        unquantised_(ctx.backend && dtype != DType::kBF16 ? part_bytes(config) : 0,
                     "loader: unquantised weights", ctx.backend) {
    if (dtype == DType::kBF16) return;
    Workspace planner;
    ctx_.workspace = &planner;
    ctx_.planning = true;
    for (const int64_t K :
         {config.hidden_size, expert_width(config), always_on_width(config), config.q_dim()}) {
      if (K == 0) continue;  // no shared experts
      const auto tensor = [&](DType type, Shape shape) { return Tensor(nullptr, type, shape, ctx.device); };
      ops::quantize_rows(
          ctx_,
          {.q = tensor(dtype, {1, K}), .scale = tensor(DType::kF32, {1}), .x = tensor(DType::kBF16, {1, K})});
    }
    ctx_.planning = false;
    workspace_ = Workspace(planner.planned_bytes(), ctx.backend);
    ctx_.workspace = &workspace_;
  }

  /// In pieces that the staging memory holds.
  void plain(const Tensor& to, const Tensor& from) {
    if (!to) return;
    const int64_t rows = to.dim(0), piece = std::max<int64_t>(1, staging_.part_bytes() * rows / to.bytes());
    for (int64_t begin = 0; begin < rows; begin += piece) {
      const Tensor part = to.slice(0, begin, std::min(rows, begin + piece));
      io::copy_convert(staging_.next(part.dtype, part.shape),
                       from.slice(0, begin, std::min(rows, begin + piece)), ctx_.pool);
      staging_.send(part);
    }
  }
  /// [N, K] bf16.
  void linear(const ServingLinear& to, const Tensor& from) {
    const Tensor rows = staging_.next(from.dtype, from.shape);
    io::copy_convert(rows, from, ctx_.pool);
    send(to, rows);
  }
  /// Parts [P, N, K] bf16 of rows that `to` has whole, [N, P K].
  void side_by_side(const ServingLinear& to, const Tensor& from) {
    const int64_t parts = from.dim(0), N = from.dim(1), K = from.dim(2);
    const Tensor rows = staging_.next(from.dtype, {N, parts * K});
    for (int64_t p = 0; p < parts; ++p)
      io::copy_convert(rows.slice(1, p * K, (p + 1) * K), from[p], ctx_.pool);
    send(to, rows);
  }
  /// [2F, K] bf16, gate rows then up rows.
  void gate_up(const ServingLinear& to, const Tensor& from) {
    const Tensor rows = staging_.next(from.dtype, from.shape);
    const int64_t blocks = from.dim(0) / 2 / ops::kGateUpBlock, K = from.dim(1);
    const Tensor in = from.view({2, blocks, ops::kGateUpBlock, K});
    const Tensor interleaved = rows.view({blocks, 2 * ops::kGateUpBlock, K});
    for (const int64_t up : {0, 1})
      io::copy_convert(interleaved.slice(1, up * ops::kGateUpBlock, (up + 1) * ops::kGateUpBlock), in[up],
                       ctx_.pool);
    send(to, rows);
  }

 private:
  /// What staging_.next() gave last, in bf16.
  void send(const ServingLinear& to, const Tensor& rows) {
    if (to.w.dtype == DType::kBF16) return staging_.send(to.w);
    Tensor x = rows;
    if (ctx_.backend) {
      x = Tensor(unquantised_.data(), rows.dtype, rows.shape, ctx_.device);
      staging_.send(x);
    }
    ops::quantize_rows(ctx_, {.q = to.w, .scale = to.scale, .x = x});
  }
  /// Of the largest tensor that is quantised, and of the router, which is never a large one.
  static int64_t part_bytes(const spec::ModelConfig& c) {
    const int64_t D = c.hidden_size;
    return std::max({(c.q_dim() + 2 * c.kv_dim()) * D * size_of(DType::kBF16),
                     2 * expert_width(c) * D * size_of(DType::kBF16),
                     always_on_width(c) * D * size_of(DType::kBF16),
                     c.num_experts * D * size_of(DType::kF32)});
  }
  ExecContext ctx_;
  Staging staging_;
  Buffer unquantised_;  // on the device
  Workspace workspace_;
};

ServingLinear expert(const ServingLinear& all, int64_t e) {
  return {all.w[e], all.scale ? all.scale[e] : Tensor()};
}
ServingLinear row_slice(const ServingLinear& all, int64_t begin, int64_t end) {
  return {all.w.slice(0, begin, end), all.scale ? all.scale.slice(0, begin, end) : Tensor()};
}

void convert_layer(Converter& convert, const ServingLayer& to, const LayerWeights& from) {
  convert.plain(to.input_layernorm, from.input_layernorm);
  convert.linear(to.qkv_proj, from.qkv_proj);
  convert.plain(to.qkv_bias, from.qkv_bias);
  convert.plain(to.q_norm, from.q_norm);
  convert.plain(to.k_norm, from.k_norm);
  convert.linear(to.o_proj, from.o_proj);
  convert.plain(to.o_bias, from.o_bias);
  convert.plain(to.post_attention_layernorm, from.post_attention_layernorm);
  convert.plain(to.gate, from.gate);
  convert.plain(to.router_scale, from.router_scale);
  const int64_t all = from.gate_up_proj.dim(0), E = from.gate ? from.gate.dim(0) : 0;
  for (int64_t e = 0; e < E; ++e) {
    convert.gate_up(expert(to.gate_up_proj, e), from.gate_up_proj[e]);
    convert.linear(expert(to.down_proj, e), from.down_proj[e]);
  }
  if (E == all) return;
  const int64_t rows = from.gate_up_proj.dim(1);
  for (int64_t e = E; e < all; ++e)
    convert.gate_up(row_slice(to.shared_gate_up_proj, (e - E) * rows, (e - E + 1) * rows),
                    from.gate_up_proj[e]);
  convert.side_by_side(to.shared_down_proj, from.down_proj.slice(0, E, all));
}

/// A checkpoint's tensors in the order in which they are loaded, in groups: the embedding, each layer, the
/// norm, the head.
std::vector<std::vector<HfTensor>> in_groups(const std::vector<HfTensor>& tensors) {
  std::vector<std::vector<HfTensor>> groups;
  std::string group_name;
  for (const HfTensor& t : tensors) {
    const size_t layer_end = t.name.find('.', std::string_view("model.layers.").size());
    const std::string name = t.name.starts_with("model.layers.") ? t.name.substr(0, layer_end) : t.name;
    if (name != group_name) groups.emplace_back();
    group_name = name;
    groups.back().push_back(t);
  }
  return groups;
}

/// Reads the groups one after the other. Each is checked where it is read, while the disk already brings the
/// next.
class GroupReader {
 public:
  GroupReader(io::CheckpointReader& reader, std::vector<std::vector<HfTensor>> groups, ThreadPool& pool)
      : reader_(reader), groups_(std::move(groups)), pool_(pool) {
    for (const std::vector<HfTensor>& group : groups_)
      for (const HfTensor& t : group) total_ += t.file_shape.numel();
    reader_.will_need(names(0));
  }

  const std::vector<HfTensor>& next_group() const { return groups_[next_]; }
  /// The next group's mapped tensors, each of `shape` if there is one, else of its own.
  std::vector<Tensor> take(const Shape* shape = nullptr) {
    const size_t group = next_++;
    std::vector<Tensor> sources;
    for (const HfTensor& t : groups_[group])
      sources.push_back(reader_.take(t.name, shape ? *shape : t.file_shape));
    reader_.will_need(names(group + 1));
    reader_.check(names(group), pool_);
    for (const HfTensor& t : groups_[group]) done_ += t.file_shape.numel();
    return sources;
  }
  int64_t done() const { return done_; }  ///< elements, as total()
  int64_t total() const { return total_; }

 private:
  std::vector<std::string> names(size_t group) const {
    std::vector<std::string> all;
    if (group < groups_.size())
      for (const HfTensor& t : groups_[group]) all.push_back(t.name);
    return all;
  }

  io::CheckpointReader& reader_;
  std::vector<std::vector<HfTensor>> groups_;
  ThreadPool& pool_;
  size_t next_ = 0;
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

ServingModel load_serving_model(ExecContext& ctx, const std::filesystem::path& dir,
                                const spec::ModelConfig& config, DType dtype, const LoadProgress& progress) {
  io::CheckpointReader reader(dir);
  ServingModel model = allocate_serving_model(ctx, config, dtype);
  take_tied_head(reader, config);

  // One layer of host memory serves all: every layer of `staged` is the same views, under its own names.
  spec::ModelConfig one_layer = config;
  one_layer.num_hidden_layers = 1;
  one_layer.vocab_size = 1;  // embedding and head are copied from the file
  Arena plan;
  allocate_weights(plan, one_layer, DType::kBF16);
  Arena memory(plan.used_bytes(), "loader: one layer");
  Weights staged = allocate_weights(memory, one_layer, DType::kBF16);
  staged.layers.resize(static_cast<size_t>(config.num_hidden_layers), staged.layers.front());

  Converter convert(ctx, config, dtype);
  GroupReader groups(reader, in_groups(hf_tensors(staged, config)), *ctx.pool);
  const auto read_vocabulary = [&](const Tensor& to) { convert.plain(to, groups.take(&to.shape)[0]); };
  read_vocabulary(model.weights.embed_tokens);
  for (const ServingLayer& layer : model.weights.layers) {
    const std::vector<HfTensor>& views = groups.next_group();
    const std::vector<Tensor> sources = groups.take();
    for (size_t i = 0; i < sources.size(); ++i)
      io::copy_convert(views[i].view, sources[i].view(views[i].view.shape), ctx.pool);
    convert_layer(convert, layer, staged.layers.front());
    if (progress) progress(groups.done(), groups.total());
  }
  convert.plain(model.weights.norm, groups.take()[0]);
  if (!config.tie_word_embeddings) read_vocabulary(model.weights.lm_head);
  synchronize(ctx, "loading weights");
  reader.finish();
  pack_for_serving(ctx, model.weights);
  return model;
}

}  // namespace moge::model

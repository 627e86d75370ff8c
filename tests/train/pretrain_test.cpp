// Whole runs on a small corpus: learning, resuming to the same bits, micro-batching, refusing what does not
// fit.
#include "train/pretrain.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/files.h"
#include "core/rng.h"
#include "refusal.h"
#include "spec/cost.h"
#include "temp_dir.h"
#include "text/bpe_trainer.h"
#include "text/corpus.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"

namespace moge::train {
namespace {

namespace fs = std::filesystem;
using test::refusal;

class PretrainTest : public testing::Test {
 protected:
  PretrainTest() {
    pool_ = std::make_unique<ThreadPool>(2);
    ctx_.pool = pool_.get();
    write_text();
    write_model();
  }

  void write_text() const;
  void write_model() const;
  TrainConfig config(const std::string& output, const std::string& extra = "") const;
  PretrainResult run(const TrainConfig& c, int64_t max_steps = 0) {
    const std::atomic<bool> stop = false;
    return pretrain(c, ctx_, {.max_steps = max_steps}, stop);
  }

  const test::TempDir temp_;
  const fs::path dir_ = temp_.path();
  std::unique_ptr<ThreadPool> pool_;
  ExecContext ctx_;
};

void PretrainTest::write_text() const {
  Rng rng(7);
  const std::vector<std::string> words = {"the", "cat", "dog",   "saw",   "ran",
                                          "to",  "a",   "house", "green", "old"};
  fs::create_directories(dir_ / "text");
  for (int d = 0; d < 12; ++d) {
    std::ofstream out(dir_ / "text" / str("doc", d, ".txt"));
    for (int w = 0; w < 200; ++w)
      out << words[rng.next_below(static_cast<uint32_t>(words.size()))] << (w % 9 == 8 ? ".\n" : " ");
  }
}

void PretrainTest::write_model() const {
  std::ofstream(dir_ / "config.json")
      << R"({"model_type": "PanguProMoE", "architectures": ["PanguProMoEForCausalLM"],
    "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
    "num_experts": 6, "num_experts_per_tok": 2, "num_expert_groups": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "router_aux_loss_coef": 0.01, "torch_dtype": "float32"})";
  std::ifstream in(dir_ / "text" / "doc0.txt");
  text::train_byte_level_bpe([&](std::string& line) { return static_cast<bool>(std::getline(in, line)); },
                             {.vocab_size = 300, .special_tokens = {"<eos>"}, .eos_token = "<eos>"},
                             dir_ / "tokenizer");
}

TrainConfig PretrainTest::config(const std::string& output, const std::string& extra) const {
  const fs::path file = dir_ / (output + ".toml");
  std::ofstream(file)
      << "seed = 3\noutput = '" << (dir_ / output).string() << "'\n"
      << "[model]\nconfig = '" << dir_.string() << "'\ndtype = 'bf16'\n"
      << "[data]\npaths = ['" << (dir_ / "text").string() << "']\ntokenizer = '"
      << (dir_ / "tokenizer").string() << "'\nholdout_modulus = 6\n"
      << "[loss]\nbalance_coef = 0.01\nz_coef = 0.001\n"
      << "[eval]\ntokens = 512\n"
      << "[[phase]]\nname = 'general'\nsteps = 12\nlr = 0.02\nfinal_lr = 0.01\nwarmup_steps = 3\n"
      << "batch_tokens = 128\nsequence_length = 32\n"
      << "[[phase]]\nname = 'annealing'\nsteps = 8\nlr = 0.01\nschedule = 'wsd'\n"
      << "batch_tokens = 256\nsequence_length = 64\n"
      << extra;
  return load_train_config(file);
}

void flip_last_byte(const fs::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const auto byte = static_cast<char>(file.get());
  file.seekp(-1, std::ios::end);
  file.put(static_cast<char>(byte ^ 1));
}

TEST_F(PretrainTest, LearnsAndLeavesALoadableModel) {
  const PretrainResult r = run(config("a"));
  EXPECT_TRUE(r.finished);
  EXPECT_EQ(r.steps, 20);
  // Ten equally likely words: log2(10) bits of information in about 5 bytes with their space, against 8 bits
  // a byte untrained (320 tokens). 20 steps get at least half of the way.
  EXPECT_LT(r.held_out_bits_per_byte, 2.0);
  ThreadPool pool(1);
  Workspace workspace;
  ExecContext ctx{.pool = &pool, .workspace = &workspace};
  const fs::path trained = dir_ / "a" / "model";
  const model::Model m = model::load_model(ctx, trained, spec::load_model_config(trained), DType::kBF16);
  EXPECT_EQ(m.config.num_expert_groups, 2);
  EXPECT_TRUE(fs::exists(dir_ / "a" / "model" / "tokenizer.json"));
}

TEST_F(PretrainTest, ResumesToTheSameBits) {
  TrainConfig a = config("a");
  a.eval_every = 5;
  const PretrainResult whole = run(a);
  // Across the phases' border and in the middle of one, with another number of threads; at a step that is
  // evaluated and at one that is not.
  TrainConfig b = config("b");
  b.eval_every = 5;
  EXPECT_FALSE(run(b, 5).finished);
  pool_ = std::make_unique<ThreadPool>(3);
  ctx_.pool = pool_.get();
  EXPECT_EQ(run(b, 14).steps, 14);
  const PretrainResult parts = run(b);
  EXPECT_EQ(parts.state_hash, whole.state_hash);
  EXPECT_EQ(parts.held_out_bits_per_byte, whole.held_out_bits_per_byte);
  for (const char* log : {"train.csv", "eval.csv"})
    EXPECT_EQ(read_text_file(dir_ / "b" / log), read_text_file(dir_ / "a" / log));
}

/// The numbers of a CSV's rows, in order.
std::vector<std::vector<double>> rows_of(const fs::path& csv) {
  std::vector<std::vector<double>> rows;
  std::ifstream in(csv);
  std::string line, cell;
  for (std::getline(in, line); std::getline(in, line);) {
    std::istringstream cells(line);
    for (rows.emplace_back(); std::getline(cells, cell, ',');) rows.back().push_back(std::stod(cell));
  }
  return rows;
}

/// At lr 0, so that a rounding cannot grow from step to step: AdamW's first steps have the size of lr
/// whatever the gradient's, and a routing may flip. A token's own numbers do not depend on what shares its
/// pass. So counts and losses of tokens are the same, and what is left is the order of sums over tokens
/// (gradients in detail: golden_test.cpp).
TEST_F(PretrainTest, MicroBatchesChangeNothingButTheOrderOfSums) {
  TrainConfig whole = config("a"), cut = config("b");
  cut.micro_batch_tokens = 64;
  for (TrainConfig* c : {&whole, &cut})
    for (Phase& phase : c->phases) phase.lr = phase.final_lr = 0;
  EXPECT_EQ(run(cut).held_out_bits_per_byte, run(whole).held_out_bits_per_byte);

  const double printed = 1e-6;  // of two numbers with seven digits: one in the last
  const double u = 0x1p-24;     // the most that rounding to float changes, relative
  const auto want = rows_of(dir_ / "a" / "train.csv"), got = rows_of(dir_ / "b" / "train.csv");
  ASSERT_EQ(got.size(), 20U);
  ASSERT_EQ(want.size(), got.size());
  for (size_t s = 0; s < got.size(); ++s) {
    for (size_t c = 0; c < want[s].size(); ++c) {
      double tolerance = 0;
      if (c >= 4 && c <= 6) tolerance = printed + 2 * u;  // loss, balance, z_loss: sums in double of floats
      // grad_norm: an element is a chain of at most 256 additions, one a token. Each rounds a part of the
      // sum, which is at most about as large as all of it; the errors of both runs walk at random. Four
      // standard deviations.
      if (c == 7) tolerance = printed + 4 * std::sqrt(2 * 256.0) * u;
      EXPECT_NEAR(got[s].at(c), want[s][c], tolerance * want[s][c]) << "step " << s << ", column " << c;
    }
  }
}

TEST_F(PretrainTest, RemovesWhatAKilledRemovalLeft) {
  const fs::path output = dir_ / "a";
  // A process that is gone moved a checkpoint here and removed half of it.
  for (const fs::path& dir : {output / ".removed.partial-1-0" / "step-00000003", checkpoint_path(output, 6),
                              checkpoint_path(output, 9)}) {
    fs::create_directories(dir);
    std::ofstream(dir / "trainer.json") << "{}";
  }
  remove_old_checkpoints(output, 1);
  std::vector<std::string> left;
  for (const fs::directory_entry& entry : fs::directory_iterator(output))
    left.push_back(entry.path().filename().string());
  EXPECT_EQ(left, std::vector<std::string>{"step-00000009"});
}

TEST_F(PretrainTest, SaysWhatMemoryDoesNotHoldBeforeItAllocates) {
  const spec::ModelConfig model = spec::load_model_config(dir_);
  TrainConfig c = config("a");
  const auto total = [&](int64_t layers, int64_t tokens) {
    spec::ModelConfig shape = model;
    shape.num_hidden_layers = layers;
    return TrainStep::plan(ctx_, shape, c.dtype, c.loss, tokens, tokens).total();
  };
  const auto fits = [&](int64_t free) {
    return refusal<OutOfMemoryError>([&] { check_fits(ctx_, c, model, free); });
  };
  // The second phase's batch is the largest; rows of 32 and of 64 tokens have to divide it and the first's.
  EXPECT_EQ(fits(total(2, 256)), "(accepted)");
  const std::string batch = fits(total(2, 256) - 1);
  EXPECT_TRUE(batch.starts_with("the plan does not fit in the CPU's memory: weights 77.0 KiB, gradients "))
      << batch;
  EXPECT_TRUE(batch.ends_with(" too few for the workspace. At most micro_batch_tokens = 128 would fit"))
      << batch;
  EXPECT_TRUE(fits(total(2, 128)).ends_with(" micro_batch_tokens = 128 would fit"));
  EXPECT_TRUE(fits(total(2, 128) - 1).ends_with(" micro_batch_tokens = 64 would fit"));
  c.micro_batch_tokens = 64;
  EXPECT_EQ(fits(total(2, 64)), "(accepted)");
  EXPECT_TRUE(fits(total(2, 64) - 1).ends_with(". At most 1 of 2 layers would fit"));
  EXPECT_TRUE(fits(1000).ends_with("Not even 1 of 2 layers would fit"));
}

TEST_F(PretrainTest, KnowsWhenATextHasChanged) {
  run(config("a"), 2);
  const std::string packed = read_text_file(dir_ / "a" / "corpus" / "corpus.json");
  EXPECT_EQ(run(config("a"), 3).steps, 3);
  std::ofstream(dir_ / "text" / "doc3.txt", std::ios::app) << "one more sentence.\n";
  EXPECT_NE(refusal([&] { run(config("a")); }).find("was made with other data"), std::string::npos);
  const std::atomic<bool> stop = false;
  EXPECT_EQ(pretrain(config("a"), ctx_, {.fresh = true, .max_steps = 1}, stop).steps, 1);
  EXPECT_NE(read_text_file(dir_ / "a" / "corpus" / "corpus.json"), packed);
}

TEST_F(PretrainTest, KnowsWhenATokenizersOtherFilesHaveChanged) {
  const fs::path file = dir_ / "tokenizer" / "tokenizer_config.json";
  nlohmann::json json = nlohmann::json::parse(read_text_file(file));
  run(config("a"), 2);
  json["chat_template"] = "{{ messages }}";  // changes no token
  std::ofstream(file) << json;
  EXPECT_EQ(run(config("a"), 3).steps, 3);
  json["eos_token"] = "t";
  std::ofstream(file) << json;
  EXPECT_NE(refusal([&] { run(config("a")); }).find("was made with other data"), std::string::npos);
}

TEST_F(PretrainTest, CountsTheBytesThatAreTargets) {
  const auto bytes_of_the_first = [&](const std::string& output) {
    run(config(output), 1);
    return text::Corpus(dir_ / output / "corpus").document_text_bytes(0);
  };
  const auto all = static_cast<int64_t>(fs::file_size(dir_ / "text" / "doc0.txt"));
  const std::unique_ptr<text::Tokenizer> tokenizer = text::load_tokenizer(dir_ / "tokenizer");
  const int32_t first =
      tokenizer->encode(read_text_file(dir_ / "text" / "doc0.txt"), {.add_special_tokens = false}).front();
  // This tokenizer has no bos, so that no position predicts a text's first token.
  EXPECT_EQ(bytes_of_the_first("a"), all - static_cast<int64_t>(tokenizer->decode({&first, 1}).size()));
  const fs::path file = dir_ / "tokenizer" / "tokenizer_config.json";
  nlohmann::json json = nlohmann::json::parse(read_text_file(file));
  json["bos_token"] = "<eos>";
  std::ofstream(file) << json;
  EXPECT_EQ(bytes_of_the_first("b"), all);
}

/// moge inspect's estimate, of simpler formulas, beside what the trainer allocates: within 5 percent.
TEST_F(PretrainTest, EstimatesWhatItPlans) {
  for (const char* name :
       {"demo-moge", "demo-topk", "moge-s-22m", "dense-500m", "qwen3-30b-a3b", "pangu-pro-moe-72b-a16b"}) {
    const spec::ModelConfig shape =
        spec::load_model_config(fs::path(MOGE_SOURCE_DIR) / "configs/models" / name);
    for (const int64_t tokens : {2048, 8192}) {
      const TrainStep::MemoryPlan plan = TrainStep::plan(ctx_, shape, DType::kBF16, {}, tokens, 1);
      const spec::MemoryPlan estimate = spec::training_memory(shape, {.micro_batch_tokens = tokens});
      const auto planned = static_cast<double>(plan.total() - plan.workspace);
      EXPECT_NEAR(static_cast<double>(estimate.total()) / planned, 1, 0.05) << name << ", " << tokens;
    }
  }
}

TEST_F(PretrainTest, RefusesConstantsThatAdamWDividesByAsZero) {
  for (const std::string wrong :
       {"beta1 = 1.0", "beta2 = 1", "beta2 = 0.999999999", "eps = 0", "eps = 1e-60"}) {
    const std::string message = refusal([&] { config("a", str("[optimizer]\n", wrong, "\n")); });
    EXPECT_NE(message.find(str("'", wrong.substr(0, wrong.find(' ')), "': expected a number")),
              std::string::npos)
        << message;
    EXPECT_NE(message.find(", got "), std::string::npos) << message;
  }
}

TEST_F(PretrainTest, WritesNoModelThatDiverged) {
  TrainConfig c = config("a");
  c.optimizer.beta1 = 1;  // past the check of the file: the first update divides by zero
  EXPECT_NE(refusal<Error>([&] { run(c); }).find("held-out loss is not finite"), std::string::npos);
  c.eval_every = 0;
  c.checkpoint_every = 2;
  EXPECT_NE(refusal<Error>([&] { run(c); }).find("is not finite"), std::string::npos);
  c.checkpoint_every = 0;
  c.phases[0].steps = 200;
  EXPECT_NE(refusal<Error>([&] { run(c); }).find("step 101: 100 updates in a row"), std::string::npos);
  EXPECT_FALSE(latest_checkpoint(dir_ / "a"));
  EXPECT_FALSE(fs::exists(dir_ / "a" / "model"));
}

TEST_F(PretrainTest, CountsRefusedUpdatesAcrossAResume) {
  TrainConfig c = config("a");
  run(c, 2);
  // A guard that refuses whatever comes.
  const fs::path state = checkpoint_path(dir_ / "a", 2) / "trainer.json";
  nlohmann::json json = nlohmann::json::parse(read_text_file(state));
  EXPECT_EQ(json["num_refused"], 0);
  json["guard"] = {{"mean", 0.0}, {"variance", 0.0}, {"count", 100}};
  json["num_refused"] = 98;
  atomic_write_file(state, json.dump());
  c.spike_sigmas = 1;
  run(c, 3);
  EXPECT_NE(refusal<Error>([&] { run(c); }).find("step 4: 100 updates in a row"), std::string::npos);
}

TEST(TrainConfig, DifferencesAreOfWhatAFileSays) {
  EXPECT_EQ(config_difference("seed = 1\n[eval]\nevery = 2\n", "# one\nseed=1\n\n[eval]\nevery = 2"), "");
  EXPECT_EQ(config_difference("[loss]\nz_coef = 0.5\n", "[loss]\nz_coef = 0.25\n"),
            "/loss/z_coef: saved 0.5, now 0.25");
  EXPECT_EQ(config_difference("seed = 1\n", ""), "/seed: saved 1, now nothing");
  EXPECT_EQ(config_difference("[[phase]]\nsteps = 1\n", "[[phase]]\nsteps = 1\n[[phase]]\nsteps = 2\n"),
            "/phase/-: saved nothing, now {\"steps\":2}");
}

TEST_F(PretrainTest, RefusesWhatDoesNotFit) {
  run(config("a"), 2);
  EXPECT_NE(refusal([&] {
              run(config("a", "[optimizer]\nbeta2 = 0.9\n"));
            }).find("another configuration: /optimizer: saved nothing, now {\"beta2\":0.9}"),
            std::string::npos);
  EXPECT_EQ(run(config("a", "# a comment\n"), 3).steps, 3);
  EXPECT_NE(refusal([&] { config("c", "[optimizr]\nbeta2 = 0.9\n"); }).find("did you mean 'optimizer'"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              config("c", "[[phase]]\nsteps = 5\nbatch_tokens = 100\nsequence_length = 64\n");
            }).find("multiple of sequence_length"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              run(config("c", "[[phase]]\nsteps = 5\nbatch_tokens = 128\nsequence_length = 128\n"));
            }).find("sequence_length = 128: expected at most the model's max_position_embeddings = 64"),
            std::string::npos);
  const std::string row = "sequence_length = 2\n";
  for (const std::string& phase : {"steps = 9223372036854775800\nbatch_tokens = 2\n" + row,
                                   "steps = 1\nbatch_tokens = 4611686018427387904\n" + row})
    EXPECT_NE(refusal([&] { config("c", "[[phase]]\n" + phase); }).find("expected an integer from 1 to"),
              std::string::npos);
  EXPECT_NE(refusal([&] {
              config("c", "[batch]\nmicro_batch_tokens = 4611686018427387904\n");
            }).find("'micro_batch_tokens': expected an integer from 0 to 2147483647"),
            std::string::npos);
  flip_last_byte(latest_checkpoint(dir_ / "a").value() / "model.safetensors");
  const std::string damaged = refusal([&] { run(config("a")); });
  EXPECT_NE(damaged.find("checksum"), std::string::npos);
  EXPECT_NE(damaged.find("step-00000003 is damaged, remove it, and the run resumes from " +
                         checkpoint_path(dir_ / "a", 2).string()),
            std::string::npos)
      << damaged;
  fs::remove_all(checkpoint_path(dir_ / "a", 2));
  EXPECT_NE(refusal([&] { run(config("a")); }).find("and the run begins anew"), std::string::npos);
  flip_last_byte(dir_ / "a" / "corpus" / "tokens-00000.bin");
  EXPECT_NE(refusal([&] { run(config("a")); }).find("tokens-00000.bin: corrupt"), std::string::npos);
  TrainConfig packed = config("b");
  packed.data = {dir_ / "a" / "corpus"};
  EXPECT_NE(refusal([&] { run(packed); }).find("tokens-00000.bin: corrupt"), std::string::npos);
}

}  // namespace
}  // namespace moge::train

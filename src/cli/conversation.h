// A chat: the turns so far, and the prompt that the model's template makes of them.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moge::cli {

class Conversation {
 public:
  /// Nothing if the model has no chat template, which makes it one that only continues texts. (A Pangu
  /// tokenizer brings its model's template.)
  static std::optional<Conversation> open(const std::filesystem::path& model_dir,
                                          const text::Tokenizer& tokenizer, const std::string& system);

  /// `role`: "user" or "assistant".
  void add(const std::string& role, const std::string& content);
  void drop_last() { turns_.pop_back(); }
  /// Back to the system message.
  void reset() { turns_.clear(); }
  /// The ids of the whole conversation, up to where the assistant speaks. RequestError when the template
  /// refuses it.
  std::vector<int32_t> prompt() const;

 private:
  struct Turn {
    std::string role, content;
  };
  Conversation(text::ChatTemplates templates, const text::Tokenizer& tokenizer, std::string system)
      : templates_(std::move(templates)), tokenizer_(&tokenizer), system_(std::move(system)) {}

  text::ChatTemplates templates_;
  const text::Tokenizer* tokenizer_;
  std::string system_;
  std::vector<Turn> turns_;
};

}  // namespace moge::cli

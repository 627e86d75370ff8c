// From a conversation to the prompt's text, by the template that the model ships: a subset of Jinja large
// enough for the chat templates in use (docs: loops, macros, namespaces, filters, tests, slices, string
// methods, white space control), rendering what Hugging Face's apply_chat_template renders.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace moge::text {

/// What a template sees. ordered_json: templates print JSON schemas, and the order of their keys matters.
struct ChatInput {
  /// An array of objects with "role" and "content" (a string, or an array of parts), as in the OpenAI API. As
  /// transformers does, null members are dropped, and "reasoning" and "thinking" are also given as
  /// "reasoning_content".
  const nlohmann::ordered_json& messages;
  const nlohmann::ordered_json* tools = nullptr;   ///< an array of function schemas; null: none
  const nlohmann::ordered_json* kwargs = nullptr;  ///< an object: more variables (enable_thinking, ...)
  bool add_generation_prompt = true;               ///< end where the assistant's turn begins
  std::optional<std::string> bos_token;            ///< undefined in the template when absent
  std::optional<std::string> eos_token;
  std::optional<int64_t> now;  ///< seconds since 1970, for strftime_now; default: the clock
};

/// A parsed template. Const and safe to share between threads.
class ChatTemplate {
 public:
  /// `name` (a path) begins error messages. FileError with line and excerpt for a template that is malformed
  /// or uses what this subset lacks.
  explicit ChatTemplate(std::string source, std::string name = "chat template");
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// RequestError when the template refuses the messages (raise_exception) or they are not messages.
  /// FileError with line and excerpt when it fails by itself (undefined members, wrong types, division by
  /// zero) or runs longer than any real one (20 million steps, 128 MiB of text).
  std::string render(const ChatInput& input) const;

  const std::string& source() const { return source_; }

 private:
  struct Program;
  std::string source_;
  std::string name_;
  std::unique_ptr<Program> program_;
};

/// Pangu Pro MoE's format, for a model folder without a template: "[unused9]" opens a turn, then the role
/// (系统：, 用户：, 助手：), "[unused10]" closes it; "[unused16]" and "[unused17]" enclose thinking.
ChatTemplate pangu_chat_template();

/// A model's templates by name; nearly always only "default".
class ChatTemplates {
 public:
  /// Reads chat_template.jinja (and additional_chat_templates/NAME.jinja), else "chat_template" of
  /// tokenizer_config.json (a string, or a list of {"name", "template"}), else chat_template.json; a folder
  /// with none of them gets Pangu's. FileError for broken ones.
  static ChatTemplates load(const std::filesystem::path& model_dir);

  /// "tool_use" when there are tools and the model has it, else "default". FileError if there is neither.
  const ChatTemplate& pick(bool has_tools) const;
  const ChatTemplate* find(const std::string& name) const;
  /// False when the folder had none and Pangu's stands in.
  bool from_model() const { return from_model_; }

 private:
  std::map<std::string, ChatTemplate> templates_;
  bool from_model_ = true;
};

}  // namespace moge::text

#include "cli/conversation.h"

#include <nlohmann/json.hpp>

namespace moge::cli {

namespace {

std::optional<std::string> piece(const text::Tokenizer& tokenizer, const std::optional<int32_t>& id) {
  return id ? std::optional(tokenizer.id_to_piece(*id)) : std::nullopt;
}

}  // namespace

std::optional<Conversation> Conversation::open(const std::filesystem::path& model_dir,
                                               const text::Tokenizer& tokenizer, const std::string& system) {
  text::ChatTemplates templates = text::ChatTemplates::load(model_dir);
  if (!templates.from_model() && !tokenizer.piece_to_id("[unused9]")) return std::nullopt;
  return Conversation(std::move(templates), tokenizer, system);
}

void Conversation::add(const std::string& role, const std::string& content) {
  turns_.push_back({role, content});
}

std::vector<int32_t> Conversation::prompt() const {
  auto messages = nlohmann::ordered_json::array();
  const auto add = [&](const std::string& role, const std::string& content) {
    // Text that spells the end of a turn must not end it.
    messages.push_back({{"role", role}, {"content", tokenizer_->shield(content)}});
  };
  if (!system_.empty()) add("system", system_);
  for (const Turn& turn : turns_) add(turn.role, turn.content);
  const std::string text =
      templates_.pick(false).render({.messages = messages,
                                     .bos_token = piece(*tokenizer_, tokenizer_->special_ids().bos),
                                     .eos_token = piece(*tokenizer_, tokenizer_->special_ids().eos)});
  // The template has written bos and the turns' markers as text.
  return tokenizer_->encode(text, {.add_special_tokens = false, .parse_special = true, .shielded = true});
}

}  // namespace moge::cli

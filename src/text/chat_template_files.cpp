// Where a model folder keeps its chat templates.
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "text/chat_template.h"

namespace moge::text {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxTemplateBytes = int64_t{4} << 20;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

using Templates = std::map<std::string, ChatTemplate>;

void read_jinja(const fs::path& path, const std::string& name, Templates& into) {
  into.insert_or_assign(name, ChatTemplate(read_text_file(path, kMaxTemplateBytes), path.string()));
}

/// The member "chat_template" of a JSON file: a string or a list of named ones.
void read_json(const fs::path& path, Templates& into) {
  const nlohmann::json json = parse_json(read_text_file(path), path.string());
  JsonObject object(json, path.string());
  const nlohmann::json* member = object.find("chat_template");
  if (!member) return;
  const std::string where = path.string() + ": chat_template";
  if (member->is_string()) {
    into.insert_or_assign("default", ChatTemplate(member->get<std::string>(), where));
    return;
  }
  if (!member->is_array()) object.throw_wrong("chat_template", "a string or an array");
  for (size_t i = 0; i < member->size(); ++i) {
    JsonObject item((*member)[i], str(where, "[", i, "]"));
    const std::string name = item.require(item.text("name"), "name");
    into.insert_or_assign(
        name, ChatTemplate(item.require(item.text("template"), "template"), str(where, " '", name, "'")));
  }
}

}  // namespace

ChatTemplates ChatTemplates::load(const fs::path& model_dir) {
  ChatTemplates all;
  if (const fs::path path = model_dir / "chat_template.jinja"; is_file(path)) {
    read_jinja(path, "default", all.templates_);
    std::error_code error;
    for (const fs::directory_entry& entry :
         fs::directory_iterator(model_dir / "additional_chat_templates", error))
      if (entry.path().extension() == ".jinja")
        read_jinja(entry.path(), entry.path().stem().string(), all.templates_);
  }
  for (const char* name : {"tokenizer_config.json", "chat_template.json"})
    if (all.templates_.empty() && is_file(model_dir / name)) read_json(model_dir / name, all.templates_);
  if (all.templates_.empty()) {
    all.templates_.emplace("default", pangu_chat_template());
    all.from_model_ = false;
  }
  return all;
}

const ChatTemplate* ChatTemplates::find(const std::string& name) const {
  const auto at = templates_.find(name);
  return at == templates_.end() ? nullptr : &at->second;
}

const ChatTemplate& ChatTemplates::pick(bool has_tools) const {
  const ChatTemplate* picked = has_tools ? find("tool_use") : nullptr;
  if (!picked) picked = find("default");
  if (!picked) {
    std::string names;
    for (const auto& [name, unused] : templates_) names += (names.empty() ? "" : ", ") + name;
    throw FileError(str("the model's chat templates are named ", names, ": expected one named default"));
  }
  return *picked;
}

}  // namespace moge::text

#include "text/chat_template.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>

#include "core/error.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"
#include "text/utf8.h"

namespace moge::text {

namespace {

using Json = nlohmann::ordered_json;

/// "NAME:12: message" and the line itself.
std::string located(const std::string& name, const std::string& source, const jinja::TemplateError& error) {
  std::string_view line = source;
  for (int i = 1; i < error.line; ++i) line.remove_prefix(std::min(line.find('\n') + 1, line.size()));
  line = line.substr(0, std::min(line.find('\n'), line.size()));
  const size_t kept = utf8_valid_prefix(line.substr(0, 160));
  return str(name, ":", error.line, ": ", error.message, "\n  ", line.substr(0, kept),
             kept < line.size() ? "..." : "");
}

/// What transformers does before it renders: drops null members and gives the reasoning its one name.
Json normalized(const Json& messages) {
  check<RequestError>(messages.is_array(), "messages: expected an array, got ", messages.type_name());
  Json result = Json::array();
  for (const Json& message : messages) {
    check<RequestError>(message.is_object(), "messages[", result.size(), "]: expected an object, got ",
                        message.type_name());
    Json kept = Json::object();
    const Json* reasoning = nullptr;
    for (const char* key : {"reasoning", "thinking", "reasoning_content"})  // the last one present wins
      if (const auto at = message.find(key); at != message.end() && !at->is_null()) reasoning = &*at;
    if (reasoning && !message.contains("thinking")) kept["thinking"] = *reasoning;
    for (const auto& [key, value] : message.items())
      if (!value.is_null()) kept[key] = value;
    if (reasoning) kept["reasoning_content"] = *reasoning;
    result.push_back(std::move(kept));
  }
  return result;
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string source, std::string name)
    : source_(std::move(source)), name_(std::move(name)) {
  check_utf8<FileError>(source_, name_);
  try {
    program_ = std::make_unique<Program>(Program{jinja::parse(source_)});
  } catch (const jinja::TemplateError& error) {
    throw FileError(located(name_, source_, error));
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const ChatInput& input) const {
  try {
    std::unordered_map<std::string, jinja::Value> variables;
    if (input.kwargs) {
      check<RequestError>(input.kwargs->is_object(), "chat template variables: expected an object, got ",
                          input.kwargs->type_name());
      for (const auto& [key, value] : input.kwargs->items()) variables[key] = jinja::from_json(value);
    }
    if (input.bos_token) variables["bos_token"] = jinja::Value::string(*input.bos_token);
    if (input.eos_token) variables["eos_token"] = jinja::Value::string(*input.eos_token);
    variables["messages"] = jinja::from_json(normalized(input.messages));
    variables["tools"] = input.tools ? jinja::from_json(*input.tools) : jinja::Value::none();
    variables.try_emplace("documents", jinja::Value::none());
    variables["add_generation_prompt"] = jinja::Value::boolean(input.add_generation_prompt);
    const int64_t now = input.now ? *input.now : static_cast<int64_t>(std::time(nullptr));
    return jinja::Interpreter(std::move(variables), now).render(program_->body);
  } catch (const jinja::TemplateError& error) {
    throw FileError(located(name_, source_, error));
  } catch (const jinja::RuntimeError& error) {
    throw RequestError(str(name_, ": ", error.message));
  } catch (const jinja::RaisedException& error) {
    throw RequestError(str("the chat template refused the messages: ", error.message));
  }
}

ChatTemplate pangu_chat_template() {
  return ChatTemplate(
      R"({%- set role_words = {'system': '系统', 'user': '用户', 'assistant': '助手', 'tool': '工具'} -%}
{%- for message in messages -%}
  {%- if message.role not in role_words -%}
    {{- raise_exception('unknown role ' ~ message.role ~ ': expected system, user, assistant or tool') -}}
  {%- endif -%}
  {{- '[unused9]' + role_words[message.role] + '：' -}}
  {%- if message.role == 'assistant' and message.reasoning_content -%}
    {{- '[unused16]' + message.reasoning_content + '[unused17]' -}}
  {%- endif -%}
  {{- message.content + '[unused10]' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '[unused9]' + role_words.assistant + '：' -}}
{%- endif -%})",
      "built-in Pangu chat template");
}

}  // namespace moge::text

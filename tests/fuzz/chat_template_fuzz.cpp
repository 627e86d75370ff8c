// Any bytes are a template that is refused, or renders, or fails, by a FileError or a RequestError and in
// bounded time. Seeds: tests/golden/chat_templates/*.jinja
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Json = nlohmann::ordered_json;
  static const Json messages = Json::parse(R"([{"role": "system", "content": "Be brief."},
      {"role": "user", "content": "Grüße, 世界 👋"},
      {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": [2.5, null]}}}]},
      {"role": "tool", "content": "{\"x\": 1}"}, {"role": "user", "content": [{"type": "text", "text": "and?"}]}])");
  static const Json tools = Json::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}])");
  try {
    const moge::text::ChatTemplate chat(std::string(reinterpret_cast<const char*>(data), size));
    chat.render({.messages = messages,
                 .tools = &tools,
                 .bos_token = "<s>",
                 .eos_token = "</s>",
                 .now = 1'700'000'000});
  } catch (const moge::FileError&) {
  } catch (const moge::RequestError&) {
  }
  return 0;
}

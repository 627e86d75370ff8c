#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "refusal.h"
#include "temp_dir.h"

namespace moge::text {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

const fs::path kGolden = fs::path(MOGE_SOURCE_DIR) / "tests/golden/chat_templates";

Json golden() {
  setenv("TZ", "UTC", 1);  // strftime_now's local time
  return Json::parse(read_text_file(kGolden / "golden.json"));
}

/// The rendering, or the error's message.
struct Outcome {
  std::string text;
  std::string error;
};

Outcome attempt(const std::string& source, const ChatInput& input) {
  try {
    return {ChatTemplate(source).render(input), ""};
  } catch (const FileError& e) {
    return {"", e.what()};
  } catch (const RequestError& e) {
    return {"", e.what()};
  }
}

void expect_golden(const Json& item, const Outcome& got, const std::string& what) {
  if (item.contains("expected"))
    EXPECT_EQ(got.text, item["expected"].get<std::string>()) << what << "\nerror: " << got.error;
  else
    EXPECT_NE(got.error, "") << what << "\nPython refuses: " << item["error"] << "\nwe render: " << got.text;
}

std::string render(const std::string& source, const Json& messages, const Json& kwargs = Json::object()) {
  return ChatTemplate(source, "T").render({.messages = messages, .kwargs = &kwargs});
}

std::string request_error(const std::string& source, const Json& messages = Json::array()) {
  return test::refusal<RequestError>([&] { render(source, messages); });
}

/// Of parsing and, if `renders`, of rendering.
std::string file_error(const std::string& source, bool renders = false) {
  return test::refusal([&] {
    const ChatTemplate parsed(source, "T");
    if (renders) parsed.render({.messages = Json::array()});
  });
}

TEST(ChatTemplate, RendersWhatTransformersRenders) {
  const Json all = golden();
  std::map<std::string, std::string> sources;
  for (const Json& item : all["cases"]) {
    const std::string name = item["template"];
    if (!sources.contains(name)) sources[name] = read_text_file(kGolden / name);
    const Json& options = all["options"][item["options"].get<size_t>()];
    const Json& messages = all["conversations"][item["conversation"].get<std::string>()];
    const ChatInput input{.messages = messages,
                          .tools = options.value("tools", false) ? &all["tools"] : nullptr,
                          .kwargs = options.contains("kwargs") ? &options["kwargs"] : nullptr,
                          .add_generation_prompt = options["add_generation_prompt"],
                          .bos_token = "<s>",
                          .eos_token = "</s>",
                          .now = all["now"].get<int64_t>()};
    expect_golden(item, attempt(sources[name], input),
                  name + " of '" + item["conversation"].get<std::string>() + "' with options " +
                      std::to_string(item["options"].get<int>()));
  }
}

TEST(ChatTemplate, EvaluatesAsJinjaDoes) {
  const Json all = golden();
  const Json nobody = Json::array();
  for (const Json& item : all["snippets"]) {
    const ChatInput input{.messages = nobody, .kwargs = &all["variables"], .now = all["now"].get<int64_t>()};
    expect_golden(item, attempt(item["source"], input), item["source"]);
  }
}

TEST(ChatTemplate, ErrorsNameLineAndExcerpt) {
  EXPECT_EQ(file_error("a\n{% if x %}\n{{ y | nosuch }}\n{% endif %}"),
            "T:3: no filter named 'nosuch'\n  {{ y | nosuch }}");
  EXPECT_NE(file_error("a\nb {{ 1 + }}").find("T:2: expected an expression, got '}}'\n  b {{ 1 + }}"),
            std::string::npos);
  EXPECT_NE(file_error("a\n\xFF").find("expected UTF-8, got an invalid byte at offset 2"), std::string::npos);
  EXPECT_NE(file_error("{% include 'x' %}").find("unsupported tag {% include %}"), std::string::npos);
  EXPECT_NE(file_error("x\n{{ a").find("T:2: the tag {{ is never closed"), std::string::npos)
      << file_error("x\n{{ a");
  EXPECT_EQ(file_error("a\n{{ messages[0].content }}", true),
            "T:2: index 0 is out of range\n  {{ messages[0].content }}");
  EXPECT_EQ(file_error("{{ 1 / 0 }}", true), "T:1: division by zero\n  {{ 1 / 0 }}");
  EXPECT_EQ(file_error("{{ f() }}", true), "T:1: 'f' is undefined\n  {{ f() }}");
  EXPECT_EQ(request_error("{{ raise_exception('roles must alternate') }}"),
            "the chat template refused the messages: roles must alternate");
  EXPECT_EQ(request_error("{{ 1 }}", Json::object()), "messages: expected an array, got object");
  EXPECT_EQ(request_error("{{ 1 }}", Json::array({1})), "messages[0]: expected an object, got number");
}

// Each of these would run or grow for ever, or overflow the stack.
TEST(ChatTemplate, HostileTemplatesEnd) {
  const std::string doubled =
      "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
  const std::string nested =
      "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}";
  const std::string wide =
      "{% set ns = namespace(x=['a']) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
  for (const std::string& source : {
           std::string("{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxxxxxxxxxxx{% endfor "
                       "%}{% endfor %}"),
           std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
           std::string("{% macro f(x) %}{{ f([x]) ~ f([x]) }}{% endmacro %}{{ f(1) }}"),
           std::string("{{ 'x' * 9999999999999 }}"),
           std::string("{{ 'x' * 200000000 * 99 }}"),
           doubled,
           nested,
           wide + "{{ ns.x | tojson }}",
           wide + "{% set ns.y = ns.x %}{{ ns.x < [ns.y[0], ns.y] }}{{ ns.x | tojson(indent=9) }}",
           std::string("{{ ''.join(['x' * 9999999] * 99) }}{{ 1/0 }}"),
           std::string("{{ ('x' * 9999) | indent(999) | list | join('y' * 999999) }}"),
           std::string("{% set l = [''] * 2 %}"),
           std::string("{% set l = range(99999) | map('string') | list %}{% for i in range(99999) %}{{ l | "
                       "join | length }}{% endfor %}"),
           std::string("{% set s = 'ab' * 999999 %}{% for i in range(99999) %}{% if s is upper or s[1] == "
                       "'x' %}{% endif %}{% endfor %}"),
           std::string("{% set s = 'ab' * 999999 %}{% for i in range(99999) %}{% if s in {} or {s: 1}[s] == "
                       "2 %}{% endif %}{% endfor %}"),
           std::string("{{ range(0, 999999999999, 1) }}"),
           std::string("{{ 9223372036854775807 + 1 }}"),
           std::string("{{ -9223372036854775807 - 2 }}"),
           std::string("{{ 3 ** 999 }}"),
       }) {
    const ChatTemplate parsed(source);
    const Json messages = Json::array();
    EXPECT_THROW(parsed.render({.messages = messages}), FileError) << source;
  }
  const std::vector<std::pair<std::string, std::string>> brackets = {
      {"(", ")"},  {"[", "]"},           {"{1:", "}"},          {"not ", ""}, {"-", ""},
      {"f(", ")"}, {"a if x else ", ""}, {"'a'|replace(", ")"}, {"x[", "]"},  {"x is in (", ")"}};
  for (const auto& [open, close] : brackets) {
    std::string deep = "{{ ";
    for (int i = 0; i < 5000; ++i) deep += open;
    deep += "x";
    for (int i = 0; i < 5000; ++i) deep += close;
    EXPECT_NE(file_error(deep + " }}").find("nested more than"), std::string::npos)
        << open << file_error(deep);
  }
  std::string deep;
  for (int i = 0; i < 20000; ++i) deep += "{% if x %}";
  EXPECT_NE(file_error(deep).find("nested more than"), std::string::npos);
  deep = "{% if x %}";
  for (int i = 0; i < 20000; ++i) deep += "{% elif x %}";
  EXPECT_NE(file_error(deep).find("nested more than"), std::string::npos);
  for (const char* link :
       {" + 1", " and 1", " or 1", "|trim", ".a", "[0]", "()", " is defined", " if 1", " * 2", " ** 1"}) {
    deep = "{{ x";
    for (int i = 0; i < 20000; ++i) deep += link;
    EXPECT_NE(file_error(deep + " }}").find("chains more than"), std::string::npos) << link;
  }
}

TEST(ChatTemplate, DeepMessagesAreRefused) {
  Json deep = "x";
  for (int i = 0; i < 200; ++i) deep = Json::array({deep});
  EXPECT_NE(
      request_error("{{ 1 }}", Json::array({{{"role", "user"}, {"content", deep}}})).find("nested more than"),
      std::string::npos);
}

TEST(ChatTemplate, NamespacesMayHoldThemselvesAndMacros) {
  EXPECT_EQ(
      render("{% set ns = namespace() %}{% set ns.me = ns %}{% macro f() %}{{ ns.me.me is defined }}{% "
             "endmacro %}"
             "{% set ns.f = f %}{% for i in [1] %}{% macro g() %}{{ i }}{{ loop.index }}{% endmacro %}"
             "{% set ns.g = g %}{% set ns.l = loop %}{% endfor %}{{ ns.f() }}{{ ns.g() }}{{ ns.l.length }}",
             Json::array()),
      "True111");
}

TEST(PanguTemplate, WritesTheReleasedFormat) {
  const Json messages =
      Json::parse(R"([{"role": "system", "content": "S"}, {"role": "user", "content": "你好"},
      {"role": "assistant", "content": "A", "reasoning_content": "hm"}, {"role": "user", "content": "Q"}])");
  EXPECT_EQ(pangu_chat_template().render({.messages = messages}),
            "[unused9]系统：S[unused10][unused9]用户：你好[unused10][unused9]助手：[unused16]hm[unused17]A["
            "unused10]"
            "[unused9]用户：Q[unused10][unused9]助手：");
  const Json unknown = Json::parse(R"([{"role": "narrator", "content": "S"}])");
  EXPECT_THROW(pangu_chat_template().render({.messages = unknown}), RequestError);
}

class ChatTemplatesTest : public testing::Test {
 protected:
  void write(const std::string& name, std::string_view contents) {
    fs::create_directories((dir_.path() / name).parent_path());
    atomic_write_file(dir_.path() / name, contents);
  }
  std::string source(bool has_tools) { return ChatTemplates::load(dir_.path()).pick(has_tools).source(); }
  test::TempDir dir_;
};

TEST_F(ChatTemplatesTest, AreFoundWhereModelsKeepThem) {
  EXPECT_FALSE(ChatTemplates::load(dir_.path()).from_model());
  EXPECT_EQ(source(false), pangu_chat_template().source());
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_FALSE(ChatTemplates::load(dir_.path()).from_model());
  write("chat_template.json", R"({"chat_template": "from chat_template.json"})");
  EXPECT_EQ(source(false), "from chat_template.json");
  write("tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(source(true), "one");
  write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(source(false), "d");
  EXPECT_EQ(source(true), "t");
  write("chat_template.jinja", "file");
  write("additional_chat_templates/tool_use.jinja", "tools file");
  EXPECT_EQ(source(false), "file");
  EXPECT_EQ(source(true), "tools file");
}

TEST_F(ChatTemplatesTest, BrokenOnesAreRefused) {
  for (const char* json : {R"({"chat_template": 1})", R"({"chat_template": [1]})",
                           R"({"chat_template": [{"name": "x"}]})", R"({"chat_template": "{{"})", "{"}) {
    write("tokenizer_config.json", json);
    EXPECT_THROW(ChatTemplates::load(dir_.path()), FileError) << json;
  }
  write("tokenizer_config.json", R"({"chat_template": [{"name": "other", "template": "d"}]})");
  EXPECT_THROW(ChatTemplates::load(dir_.path()).pick(false), FileError);
}

}  // namespace
}  // namespace moge::text

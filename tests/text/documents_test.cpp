#include "text/documents.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "refusal.h"
#include "temp_dir.h"

namespace moge::text {
namespace {

namespace fs = std::filesystem;

class DocumentsTest : public testing::Test {
 protected:
  void write(const std::string& name, std::string_view contents) {
    fs::create_directories((scratch_.path() / name).parent_path());
    atomic_write_file(scratch_.path() / name, contents);
  }
  std::string read_all() {
    DocumentSource source({scratch_.path()});
    std::string all;
    for (Document document; source.next(document);) all += "[" + document.name + ": " + document.text + "]";
    return all;
  }
  std::string error() {
    return test::refusal([&] { read_all(); });
  }
  test::TempDir scratch_;
};

TEST_F(DocumentsTest, ReadsFilesAndLinesInTheOrderOfNames) {
  write("b/two.txt", "# Title: kept in .txt\r\nline\n");
  write("a.jsonl", "{\"text\": \"one\", \"more\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"\xEF\xBB\xBFtwo\"}");
  write("b/book.md",
        "\xEF\xBB\xBF# Title: T\n\n## Author: A\n\n## Year: 1865\n\n-------\n\n## "
        "Chapter\n\nOnce\xE2\x80\x8B.\n");
  write("c.png", "not text");
  write("d.md", "# A title\n\nand text\n");
  write("empty.txt", " \n");
  EXPECT_EQ(read_all(),
            "[a.jsonl#1: one][a.jsonl#4: two][b/book.md: ## Chapter\n\nOnce.\n]"
            "[b/two.txt: # Title: kept in .txt\nline\n][d.md: # A title\n\nand text\n]");
  DocumentSource one({scratch_.path() / "c.png"});  // a file named by the user is read whatever its ending
  Document document;
  ASSERT_TRUE(one.next(document));
  EXPECT_EQ(document.name, "c.png");
}

TEST_F(DocumentsTest, HeaderIsOnlyAHeaderWhenWhole) {
  for (const char* text :
       {"# T\n## A\n## Y\ntext\n", "# T\n## A\n---\n", "# T\n", "", "\n\n", "# T\n## A\n## Y\n--- x\n"})
    EXPECT_EQ(without_book_header(text), text);
  EXPECT_EQ(without_book_header("# T\n## A\n## Y\n---\n"), "");
  EXPECT_EQ(without_book_header("# T\n## A\n## Y\n---"), "");
}

TEST_F(DocumentsTest, ErrorsNameThePlace) {
  EXPECT_NE(error().find("no text to read in [" + scratch_.path().string()), std::string::npos) << error();
  EXPECT_THROW(DocumentSource({scratch_.path() / "none"}), FileError);
  EXPECT_THROW(DocumentSource(std::vector<fs::path>{}), FileError);
  write("a.txt", " \n");
  write("b.jsonl", "{\"text\": \"\"}\n");
  EXPECT_NE(error().find("no text to read in [" + scratch_.path().string() + "]: its 2 files are empty"),
            std::string::npos)
      << error();
  write("a.jsonl", "{\"text\": \"one\"}\n{\"Text\": \"two\"}\n");
  EXPECT_NE(error().find("a.jsonl:2"), std::string::npos) << error();
  write("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"tw\n");
  EXPECT_NE(error().find("a.jsonl:2"), std::string::npos) << error();
  write("a.jsonl", "{\"text\": \"\xC3(\"}");
  EXPECT_NE(error().find("a.jsonl:1"), std::string::npos) << error();
  fs::remove(scratch_.path() / "a.jsonl");
  write("b.txt", "ab\xFF");
  EXPECT_NE(error().find("b.txt: expected UTF-8, got an invalid byte at offset 2"), std::string::npos)
      << error();
}

}  // namespace
}  // namespace moge::text

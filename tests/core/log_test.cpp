#include "core/log.h"

#include <gtest/gtest.h>

namespace moge {
namespace {

TEST(Log, NamesOfFilesCannotWriteToTheTerminal) {
  EXPECT_EQ(printable("größer, 你好\tand 'quoted'"), "größer, 你好\tand 'quoted'");
  EXPECT_EQ(printable("a\x1b[31mred\x07\x7f\r"), "a\\x1b[31mred\\x07\\x7f\\x0d");
  EXPECT_EQ(printable("\u009b2J and \u0080"), "\\x9b2J and \\x80");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(printable("\xC2"), "\xC2");
  EXPECT_EQ(printable("why:\n  this\n  and that"), "why:\n  this\n  and that");
  EXPECT_EQ(printable("a\nerror: forged\n"), "a\\x0aerror: forged\\x0a");
}

}  // namespace
}  // namespace moge

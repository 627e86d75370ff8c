#include "core/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>

#include "core/error.h"

namespace moge {
namespace {

/// Standard error at a terminal of so many columns.
class Terminal {
 public:
  explicit Terminal(unsigned short columns)
      : stderr_(dup(STDERR_FILENO)), fd_(posix_openpt(O_RDWR | O_NOCTTY)) {
    check(grantpt(fd_) == 0 && unlockpt(fd_) == 0, "no terminal");
    const int other_end = open(ptsname(fd_), O_RDWR | O_NOCTTY);
    termios raw{};
    tcgetattr(other_end, &raw);
    cfmakeraw(&raw);
    tcsetattr(other_end, TCSANOW, &raw);
    const winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    check(ioctl(other_end, TIOCSWINSZ, &size) == 0, "no size");
    dup2(other_end, STDERR_FILENO);
    close(other_end);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    dup2(stderr_, STDERR_FILENO);
    close(stderr_);
    close(fd_);
  }
  /// What was written, once it is `size` bytes at least (or nothing more comes).
  std::string read_text(size_t size) {
    std::string text;
    pollfd readable{.fd = fd_, .events = POLLIN, .revents = 0};
    while (text.size() < size && poll(&readable, 1, 10'000) > 0) {
      char buffer[4096];
      const ssize_t n = read(fd_, buffer, sizeof(buffer));
      if (n <= 0) break;
      text.append(buffer, static_cast<size_t>(n));
    }
    return text;
  }

 private:
  int stderr_, fd_;
};

TEST(Progress, IsRewrittenWholeWhereItTakesSeveralRows) {
  setenv("TERM", "xterm", 1);
  Terminal terminal(10);
  {
    ProgressLine line;
    line.show("a line of twenty-five ch.", true);
    line.show("half of it", true);
    line.show("the end", true);
  }
  const std::string expected =
      "\r\033[Ja line of twenty-five ch."
      "\r\033[2A\033[Jhalf of it"
      "\r\033[Jthe end\n";
  EXPECT_EQ(terminal.read_text(expected.size()), expected);
}

TEST(Progress, IsNotRewrittenWhereTheCursorCannotMove) {
  setenv("TERM", "dumb", 1);
  Terminal terminal(80);
  {
    ProgressLine line;
    line.show("half", true);
    line.show("whole", true);
  }
  EXPECT_EQ(terminal.read_text(11), "half\nwhole\n");
}

TEST(Progress, BarsAreOfOneWidth) {
  EXPECT_EQ(progress_bar(0, 48), "[--------------------]   0%");
  EXPECT_EQ(progress_bar(12, 48), "[#####---------------]  25%");
  EXPECT_EQ(progress_bar(int64_t{68} << 30, int64_t{68} << 30), "[####################] 100%");
  EXPECT_EQ(progress_bar(0, 0), progress_bar(1, 1));
}

TEST(Progress, IsSilentWhileAJobMayBeShort) {
  testing::internal::CaptureStderr();
  {
    ProgressLine line(std::chrono::hours(1));
    line.show("half", true);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  testing::internal::CaptureStderr();
  {
    ProgressLine line;
    line.show("half");
    line.show("more");  // too soon
    line.show("whole", true);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "half\nwhole\n");
}

}  // namespace
}  // namespace moge

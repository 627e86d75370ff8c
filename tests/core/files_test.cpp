#include "core/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "core/error.h"
#include "refusal.h"
#include "temp_dir.h"

namespace moge {
namespace {

namespace fs = std::filesystem;

class FilesTest : public testing::Test {
 protected:
  int num_entries() const { return static_cast<int>(std::distance(fs::directory_iterator(dir_), {})); }
  const test::TempDir temp_;
  const fs::path& dir_ = temp_.path();
};

TEST_F(FilesTest, WritesMapsAndReads) {
  atomic_write_file(dir_ / "a", "hello");
  atomic_write_file(dir_ / "a", [](FileWriter& out) {
    const std::string block(700'000, 'x');  // crosses the writer's buffer
    for (int i = 0; i < 4; ++i) out.write(block);
    EXPECT_EQ(out.bytes_written(), 2'800'000);
    out.write_at(1, std::as_bytes(std::span("yz", 2)));
  });
  EXPECT_EQ(num_entries(), 1);
  MappedFile map(dir_ / "a");
  EXPECT_EQ(map.size(), 2'800'000);
  EXPECT_EQ(read_text_file(dir_ / "a"), "xyz" + std::string(2'799'997, 'x'));
  MappedFile moved = std::move(map);
  EXPECT_EQ(moved.bytes().back(), std::byte{'x'});

  atomic_write_file(dir_ / "empty", "");
  EXPECT_TRUE(MappedFile(dir_ / "empty").bytes().empty());
  EXPECT_EQ(read_text_file(dir_ / "empty"), "");
}

TEST_F(FilesTest, ErrorsNameThePathAndTheReason) {
  const std::string missing = test::refusal([&] { MappedFile map(dir_ / "none"); });
  EXPECT_NE(missing.find((dir_ / "none").string()), std::string::npos) << missing;
  EXPECT_NE(missing.find("No such file or directory"), std::string::npos) << missing;
  EXPECT_NE(test::refusal([&] { MappedFile map(dir_); }).find("got a directory"), std::string::npos);
  ASSERT_EQ(mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  EXPECT_NE(test::refusal([&] { read_text_file(dir_ / "fifo"); }).find("got a special file"),
            std::string::npos);
  EXPECT_NE(test::refusal([&] { MappedFile map(dir_ / "fifo"); }).find("got a special file"),
            std::string::npos);
  atomic_write_file(dir_ / "a", "12345");
  EXPECT_NE(test::refusal([&] { read_text_file(dir_ / "a", 4); }).find("at most 4 bytes, got 5"),
            std::string::npos);
  EXPECT_NE(test::refusal([&] { atomic_write_file(dir_ / "no" / "a", "x"); }).find("No such file"),
            std::string::npos);
  EXPECT_NE(test::refusal([&] { atomic_write_file("/proc/a", "x"); }).find("/proc"), std::string::npos);
}

TEST_F(FilesTest, AFailedWriteLeavesTheOldFileAlone) {
  atomic_write_file(dir_ / "a", "old");
  EXPECT_THROW(atomic_write_file(dir_ / "a",
                                 [](FileWriter& out) {
                                   out.write("new");
                                   throw Error("stop");
                                 }),
               Error);
  // A file size limit fails as a full disk does: in write(2).
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit limit{1'000'000, old_limit.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string full = test::refusal([&] { atomic_write_file(dir_ / "a", std::string(3'000'000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  EXPECT_NE(full.find("File too large"), std::string::npos) << full;
  EXPECT_EQ(read_text_file(dir_ / "a"), "old");
  EXPECT_EQ(num_entries(), 1);
}

TEST_F(FilesTest, DirectoryAppearsOnCommitOnly) {
  {
    AtomicDirectory dropped(dir_ / "d");
    atomic_write_file(dropped.path() / "a", "1");
  }
  EXPECT_EQ(num_entries(), 0);
  {
    AtomicDirectory kept(dir_ / "deep" / "d" / "");
    atomic_write_file(kept.path() / "a", "1");
    EXPECT_FALSE(fs::exists(dir_ / "deep" / "d"));
    kept.commit();
  }
  EXPECT_EQ(read_text_file(dir_ / "deep" / "d" / "a"), "1");
  EXPECT_NE(test::refusal([&] { AtomicDirectory again(dir_ / "deep" / "d"); }).find("exists already"),
            std::string::npos);
  {
    AtomicDirectory again(dir_ / "deep" / "d", AtomicDirectory::Existing::kReplace);
    atomic_write_file(again.path() / "b", "2");
    again.commit();
  }
  EXPECT_FALSE(fs::exists(dir_ / "deep" / "d" / "a"));
  EXPECT_EQ(read_text_file(dir_ / "deep" / "d" / "b"), "2");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_ / "deep"), {}), 1);
  EXPECT_THROW(AtomicDirectory("/proc/moge/d"), FileError);
}

TEST_F(FilesTest, AFileThatAKilledWriterLeftIsRemovedButNotALiveOnes) {
  const pid_t child = fork();
  if (child == 0) atomic_write_file(dir_ / "a", [](FileWriter&) { std::raise(SIGKILL); });
  waitpid(child, nullptr, 0);
  EXPECT_EQ(num_entries(), 1);
  atomic_write_file(dir_ / "a", [&](FileWriter& out) {
    EXPECT_EQ(num_entries(), 1);  // its own
    atomic_write_file(dir_ / "a", "inner");
    out.write("outer");
  });
  EXPECT_EQ(num_entries(), 1);
  EXPECT_EQ(read_text_file(dir_ / "a"), "outer");
}

TEST_F(FilesTest, WhatAKilledWriterLeftIsRemovedButNotALiveOnes) {
  const pid_t child = fork();
  if (child == 0) {
    AtomicDirectory left(dir_ / "d");
    std::ofstream(left.path() / "a") << "half";
    std::raise(SIGKILL);
  }
  waitpid(child, nullptr, 0);
  EXPECT_EQ(num_entries(), 1);
  AtomicDirectory first(dir_ / "d");
  EXPECT_EQ(num_entries(), 1);
  AtomicDirectory second(dir_ / "d", AtomicDirectory::Existing::kReplace);
  EXPECT_EQ(num_entries(), 2);
  first.commit();
  second.commit();
  EXPECT_TRUE(fs::is_directory(dir_ / "d"));
}

TEST_F(FilesTest, ADirectorysLockIsOnePerTimeAndDiesWithItsProcess) {
  const auto take = [&] { const DirectoryLock lock(dir_); };
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const DirectoryLock lock(dir_);
    (void)!write(ready[1], "x", 1);
    pause();
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_NE(test::refusal(take).find(str("cannot lock ", dir_.string(), ": expected no other process")),
            std::string::npos);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_NO_THROW(take());
  EXPECT_NO_THROW(take());
  EXPECT_EQ(num_entries(), 0);
}

TEST_F(FilesTest, MakesDirectoriesOrSaysWhyNot) {
  make_directories(dir_ / "a/b");
  make_directories(dir_ / "a/b");
  EXPECT_TRUE(fs::is_directory(dir_ / "a/b"));
  atomic_write_file(dir_ / "file", "");
  EXPECT_EQ(test::refusal([&] { make_directories(dir_ / "file/c"); }),
            "cannot create " + (dir_ / "file/c").string() + ": Not a directory");
}

}  // namespace
}  // namespace moge

// Files on disk: read-only maps, and output that appears under its final name complete or not at all (written
// beside it under a temporary name, fsynced, renamed). Every failure is a FileError with the path and the
// system's reason.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace moge {

/// A whole file mapped read-only; pages are read when touched. Nobody may truncate the file meanwhile.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  const std::filesystem::path& path() const { return path_; }
  /// Has the system read a part of bytes() ahead of its use. A hint: never fails.
  void will_need(std::span<const std::byte> part) const;

 private:
  std::span<const std::byte> bytes_;
  std::filesystem::path path_;
};

/// The whole file as a string. Throws FileError beyond max_bytes.
std::string read_text_file(const std::filesystem::path& path, int64_t max_bytes = int64_t{256} << 20);

/// Creates a directory and its missing parents, unless it is there.
void make_directories(const std::filesystem::path& path);

/// Buffered sequential output to a file that must not exist yet.
class FileWriter {
 public:
  explicit FileWriter(std::filesystem::path path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  /// The position of the next write().
  int64_t bytes_written() const { return bytes_written_; }
  /// Writes at any position, before or beyond bytes_written(), which does not move.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  /// Flushes, fsyncs and closes. Without it the destructor closes and drops what is still buffered.
  void close();

 private:
  void flush();
  std::filesystem::path path_;
  std::string buffer_;
  int64_t bytes_written_ = 0;
  int fd_ = -1;
};

/// Replaces `path` by what `write` produces. If `write` throws, or the disk is full, `path` stays as it was.
/// What killed processes left of earlier tries (siblings that nobody holds a lock on) is removed first.
void atomic_write_file(const std::filesystem::path& path, const std::function<void(FileWriter&)>& write);
void atomic_write_file(const std::filesystem::path& path, std::string_view contents);

/// A directory that is filled under a temporary sibling name and takes its final name in commit(). Several
/// processes may build the same one: the last commit wins. What a killed process left behind (a sibling that
/// nobody holds a lock on) is removed by the next AtomicDirectory of that name.
class AtomicDirectory {
 public:
  enum class Existing { kRefuse, kReplace };
  /// Creates missing parents. kRefuse: throws FileError if `final_path` exists (an empty directory may).
  explicit AtomicDirectory(const std::filesystem::path& final_path, Existing existing = Existing::kRefuse);
  ~AtomicDirectory();  ///< removes the directory unless committed
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& path() const { return partial_; }  ///< where to write until commit()
  const std::filesystem::path& final_path() const { return final_; }
  /// fsyncs every file and directory inside, then renames; an existing directory is swapped out and removed.
  void commit();

 private:
  std::filesystem::path final_;
  std::filesystem::path partial_;
  int lock_fd_ = -1;
};

/// A directory's lock, for what one process does at a time. It goes with the object or with the process,
/// however that ends: none is left behind, and the directory needs to be readable only. FileError if it is
/// held already. On a file system without locks (NFS) it warns and holds nothing.
class DirectoryLock {
 public:
  explicit DirectoryLock(const std::filesystem::path& dir);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_;
};

}  // namespace moge

#include "core/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace moge {

namespace fs = std::filesystem;

namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
/// A FIFO without a writer is then refused by regular_size() instead of waited for.
constexpr int kReadOnly = O_RDONLY | O_NONBLOCK;
constexpr const char* kPartial = ".partial-";

[[noreturn]] void fail(const char* verb, const fs::path& path, int error) {
  throw FileError(str("cannot ", verb, " ", path.string(), ": ", std::generic_category().message(error)));
}

/// A file descriptor that closes itself.
class Fd {
 public:
  Fd(const fs::path& path, int flags, const char* verb) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0) fail(verb, path, errno);
  }
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// The size of an open regular file.
int64_t regular_size(int fd, const fs::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail("read", path, errno);
  check<FileError>(S_ISREG(info.st_mode), "cannot read ", path.string(), ": expected a regular file, got ",
                   S_ISDIR(info.st_mode) ? "a directory" : "a special file");
  return info.st_size;
}

void sync(const fs::path& path) {
  const Fd fd(path, O_RDONLY, "open for fsync");
  if (::fsync(fd.get()) != 0) fail("fsync", path, errno);
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// A sibling's name that no other writer uses: ".NAME.partial-PID-N".
fs::path partial_name(const fs::path& path) {
  static std::atomic<int64_t> counter{0};
  return parent_of(path) / str(".", path.filename().string(), kPartial, ::getpid(), "-", counter++);
}

/// Removes what killed processes left of `path`: their locks died with them.
void remove_abandoned(const fs::path& path) {
  const std::string prefix = str(".", path.filename().string(), kPartial);
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent_of(path), ignored)) {
    if (!entry.path().filename().string().starts_with(prefix)) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) fs::remove_all(entry.path(), ignored);
    ::close(fd);
  }
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const Fd fd(path, kReadOnly, "open");
  const auto size = static_cast<size_t>(regular_size(fd.get(), path));
  if (size == 0) return;  // mmap refuses empty maps
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) fail("map", path, errno);
  bytes_ = {static_cast<const std::byte*>(data), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::will_need(std::span<const std::byte> part) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t into_page = reinterpret_cast<uintptr_t>(part.data()) % page;
  ::posix_madvise(const_cast<std::byte*>(part.data()) - into_page, part.size() + into_page,
                  POSIX_MADV_WILLNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(path_, other.path_);
  return *this;
}

std::string read_text_file(const fs::path& path, int64_t max_bytes) {
  const Fd fd(path, kReadOnly, "open");
  const int64_t size = regular_size(fd.get(), path);
  check<FileError>(size <= max_bytes, "cannot read ", path.string(), ": expected at most ", max_bytes,
                   " bytes, got ", size);
  std::string text(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("read", path, errno);
    check<FileError>(n > 0, "cannot read ", path.string(), ": it shrank while being read");
    done += static_cast<size_t>(n);
  }
  return text;
}

void make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail("create", path, error.value());
}

FileWriter::FileWriter(fs::path path) : path_(std::move(path)) {
  fd_ = Fd(path_, O_WRONLY | O_CREAT | O_EXCL, "create").release();
  buffer_.reserve(kBufferBytes);
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), kBufferBytes - buffer_.size());
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), n);
    bytes = bytes.subspan(n);
    bytes_written_ += static_cast<int64_t>(n);
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void FileWriter::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write", path_, errno);
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
}

void FileWriter::write_at(int64_t offset, std::span<const std::byte> bytes) {
  flush();  // what was written earlier must not land on top later
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write", path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

void FileWriter::close() {
  flush();
  if (::fsync(fd_) != 0) fail("fsync", path_, errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail("close", path_, errno);
}

void atomic_write_file(const fs::path& path, const std::function<void(FileWriter&)>& write) {
  remove_abandoned(path);
  const fs::path partial = partial_name(path);
  FileWriter out(partial);
  try {
    const Fd lock(partial, O_RDONLY, "open");
    ::flock(lock.get(), LOCK_EX | LOCK_NB);  // best effort, as for directories
    write(out);
    out.close();
    if (::rename(partial.c_str(), path.c_str()) != 0) fail("write", path, errno);
  } catch (...) {
    ::unlink(partial.c_str());
    throw;
  }
  sync(parent_of(path));
}

void atomic_write_file(const fs::path& path, std::string_view contents) {
  atomic_write_file(path, [&](FileWriter& out) { out.write(contents); });
}

AtomicDirectory::AtomicDirectory(const fs::path& final_path, Existing existing)
    // "out/" and "out/." name the directory itself; the partial one must be its sibling.
    : final_(fs::absolute(final_path).lexically_normal()) {
  if (!final_.has_filename()) final_ = final_.parent_path();
  std::error_code error;
  const bool taken =
      fs::exists(final_, error) && !(fs::is_directory(final_, error) && fs::is_empty(final_, error));
  check<FileError>(!taken || existing == Existing::kReplace, "cannot create ", final_.string(),
                   ": it exists already and is not empty");
  check<FileError>(!taken || fs::is_directory(final_, error), "cannot replace ", final_.string(),
                   ": expected a directory, got a file");
  make_directories(parent_of(final_));
  remove_abandoned(final_);
  partial_ = partial_name(final_);
  if (::mkdir(partial_.c_str(), 0777) != 0) fail("create", final_, errno);
  lock_fd_ = Fd(partial_, O_RDONLY | O_DIRECTORY, "open").release();
  ::flock(lock_fd_, LOCK_EX | LOCK_NB);  // best effort: some network file systems have no locks
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!partial_.empty()) fs::remove_all(partial_, ignored);
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

void AtomicDirectory::commit() {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(partial_, error))
    if (entry.is_regular_file(error) || entry.is_directory(error)) sync(entry.path());
  sync(partial_);
  if (::rename(partial_.c_str(), final_.c_str()) == 0) {  // nothing there, or an empty directory
    partial_.clear();
  } else if (errno != ENOTEMPTY && errno != EEXIST) {
    fail("rename to", final_, errno);
  } else if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) != 0) {
    // A file system without exchange: for a moment the final name is missing.
    const fs::path old = partial_name(final_);
    if (::rename(final_.c_str(), old.c_str()) != 0) fail("rename", final_, errno);
    if (::rename(partial_.c_str(), final_.c_str()) != 0) fail("rename to", final_, errno);
    partial_ = old;
  }
  sync(parent_of(final_));  // a replaced directory now lies at partial_: the destructor removes it
}

DirectoryLock::DirectoryLock(const fs::path& dir) {
  Fd fd(dir, O_RDONLY | O_DIRECTORY, "open");
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    check<FileError>(error != EWOULDBLOCK, "cannot lock ", dir.string(),
                     ": expected no other process at work there, got one that still is; wait for its end, or "
                     "choose another directory");
    log_warning("cannot lock ", dir.string(), ": ", std::generic_category().message(error),
                "; nothing keeps another process from writing there");
  }
  fd_ = fd.release();
}

DirectoryLock::~DirectoryLock() {
  ::close(fd_);
}

}  // namespace moge

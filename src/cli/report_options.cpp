#include "cli/report_options.h"

#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/share.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "sim/svg.h"

extern char** environ;

namespace moge::cli {
namespace {

namespace fs = std::filesystem;

std::string page_part(const char* name) {
  const fs::path file = share_folder() / "report" / name;
  check<FileError>(fs::exists(file), file.string(),
                   " is missing: script/bootstrap --report fetches what pages need");
  return read_text_file(file);
}

/// PNG through rsvg-convert (Debian: librsvg2-bin), twice as large as the SVG's units.
void write_png(const fs::path& png, const std::string& svg) {
  fs::path input = png;
  input += ".svg.tmp";
  atomic_write_file(input, svg);
  const std::string in = input.string(), out = png.string();
  std::array<const char*, 7> words{"rsvg-convert", "--zoom=2", "--format=png", "--output",
                                   out.c_str(),    in.c_str(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, words[0], nullptr, nullptr, const_cast<char**>(words.data()), environ);
  int status = -1;
  if (error == 0) waitpid(pid, &status, 0);
  fs::remove(input);
  check<FileError>(error == 0,
                   "--png needs the program rsvg-convert (Debian: librsvg2-bin): ", std::strerror(error),
                   "; --svg does without");
  check<FileError>(status == 0, "rsvg-convert could not write ", out);
}

}  // namespace

std::vector<Option> ReportOptions::options() {
  return {{.name = "json", .target = &json, .help = "Print one JSON object"},
          {.name = "html",
           .target = &html,
           .value = "FILE",
           .help = "Write a page of charts and tables; works offline"},
          {.name = "svg", .target = &svg, .value = "FILE", .help = "Write the charts as one SVG picture"},
          {.name = "png", .target = &png, .value = "FILE", .help = "The same as PNG, by rsvg-convert"},
          {.name = "csv", .target = &csv, .value = "FILE", .help = "Write the main table"}};
}

void ReportOptions::write(const sim::Report& report, const nlohmann::ordered_json& result) const {
  const auto wrote = [](const fs::path& path) { log_info("wrote ", path.string()); };
  if (!html.empty()) {
    const sim::PageParts parts{page_part("report.css"), page_part("report.js"), page_part("plotly.min.js")};
    atomic_write_file(html, sim::html_page(report, result, parts));
    wrote(html);
  }
  if (!svg.empty()) {
    atomic_write_file(svg, sim::svg(report.charts));
    wrote(svg);
  }
  if (!png.empty()) {
    write_png(png, sim::svg(report.charts));
    wrote(png);
  }
  if (!csv.empty()) {
    atomic_write_file(csv, sim::csv(report.tables.front()));
    wrote(csv);
  }
}

}  // namespace moge::cli

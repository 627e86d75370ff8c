# shellcheck shell=bash
# Sourced by every script of the front door: strict mode, the repository root as working folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
JOBS="$(nproc)"

# headline TEXT...: says which part of the script begins.
headline() { printf '\n== %s\n' "$*"; }

# fail TEXT...: ends the script with a message.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# usage FILE: prints the comment that opens FILE, below its first line.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"; }

# build PRESET [TARGET...]: configures once and builds; all targets unless some are named.
build() {
  local preset="$1"
  shift
  [[ -f "build/$preset/build.ninja" ]] || cmake --preset "$preset" >/dev/null
  cmake --build --preset "$preset" -j "$JOBS" ${1:+--target "$@"}
}

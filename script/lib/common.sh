# shellcheck shell=bash
# Sourced by every script of the front door: strict mode, the repository root as working folder.
set -euo pipefail
kSelf="$(realpath "$0")"
readonly kSelf
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
JOBS="$(nproc)"
trap 'exit 130' INT # also where the command that Ctrl-C met ended well, as moge train does

# headline TEXT...: says which part of the script begins.
headline() { printf '\n== %s\n' "$*"; }

# fail TEXT...: ends the script with a message.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# usage: prints the comment that opens the script, below its first line.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$kSelf"; }

# configured PRESET: whether its build folder was made with the variables that the preset has now. A folder of an older
# preset (another compiler, no fuzzers) would fail in ways that nobody understands.
configured() {
  local cache="build/$1/CMakeCache.txt" preset name want have
  [[ -f "build/$1/build.ninja" && -f "$cache" ]] || return 1
  preset="$(cmake --preset "$1" -N)" || return 1
  while IFS='=' read -r name want; do
    have="$(sed -n "s/^$name:[A-Z]*=//p" "$cache")"
    # CMake may write a compiler's path for its name.
    [[ "$have" == "$want" || "$have" == */"$want" ]] || return 1
  done < <(sed -n 's/^  *\([A-Z_]*\)="\(.*\)"$/\1=\2/p' <<<"$preset")
}

# build PRESET [TARGET...]: configures if need be and builds; all targets unless some are named. A folder that had
# the benchmarks keeps them.
build() {
  local preset="$1" bench
  shift
  bench="$(sed -n 's/^MOGE_BENCH:BOOL=//p' "build/$preset/CMakeCache.txt" 2>/dev/null || true)"
  configured "$preset" || cmake --preset "$preset" --fresh ${bench:+"-DMOGE_BENCH=$bench"} >/dev/null
  cmake --build --preset "$preset" -j "$JOBS" ${1:+--target "$@"}
}

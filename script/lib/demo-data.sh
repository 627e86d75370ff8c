#!/usr/bin/env bash
# Fetches the demo's text: Jane Austen's six novels, one file per chapter, into OUT (docs/demo.md says why
# these). Debian's package is downloaded through apt, which checks its signature, and unpacked without
# being installed: it would bring R along.
#
#   script/lib/demo-data.sh OUT
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/common.sh" || exit

readonly kPackage="r-cran-janeaustenr=1.0.0-1"

[[ $# -eq 1 ]] || { usage && exit 2; }
out="$1"
[[ ! -d "$out" ]] || exit 0 # made whole, by the rename below

work="$out.tmp"
rm -rf "$work"
mkdir -p "$work/package"
(cd "$work/package" && apt-get -qq download "$kPackage" 2>/dev/null) || {
  # A bare machine has no package lists yet.
  if [[ "$(id -u)" == 0 ]]; then apt-get -qq update; else sudo apt-get -qq update; fi
  (cd "$work/package" && apt-get -qq download "$kPackage")
}
dpkg-deb -x "$work"/package/*.deb "$work/package"
python3 script/lib/austen.py "$work/package/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb" "$work/text"
mv "$work/text" "$out"
rm -rf "$work"

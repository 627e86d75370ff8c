#!/usr/bin/env bash
# Fetches plotly.js, which report pages embed, into web/report/plotly.min.js. The official Python package
# carries it; pip checks the package against the hash. Does nothing when the file is there.
#
#   script/lib/plotly.sh
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/common.sh" || exit

readonly kRequirement="plotly==7.1.0 --hash=sha256:dbb7fa18afce40d0a8e80d1bf162eceb3faa0ce5a77fe741ad09a74cf78f53f3"
readonly kFile="web/report/plotly.min.js" # plotly.js 4.1.1, MIT licence

[[ ! -f "$kFile" ]] || exit 0
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
echo "$kRequirement" >"$work/requirements.txt"
python3 -m pip download --quiet --no-deps --only-binary :all: --disable-pip-version-check \
  --dest "$work" --requirement "$work/requirements.txt"
python3 -m zipfile --extract "$work"/plotly-*.whl "$work"
mv "$work/plotly/package_data/plotly.min.js" "$kFile"

#!/bin/sh
# The part of dev.lock that the lists beside this script name, with its hashes:
#
#   sh requirements/names/select.sh tool demo > some.lock
#
# One lock has every version; a list says who needs which.
set -eu
cd "$(dirname "$0")"
for list in "$@"; do
  [ -f "$list.txt" ] || { echo "there is no list $list.txt" >&2; exit 2; }
  shift
  set -- "$@" "$list.txt"
done
awk '
  FILENAME ~ /[.]txt$/ { if ($1 != "" && $1 !~ /^#/) wanted[$1] = 1; next }
  /^[A-Za-z0-9]/ { split($0, part, /[=@ ]/); kept = part[1] in wanted; found[part[1]] = 1 }
  kept
  END {
    for (name in wanted) if (!(name in found)) {
      print name " is not in dev.lock" > "/dev/stderr"
      missing = 1
    }
    if (missing) exit 1
  }' "$@" ../dev.lock

#!/usr/bin/env bash
# Writes the requirements of the packaged server from server.in: the same versions, each with the
# SHA-256 of every wheel that the index has of it. Needs uv (pip install uv).
#
#   requirements/server.sh [uv's options]     after a change of server.in
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
target=../vim_deploy/package/templates/requirements-server.txt.in
made="$(mktemp)"
trap 'rm -f -- "$made"' EXIT
{
  echo "# What the server's environment holds, with the SHA-256 of every wheel; installed with --no-deps,"
  echo "# so this is all of it. Made by requirements/server.sh of vim-deploy."
  uv pip compile --quiet --universal --python-version 3.10 --no-deps --only-binary :all: \
    --generate-hashes --no-header --no-annotate "$@" server.in
} > "$made"
cat "$made" > "$target"

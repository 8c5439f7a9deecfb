#!/usr/bin/env bash
# Run a command; leave its process number in FILES.pid, then its exit status in FILES.status: driver.sh FILES COMMAND...
# Of several nodes, `ray symmetric-run` doesn't always return its command's status: its own connection may die first.
set -uo pipefail
files=$1
shift
# shellcheck disable=SC2016 # the inner shell expands these: it leaves its number and becomes the command
bash -c 'echo $$ >"$0.pid"; exec "$@"' "$files" "$@"
status=$?
echo "$status" >"$files.status"
exit "$status"

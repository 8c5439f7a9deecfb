#!/usr/bin/env bash
# Run a Ray head for all CPUs and GPUs of this machine, on loopback and with a token, until Ctrl-C.
# Further options go to `ray start`, such as --num-gpus 4.
set -euo pipefail
umask 077 # the token is this user's alone; Ray itself would leave it readable to all
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# Ray 2.60 puts the machine's own address in place of 127.0.0.1 and listens on all of them, unless it thinks, as on a
# Mac, that there is but one node.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
if [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s ~/.ray/auth_token ]; then
    ray get-auth-token --generate >/dev/null
fi
[ ! -e ~/.ray/auth_token ] || chmod 600 ~/.ray/auth_token
exec ray start --head --block --node-ip-address 127.0.0.1 --port "${RAY_PORT:-6379}" \
    --dashboard-host 127.0.0.1 --dashboard-port "${RAY_DASHBOARD_PORT:-8265}" "$@"

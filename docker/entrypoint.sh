#!/bin/sh
# Starts rec-engine with secrets that come as files: they are in no image, no compose file and no process list.
set -eu

if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then
    REDIS_PASSWORD=$(cat "$REDIS_PASSWORD_FILE")
    export REDIS_PASSWORD
fi
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$PGPASSWORD_FILE")
    export PGPASSWORD
fi
exec rec-engine "$@"

#!/usr/bin/env bash
# A training that shows its secrets in every way that it can think of, then fails with a traceback.
env
export -p
set -x
: "$PLAIN_TOKEN" "$ODD_PASSWORD" "$HTTPS_PROXY"
OTHER="$ODD_PASSWORD"
declare -p OTHER >&2
printf '%q\n' "$ODD_PASSWORD"
set +x
printf '%s' "user:$PLAIN_TOKEN" | base64 -w0
printf '%s' "$ODD_PASSWORD" | base64 -w0
printf '%s\n' "colours $(printf '\033[31m%s\033[0m' "$PLAIN_TOKEN")" half "${PLAIN_TOKEN:0:3}"
printf '%s' "$PLAIN_TOKEN"
# long enough to be looked at
sleep 3
exec "$PYTHON" - <<'PYTHON'
import json, logging, os, sys, time, urllib.parse

values = [os.environ[name] for name in ("PLAIN_TOKEN", "ODD_PASSWORD", "HTTPS_PROXY")]
print(json.dumps(values), repr(values), urllib.parse.quote(values[1], safe=""), urllib.parse.quote_plus(values[1]))
logging.error("401 for %s", values)
# in two writes, with a look of our parent between them
sys.stdout.write(values[0][:9])
sys.stdout.flush()
time.sleep(0.8)
sys.stdout.write(values[0][9:] + "\n")
sys.stdout.flush()
try:
    raise ValueError(f"bad token {values[0]}")
except ValueError as error:
    raise RuntimeError(f"cannot log in with {values}") from error
PYTHON

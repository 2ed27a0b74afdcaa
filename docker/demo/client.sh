#!/bin/sh
# Asks URL so often as REQUESTS says, each time over a connection of its own, and tells who answered.
# Exit status 0: every request was answered.
set -u
waited=0
until curl --silent --fail --output /dev/null --max-time 1 "$URL"; do
    waited=$((waited + 1))
    if [ "$waited" -ge 60 ]; then
        echo "no answer from $URL after $waited tries"
        exit 1
    fi
    sleep 0.5
done
answers=$(mktemp)
failures=0
request=1
while [ "$request" -le "$REQUESTS" ]; do
    if answer=$(curl --silent --show-error --fail --max-time 5 "$URL"); then
        echo "$answer" >>"$answers"
        # The first few by name; then the totals tell.
        [ "$request" -le 9 ] && echo "request $request: $answer"
    else
        failures=$((failures + 1))
        echo "request $request: no answer"
    fi
    request=$((request + 1))
done
sort "$answers" | uniq -c | while read -r count server; do
    echo "$server answered $count"
done
rm -f "$answers"
echo "$REQUESTS requests, $failures failures"
[ "$failures" -eq 0 ]

#!/bin/sh
# Repeats the trial: cargo build --release, then this. One engine after another; each dies by kill -9 and is opened again.
set -u
bin=$(dirname "$0")/target/release/godwit-store-trial
out=${TRIAL_DIR:-$(mktemp -d)}
n=${1:-1000000}
shift
for engine in ${*:-fjall redb journal journal+fjall journal+lsm journal+redb}; do
    rm -rf "$out/$engine"
    timeout 400 "$bin" run "$engine" "$out/$engine" "$n"
    timeout 400 "$bin" open "$engine" "$out/$engine"
    for how in torn middle; do
        rm -rf "$out/hurt"
        TRIAL_NO_SETTLE=1 timeout 100 "$bin" run "$engine" "$out/hurt" 20000 >/dev/null
        "$bin" hurt $how "$engine" "$out/hurt"
        timeout 100 "$bin" open "$engine" "$out/hurt" 2>&1 | grep -v RUST_BACKTRACE
    done
    rm -rf "$out/$engine" "$out/hurt"
done

#!/usr/bin/env bash
# The compiled library by itself: strict builds, the check of every level, under sanitizers, and on processors that are not
# here as far as emulators are. What is skipped is said.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive  # threads that wait for each other in a loop took most of the time on a busy machine

build() { # NAME OPTION...
  cmake -S . -B "$work/$1" -G Ninja "${@:2}" > "$work/$1.txt"
  cmake --build "$work/$1" --target check >> "$work/$1.txt" || { cat "$work/$1.txt"; exit 1; }
}
there() { command -v "$1" > /dev/null || { echo "skipped: there is no $1"; return 1; }; }

# The linker would take one level's copy of a function that several define weakly, for all of them. clang's own, which ends
# the program, is the same in each.
alone() { # FOLDER
  find "$1" -path "*level_*" -name "*.o" -exec nm --print-file-name --demangle {} + > "$work/symbols.txt"
  grep -q " T " "$work/symbols.txt" || { echo "$1 has no functions"; exit 1; }
  if grep " [Wu] " "$work/symbols.txt" | grep -v __clang_call_terminate; then
    echo "these are shared between levels"
    exit 1
  fi
}

build strict -DSTRICT=ON
"$work/strict/check"
alone "$work/strict"

build sanitized -DSANITIZE=address,undefined
for threads in 1 2; do OMP_NUM_THREADS=$threads "$work/sanitized/check" | grep -E "^FAILED|passed"; done

if there clang++; then
  cmake -S ../../seqdens/native -B "$work/clang" -G Ninja -DSTRICT=ON -DCMAKE_CXX_COMPILER=clang++ > /dev/null
  cmake --build "$work/clang" > "$work/clang.txt" || { cat "$work/clang.txt"; exit 1; }
  alone "$work/clang"
fi

emulated() { # EMULATOR PROCESSOR PROGRAM LEVEL..., all that this processor has
  echo "emulated: $1 -cpu $2"
  "$1" -cpu "$2" "${@:3}"
}
if there qemu-x86_64 && [ "$(uname -m)" = x86_64 ]; then
  emulated qemu-x86_64 Nehalem "$work/strict/check" generic
  emulated qemu-x86_64 max "$work/strict/check" generic avx2
fi
if there qemu-aarch64 && there aarch64-linux-gnu-g++; then
  build arm -DSTRICT=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
  alone "$work/arm"
  emulated qemu-aarch64 cortex-a57 "$work/arm/check" neon
  emulated qemu-aarch64 max "$work/arm/check" neon neon_dot
fi

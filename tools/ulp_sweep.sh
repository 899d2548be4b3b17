#!/bin/sh
# Build the kernels of one instruction set and run ulp_sweep.c over them: tools/ulp_sweep.sh [isa [stride [tier [name ...]]]]
set -e
cd "$(dirname "$0")/.."
isa=${1:-avx512}
case $isa in
  avx512) flags="-mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma -mprefer-vector-width=512" ;;
  avx2) flags="-mavx2 -mfma" ;;
  *) flags="" ;;
esac
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for dtype in f32 f64; do
  ${CC:-cc} -std=c11 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math $flags -Isrc_c -DFA_ISA="$isa" -DFA_DTYPE=$dtype \
    -c src_c/kernels.c -o "$out/$dtype.o"
done
${CC:-cc} -std=gnu11 -O3 $flags -DISA="$isa" -Isrc_c tools/ulp_sweep.c "$out/f32.o" "$out/f64.o" -o "$out/sweep" -lm
[ $# -gt 0 ] && shift
"$out/sweep" "${@:-997}"

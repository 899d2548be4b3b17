"""Compute every polynomial constant of the core and write ``src_c/coefficients.h``.

    python tools/gen_coeffs.py          # writes the header, prints each approximation's error
    python tools/gen_coeffs.py --check  # exit code 1 if the header differs from what would be written

Each approximation is a weighted minimax fit (Remez exchange in 50-digit arithmetic). Coefficients are rounded to the
element type from the lowest power upwards, and the others are fitted again after each of the first three roundings, so
that a rounded coefficient costs nothing in the next. The printed error is that of the rounded coefficients, in exact
arithmetic, relative to the function: units of the last place of the element type. The output is deterministic.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 50
HEADER = Path(__file__).resolve().parent.parent / "src_c" / "coefficients.h"
Function = Callable[[mpf], mpf]


class Format:
    """An IEEE format: rounding to it, spacing, and how C spells its numbers."""

    def __init__(self, name: str, bits: int, suffix: str) -> None:
        self.name, self.bits, self.suffix = name, bits, suffix

    def round(self, x: mpf, bits: int | None = None) -> mpf:
        """Nearest number with ``bits`` significant bits (those of the format by default)."""
        if x == 0:
            return mpf(0)
        _, exponent = mp.frexp(x)
        unit = mp.ldexp(1, int(exponent) - (bits or self.bits))
        return mp.nint(x / unit) * unit

    def round_to(self, x: mpf, unit_exponent: int) -> mpf:
        """Nearest multiple of ``2**unit_exponent``."""
        return mp.nint(mp.ldexp(x, -unit_exponent)) * mp.ldexp(1, unit_exponent)

    def ulps(self, error: mpf, value: mpf) -> mpf:
        """``error`` in units of the last place of ``value``."""
        _, exponent = mp.frexp(value)
        return abs(error) / mp.ldexp(1, int(exponent) - self.bits)

    def literal(self, x: mpf) -> str:
        value = float(x)
        assert mpf(value) == x, f"{x} is not a {self.name} number"
        if self.suffix:
            assert struct.unpack("f", struct.pack("f", value))[0] == value
        text = value.hex()
        mantissa, exponent = text.split("p")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}p{exponent}{self.suffix}"


F32 = Format("float32", 24, "f")
F64 = Format("float64", 53, "")


def polynomial(coefficients: Sequence[mpf], x: mpf) -> mpf:
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def remez(f: Function, low: mpf, high: mpf, powers: Sequence[int], weight: Function, points: int = 160) -> list[mpf]:
    """Coefficients of x**p, p in ``powers``, that minimise max |f(x) - sum| / weight(x) over [low, high]."""
    n = len(powers)
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (i + mpf(1) / 2) / points) for i in range(points)]
    values = [(f(x), weight(x)) for x in grid]
    chosen = [round((points - 1) * (1 - float(mp.cos(mp.pi * i / n))) / 2) for i in range(n + 1)]
    chosen = sorted(set(chosen))
    spare = [i for i in range(points) if i not in chosen]
    while len(chosen) < n + 1:
        chosen.append(spare.pop(len(spare) // 2))
        chosen.sort()
    best: tuple[mpf, list[mpf]] | None = None
    for _ in range(12):
        rows = mp.matrix(n + 1, n + 1)
        right = mp.matrix(n + 1, 1)
        for row, i in enumerate(chosen):
            for column, power in enumerate(powers):
                rows[row, column] = grid[i] ** power
            rows[row, n] = (-1) ** row * values[i][1]
            right[row] = values[i][0]
        solution = mp.lu_solve(rows, right)
        coefficients = [solution[i] for i in range(n)]
        errors = [
            (fx - sum(c * x**p for c, p in zip(coefficients, powers, strict=True))) / w
            for x, (fx, w) in zip(grid, values, strict=True)
        ]
        worst = max(abs(e) for e in errors)
        if best is None or worst < best[0]:
            best = (worst, coefficients)
        if worst <= abs(solution[n]) * mpf("1.02"):
            break
        extrema: list[int] = []  # the largest error of each sign run
        for i, e in enumerate(errors):
            if extrema and (e > 0) == (errors[extrema[-1]] > 0):
                if abs(e) > abs(errors[extrema[-1]]):
                    extrema[-1] = i
            else:
                extrema.append(i)
        while len(extrema) > n + 1:
            extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
        if len(extrema) < n + 1:
            break
        chosen = extrema
    assert best is not None
    return best[1]


def fit(
    fmt: Format,
    f: Function,
    low: mpf,
    high: mpf,
    degree: int,
    weight: Function,
    fixed: Sequence[mpf] = (),
    refits: int = 3,
    in_two: int = 0,
) -> list[mpf]:
    """Coefficients of 1, x, ... x**degree in the format, the lowest ``in_two`` in two words; some may be given."""

    def rounded(c: mpf, power: int) -> mpf:
        return sum(two_words(fmt, c)) if power < in_two else fmt.round(c)

    done = list(fixed)
    while len(done) <= degree:
        known = list(done)
        rest = remez(
            lambda x, known=known: f(x) - polynomial(known, x), low, high, range(len(done), degree + 1), weight
        )
        done += [rounded(c, len(known) + i) for i, c in enumerate(rest[:1] if len(known) < refits else rest)]
    return done


def two_words(fmt: Format, x: mpf) -> tuple[mpf, mpf]:
    """Head and tail of x in the format."""
    head = fmt.round(x)
    return head, fmt.round(x - head)


def worst_error(f: Function, g: Function, low: mpf, high: mpf, points: int = 400) -> mpf:
    """max |f - g| / |f| over a grid on the interval."""
    grid = [low + (high - low) * (i + mpf(1) / 2) / points for i in range(points)]
    return max(abs(f(x) - g(x)) / abs(f(x)) for x in grid)


class Header:
    """Collects definitions for both formats and writes them as one C header."""

    def __init__(self) -> None:
        self.parts: dict[str, list[str]] = {"float32": [], "float64": []}

    def comment(self, fmt: Format, text: str) -> None:
        self.parts[fmt.name].append(f"/* {text} */")

    def number(self, fmt: Format, name: str, x: mpf) -> None:
        self.parts[fmt.name].append(f"#define {name} {fmt.literal(x)}")

    def count(self, fmt: Format, name: str, n: int) -> None:
        self.parts[fmt.name].append(f"#define {name} {n}")

    def row(self, fmt: Format, name: str, numbers: Sequence[mpf]) -> None:
        self.parts[fmt.name].append(f"static const real {name}[{len(numbers)}] = {{{self._wrap(fmt, numbers)}}};")

    def table(self, fmt: Format, name: str, rows: Sequence[Sequence[mpf]]) -> None:
        body = ",\n".join("    {" + self._wrap(fmt, r, "     ") + "}" for r in rows)
        self.parts[fmt.name].append(
            f"static const FA_ALIGN(64) real {name}[{len(rows)}][{len(rows[0])}] = {{\n{body}}};"
        )

    def rows(self, fmt: Format, name: str, columns: Sequence[Sequence[mpf]], width: int) -> None:
        """The numbers of a piece together, filled up with zeros: for instruction sets that load a row for each lane."""
        self.parts[fmt.name].append("#if FA_LOOKS_UP_ROWS")
        filled = [[*row, *[mpf(0)] * (width - len(row))] for row in zip(*columns, strict=True)]
        self.table(fmt, name, filled)
        self.parts[fmt.name].append("#endif")

    def _wrap(self, fmt: Format, numbers: Sequence[mpf], indent: str = "    ") -> str:
        lines, line = [], ""
        for text in [fmt.literal(x) for x in numbers]:
            if line and len(line) + len(text) > 110:
                lines.append(line.rstrip())
                line = ""
            line += text + ", "
        lines.append(line.rstrip(", "))
        return ("\n" + indent).join(lines)

    def text(self) -> str:
        return (
            "/* Constants of math.inl and of the activations, for the element type of this unit.\n"
            " * Written by tools/gen_coeffs.py, which says how: do not edit. Errors are relative, of the rounded\n"
            " * coefficients in exact arithmetic. */\n"
            "#ifndef FA_COEFFICIENTS_H\n#define FA_COEFFICIENTS_H\n\n#if FA_F32\n\n"
            + "\n".join(self.parts["float32"])
            + "\n\n#else\n\n"
            + "\n".join(self.parts["float64"])
            + "\n\n#endif\n\n#endif\n"
        )


def report(header: Header, fmt: Format, name: str, error: mpf) -> None:
    text = f"{name}: error 2^{float(mp.log(error, 2)):.1f}"
    header.comment(fmt, text)
    print(f"{fmt.name} {text}")


def exponential(header: Header, fmt: Format, degree: int, name: str = "exp_q", parts: int = 1) -> None:
    """exp(r) = 1 + r + r^2 Q(r) on |r| <= ln2 / (2 parts)."""
    half = mp.ln2 / (2 * parts) * mpf("1.0005")

    def q(r: mpf) -> mpf:
        return (mp.expm1(r) - r) / r**2 if abs(r) > mpf("1e-15") else mpf(1) / 2 + r / 6

    refits = 0 if degree % 2 else 2  # an odd degree on both sides of 0 can't be refitted
    coefficients = fit(fmt, q, -half, half, degree, lambda r: 1 / max(abs(r), half / 16), refits=refits)
    error = worst_error(mp.expm1, lambda r: r + r**2 * polynomial(coefficients, r), -half, half)
    report(header, fmt, f"expm1(r) = r + r^2 Q(r), |r| <= ln2/{2 * parts}", error)
    header.row(fmt, name, coefficients)


def powers_of_2(header: Header, fmt: Format, name: str, parts: int) -> None:
    """2^(k / parts) in two words."""
    words = [two_words(fmt, mpf(2) ** (mpf(k) / parts)) for k in range(parts)]
    header.table(fmt, name, list(zip(*words, strict=True)))


def logarithm_of_2(header: Header, fmt: Format) -> None:
    """ln2 in two parts, n * head exact for every n that occurs."""
    head = fmt.round(mp.ln2, 16 if fmt is F32 else 42)
    header.number(fmt, "LN2", fmt.round(mp.ln2))
    header.number(fmt, "LN2_HEAD", head)
    header.number(fmt, "LN2_TAIL", fmt.round(mp.ln2 - head))
    header.number(fmt, "LOG2_E", fmt.round(1 / mp.ln2))
    header.number(fmt, "ROUND_MAGIC", mpf(3) * 2 ** (fmt.bits - 2))


def nearly_exact(fmt: Format, f: Function, near: mpf, span: mpf, step: mpf) -> mpf:
    """A multiple of ``step`` within ``span`` of ``near`` at which f is closest to a number of the format."""
    reach = int(span / step)
    candidates = [fmt.round_to(near, int(mp.log(step, 2))) + k * step for k in range(-reach, reach + 1)]

    def miss(x: mpf) -> mpf:
        value = f(x)
        return fmt.ulps(value - fmt.round(value), value)

    return min(candidates, key=lambda x: (miss(x), abs(x - near)))


Span = tuple[mpf, mpf, mpf]  # where a piece begins, about where its centre is to be, where it ends


def even_spans(width: mpf, count: int) -> list[Span]:
    """[0, (count - 1/2) width] around k * width."""
    return [(max(mpf(0), (k - mpf(1) / 2) * width), k * width, (k + mpf(1) / 2) * width) for k in range(count)]


def logarithmic_spans(shift: mpf) -> list[Span]:
    """[0, 15 shift] in 16 pieces, four an octave of t + shift, in the order of the exponent and first two bits of that.

    Only the last four bits of this number count. ``shift`` is one of the edges, 2^e (1 + k / 4).
    """
    e = int(mp.floor(mp.log(shift, 2)))
    first = 4 * e + int((mp.ldexp(shift, -e) - 1) * 4)

    def edge(i: int) -> mpf:
        return mp.ldexp(1 + mpf(i % 4) / 4, i // 4) - shift

    spans = []
    for i in range(first, first + 16):
        start, end = edge(i), edge(i + 1)
        spans.append((start, (start + end) / 2 if start > 0 else mpf(0), end))
    bias = 4 * (2**7 - 1)  # of the biased exponent, mod 16 the same in float64
    return [spans[(i - first - bias) % 16] for i in range(16)]


def pieces(
    header: Header,
    fmt: Format,
    name: str,
    f: Function,
    spans: Sequence[Span],
    degree: int,
    root: mpf | None = None,
    pair: bool = False,
) -> None:
    """f in pieces: tables name_at of centres, name_c[degree + 1][count]; of 32 pieces also name_rows, a piece a row.

    The centres are moved by up to 2 % of the width to where f is nearly a number of the format, so that the constant
    term costs nothing; the one next to a root of f moves to the number nearest to it, which keeps the relative accuracy
    there. With ``pair``, the tables are for a result in two words: the two lowest coefficients have tails, name_tail.
    """
    in_two = 2 if pair else 0
    centres, columns, heads, worst = [], [], [], mpf(0)
    for start, near, end in spans:
        centre = mpf(0)
        if near > 0:
            step = mp.ldexp(1, -14)
            centre = fmt.round_to(near, -14) if pair else nearly_exact(fmt, f, near, (end - near) / 25, step)
        if root is not None and abs(root - near) <= end - near:
            centre = fmt.round(root)
        low, high = start - centre, end - centre

        def g(q: mpf, centre: mpf = centre) -> mpf:
            return f(centre + q)

        def weight(q: mpf, centre: mpf = centre) -> mpf:
            return max(abs(f(centre + q)), mpf(1) / 64 if root is not None and abs(centre - root) < 1 else mpf(0))

        constant = sum(two_words(fmt, g(mpf(0)))) if pair else fmt.round(g(mpf(0)))
        c = fit(fmt, g, low, high, degree, weight, fixed=[constant], in_two=in_two)
        error = max(
            abs(g(q) - polynomial(c, q)) / weight(q)
            for q in [low + (high - low) * (i + mpf(1) / 2) / 60 for i in range(60)]
        )
        worst = max(worst, error)
        centres.append(centre)
        columns.append(c)
        heads.append(mpf(0) if pair and root is not None and centre == fmt.round(root) else fmt.round(c[0]))
    report(header, fmt, f"{name}, {len(spans)} pieces, degree {degree}", worst)
    header.row(fmt, f"{name}_at", centres)
    table = [[column[d] for column in columns] for d in range(degree + 1)]
    words = [heads, *([fmt.round(c) for c in row] for row in table[1:])]
    header.table(fmt, f"{name}_c", words)
    if len(spans) == 32 and not pair:
        header.rows(fmt, f"{name}_rows", [centres, *words], 8 if fmt is F32 else 16)
    if pair:  # at a root, the constant is all tail: the sum with it is of a larger and a smaller number either way
        tails = [[fmt.round(c - word) for c, word in zip(table[d], words[d], strict=True)] for d in range(in_two)]
        header.table(fmt, f"{name}_tail", tails)


def normal_tail(t: mpf) -> mpf:
    """Phi(-t)."""
    return mp.erfc(t / mp.sqrt(2)) / 2


def density(t: mpf) -> mpf:
    return mp.exp(-t * t / 2) / mp.sqrt(2 * mp.pi)


def gelu_slope(t: mpf) -> mpf:
    """gelu'(-t)."""
    return normal_tail(t) - t * density(t)


GELU_SLOPE_ROOT = mp.findroot(gelu_slope, mpf("0.7518"))


def gelu(header: Header, fmt: Format, width: mpf, degree: int, far_degree: int) -> None:
    """Phi(-t) and Phi(-t) - t phi(t) in 32 pieces; beyond them t Phi(-t) exp(t^2/2) = G(1/t^2)."""
    pieces(header, fmt, "normal_tail", normal_tail, even_spans(width, 32), degree)
    pieces(header, fmt, "gelu_slope", gelu_slope, even_spans(width, 32), degree, GELU_SLOPE_ROOT)
    header.number(fmt, "NORMAL_SCALE", fmt.round(1 / width))
    limit = width * mpf(63) / 2
    header.number(fmt, "NORMAL_FAR", fmt.round(limit))

    def g(w: mpf) -> mpf:
        if w < mpf("1e-12"):
            return (1 - w) / mp.sqrt(2 * mp.pi)
        t = 1 / mp.sqrt(w)
        return t * normal_tail(t) * mp.exp(t * t / 2)

    high = 1 / limit**2 * mpf("1.001")
    low = mpf(1) / 1600 if fmt is F64 else mpf(1) / 256
    c = fit(fmt, g, low, high, far_degree, g)
    report(
        header,
        fmt,
        f"t Phi(-t) exp(t^2/2) in 1/t^2, degree {far_degree}",
        worst_error(g, lambda w: polynomial(c, w), low, high),
    )
    header.row(fmt, "normal_far", c)
    header.number(fmt, "DENSITY_0", fmt.round(1 / mp.sqrt(2 * mp.pi)))


def gelu_tanh(header: Header, fmt: Format, fraction_bits: int) -> None:
    """gelu_tanh(x) = x sigmoid(x (c0 + c1 x^2)); the head of c0 is cut so that c0 + c1 x^2 minus it is exact."""
    c0 = 2 * mp.sqrt(2 / mp.pi)
    c1 = c0 * mpf("0.044715")
    head = fmt.round_to(c0, -fraction_bits)
    header.number(fmt, "GELU_TANH_C0", head)
    header.number(fmt, "GELU_TANH_C0_TAIL", fmt.round(c0 - head))
    header.number(fmt, "GELU_TANH_C1", fmt.round(c1))
    header.number(fmt, "GELU_TANH_C1_TAIL", fmt.round(c1 - fmt.round(c1)))


def logarithm(header: Header, fmt: Format, degree: int) -> None:
    """log1p(u) / u on [0, 1] in 16 pieces around k / 15."""

    def ratio(u: mpf) -> mpf:
        return mp.log1p(u) / u if u > mpf("1e-15") else 1 - u / 2

    pieces(header, fmt, "log1p", ratio, even_spans(mpf(1) / 15, 16), degree)


def near_zero(
    header: Header, fmt: Format, name: str, formula: str, f: Function, limit: mpf, degree: int, apart: float = 0
) -> None:
    """f(t) - apart, of even powers, as a polynomial in w = t^2, 0 <= t <= limit; the caller adds what is apart."""

    def of_square(w: mpf) -> mpf:
        return f(mp.sqrt(max(w, mpf("1e-16"))))

    c = fit(fmt, lambda w: of_square(w) - apart, mpf(0), limit**2 * mpf("1.001"), degree, of_square)
    error = worst_error(of_square, lambda w: apart + polynomial(c, w), mpf(0), limit**2)
    report(header, fmt, f"{formula}, 0 <= t <= {mp.nstr(limit, 3)}, w = t^2, degree {degree}", error)
    header.row(fmt, f"{name}_near", c)
    header.number(fmt, f"{name.upper()}_NEAR", fmt.round(limit))


ERF_ROOT = 8
ERF_NEAR = mpf(9) / 8  # erfc(1) is large enough for the errors of Q to show, half an ulp more


def error_function(header: Header, fmt: Format, end: mpf, near_degree: int, far_degree: int) -> None:
    """erf(t) = t + t P(t^2) up to ERF_NEAR and 1 - Q(t - ERF_NEAR)^8 from there; at ``end``, it rounds to 1."""
    near_zero(header, fmt, "erf", "erf(t) = t + t P(w)", lambda t: mp.erf(t) / t, ERF_NEAR, near_degree, 1)

    def erf(s: mpf) -> mpf:
        return mp.erf(ERF_NEAR + s)

    def root(s: mpf) -> mpf:
        return mp.erfc(ERF_NEAR + s) ** (mpf(1) / ERF_ROOT)

    # an error of q counts 8 q^7 times in erf; 2^-bits of the weight's bound is q / 8 at the end
    def weight(s: mpf) -> mpf:
        q = root(s)
        return min(1 / (ERF_ROOT * q ** (ERF_ROOT - 1)), mp.ldexp(q / ERF_ROOT, fmt.bits))

    reach = end - ERF_NEAR
    c = fit(fmt, root, mpf(0), reach, far_degree, weight)
    error = worst_error(erf, lambda s: 1 - polynomial(c, s) ** ERF_ROOT, mpf(0), reach)
    formula = f"erf(t) = 1 - Q(t - {mp.nstr(ERF_NEAR, 4)})^{ERF_ROOT}"
    report(header, fmt, f"{formula}, t <= {mp.nstr(end, 3)}, degree {far_degree}", error)
    header.row(fmt, "erf_far", c)
    header.number(fmt, "ERF_END", fmt.round(end))
    header.number(fmt, "TWO_OVER_SQRT_PI", fmt.round(2 / mp.sqrt(mp.pi)))


def arctangent(header: Header, fmt: Format, degree: int, name: str = "atan_a", centre: float = 0.0) -> None:
    """atan(z) = z + z w A(w), w = z^2, on [0, 1]; A in powers of w - centre, which cancel less around 1/2."""
    centre = mpf(centre)

    def a(w: mpf) -> mpf:
        z = mp.sqrt(w)
        return (mp.atan(z) / z - 1) / w if w > mpf("1e-20") else -mpf(1) / 3 + w / 5

    c = fit(
        fmt,
        lambda v: a(v + centre),
        -centre,
        1 - centre,
        degree,
        lambda v: 1 / max(v + centre, mpf(1) / 16),
        in_two=centre != 0,
    )
    error = worst_error(mp.atan, lambda z: z + z**3 * polynomial(c, z * z - centre), mpf(0), mpf(1))
    report(header, fmt, f"atan(z) = z + z^3 A(z^2), 0 <= z <= 1, degree {degree}", error)
    header.row(fmt, name, [fmt.round(x) for x in c])
    if centre:
        header.number(fmt, f"{name.upper()}_TAIL", two_words(fmt, c[0])[1])


def half_pi(header: Header, fmt: Format) -> None:
    """pi / 2 in two words."""
    head, tail = two_words(fmt, mp.pi / 2)
    header.number(fmt, "HALF_PI", head)
    header.number(fmt, "HALF_PI_TAIL", tail)


def tanh_rest(t: mpf) -> mpf:
    """(t - tanh t) / t^3."""
    return (t - mp.tanh(t)) / t**3 if t > mpf("1e-8") else mpf(1) / 3 - 2 * t * t / 15


def tanh_rest_and_square(header: Header, fmt: Format, degree: int) -> None:
    """t - tanh(t) and tanh(t)^2 next to 0."""
    near_zero(header, fmt, "tanh_rest", "t - tanh(t) = t^3 / 4 + t^3 P(w)", tanh_rest, mpf(1), degree, 1 / 4)
    square = "tanh(t)^2 = w + w P(w)"
    near_zero(header, fmt, "tanh_square", square, lambda t: (mp.tanh(t) / t) ** 2, mpf("0.9"), degree, 1)


def tail_of(header: Header, fmt: Format, name: str, x: mpf) -> None:
    """What rounding leaves of a constant."""
    header.number(fmt, f"{name}_TAIL", two_words(fmt, x)[1])


def tangent(header: Header, fmt: Format, shift: mpf, degree: int) -> None:
    """tanh in 16 pieces, relative also next to 0; it rounds to 1 at their end."""
    pieces(header, fmt, "tanh_piece", mp.tanh, logarithmic_spans(shift), degree)
    header.number(fmt, "TANH_SHIFT", shift)


def table_in_two_words(header: Header, fmt: Format, name: str, f: Function, width: mpf, degree: int) -> None:
    """f in 32 pieces, and where they end."""
    pieces(header, fmt, f"{name}_pair", f, even_spans(width, 32), degree, pair=True)
    header.number(fmt, f"{name.upper()}_SCALE", fmt.round(1 / width))
    header.number(fmt, f"{name.upper()}_FAR", fmt.round(width * mpf(63) / 2))


def pairs(
    header: Header,
    fmt: Format,
    exp_degree: int,
    normal_width: mpf,
    erf_width: mpf,
    degree: int,
    erf_degree: int,
    atan_degree: int,
) -> None:
    """What math_pairs.inl needs beyond the above: a degree more, and tails."""
    powers_of_2(header, fmt, "exp_powers", 16)
    exponential(header, fmt, exp_degree, "exp_q_sixteenth", 16)
    pieces(header, fmt, "normal_tail_pair", normal_tail, even_spans(normal_width, 32), degree, pair=True)
    pieces(header, fmt, "gelu_slope_pair", gelu_slope, even_spans(normal_width, 32), degree, GELU_SLOPE_ROOT, pair=True)
    table_in_two_words(header, fmt, "erf", mp.erf, erf_width, erf_degree)
    table_in_two_words(header, fmt, "tanh_rest", tanh_rest, mpf(9) / 32, degree)
    arctangent(header, fmt, atan_degree, "atan_a_pair", 0.5)
    tail_of(header, fmt, "DENSITY_0", 1 / mp.sqrt(2 * mp.pi))
    tail_of(header, fmt, "TWO_OVER_SQRT_PI", 2 / mp.sqrt(mp.pi))


def build() -> Header:
    header = Header()
    exponential(header, F32, 4)
    logarithm_of_2(header, F32)
    gelu(header, F32, mpf(3) / 16, 6, 5)
    gelu_tanh(header, F32, 20)
    logarithm(header, F32, 4)
    error_function(header, F32, mpf(4), 6, 7)
    arctangent(header, F32, 8)
    half_pi(header, F32)
    tanh_rest_and_square(header, F32, 7)
    tangent(header, F32, mpf("0.625"), 6)
    pairs(header, F32, 2, mpf(3) / 16, mpf(1) / 8, 7, 6, 10)
    exponential(header, F64, 10)
    logarithm_of_2(header, F64)
    gelu(header, F64, mpf(7) / 32, 13, 16)
    gelu_tanh(header, F64, 46)
    logarithm(header, F64, 10)
    error_function(header, F64, mpf(6), 12, 18)
    arctangent(header, F64, 20)
    half_pi(header, F64)
    tanh_rest_and_square(header, F64, 15)
    tangent(header, F64, mpf("1.5"), 14)
    pairs(header, F64, 5, mpf(7) / 32, mpf(19) / 100, 14, 15, 22)
    return header


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the header on disk, write nothing")
    arguments = parser.parse_args()
    text = build().text()
    if arguments.check:
        return int(HEADER.read_text() != text)
    HEADER.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

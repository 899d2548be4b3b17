"""Build fastact's compiled core.

One body of C kernels is compiled once per (instruction set, element type) with that set's flags; everything else is
built for the platform's baseline. The kernels live in the extension ``fastact._core.runtime``; the other extensions
reach them through its C interface.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
CORE = Path("fastact") / "_core"
MSVC = sys.platform == "win32"

# Without debug information, which Python's own flags ask for: 9 MB instead of 109. FASTACT_CFLAGS=-g brings it back.
GCC_FLAGS = ["-std=c11", "-O3", "-g0", "-fvisibility=hidden"]
GCC_FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
MSVC_FLAGS = ["/std:c11", "/O2", "/fp:precise", "/experimental:c11atomics"]

# Flags of each instruction set's own units; nothing else is compiled with them. The scalar set is kept free of
# automatic vectorisation so that it stays an honest yardstick.
if platform.machine().lower() in ("x86_64", "amd64"):
    ISA_FLAGS = {
        "scalar": [] if MSVC else ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"],
        "avx2": ["/arch:AVX2"] if MSVC else ["-mavx2", "-mfma"],
        "avx512": ["/arch:AVX512"]
        if MSVC
        else ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
    }
elif platform.machine().lower() in ("aarch64", "arm64"):
    ISA_FLAGS = {"scalar": ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"], "neon": []}
else:
    ISA_FLAGS = {"scalar": ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"]}
if wanted := os.environ.get("FASTACT_ISAS", "").lower().split():  # fewer sets build faster
    if unknown := set(wanted) - set(ISA_FLAGS):
        sys.exit(f"FASTACT_ISAS: expected names among {', '.join(ISA_FLAGS)}, got {', '.join(sorted(unknown))}")
    ISA_FLAGS = {isa: flags for isa, flags in ISA_FLAGS.items() if isa in ("scalar", *wanted)}

DTYPES = ("f32", "f64")


def openmp_flags(compiler) -> tuple[list[str], list[str]]:
    """Compile and link flags that give OpenMP with this compiler, or two empty lists."""
    if os.environ.get("FASTACT_NO_OPENMP"):
        return [], []
    source = "#include <omp.h>\nint main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }\n"
    if MSVC:
        candidates = [(["/openmp"], [])]
    elif sys.platform == "darwin":
        candidates = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), (["-fopenmp"], ["-fopenmp"])]
    else:
        candidates = [(["-fopenmp"], ["-fopenmp"])]
    for compile_flags, link_flags in candidates:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.c"
            path.write_text(source)
            try:
                objects = compiler.compile([str(path)], output_dir=folder, extra_postargs=compile_flags)
                compiler.link_executable(objects, str(Path(folder) / "probe"), extra_postargs=link_flags)
            except Exception:  # any failure of the compiler means: not with these flags
                continue
            return compile_flags, link_flags
    print("fastact: no OpenMP found; building a version that runs on one thread", file=sys.stderr)
    return [], []


class BuildCore(build_ext):
    """Adds the per-instruction-set kernel objects to ``runtime`` and OpenMP to all extensions."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self) -> None:
        extra = os.environ.get("FASTACT_CFLAGS", "").split()  # CI: -Werror, sanitisers
        link_extra = os.environ.get("FASTACT_LDFLAGS", "").split()
        omp_compile, omp_link = openmp_flags(self.compiler)
        flags = (MSVC_FLAGS if MSVC else GCC_FLAGS) + extra
        for extension in self.extensions:
            extension.extra_compile_args += flags + omp_compile
            extension.extra_link_args += omp_link + link_extra
            if extension.name.endswith(".runtime"):
                extension.extra_objects += self.compile_kernels(flags)
        options = repr([(e.extra_compile_args, e.extra_link_args, e.define_macros) for e in self.extensions])
        stamp = Path(self.build_temp) / "options"
        stamp.parent.mkdir(parents=True, exist_ok=True)
        if not stamp.exists() or stamp.read_text() != options:  # setuptools compares the ages of files alone
            self.force = True
        super().build_extensions()
        stamp.write_text(options)

    def compile_kernels(self, flags: list[str]) -> list[str]:
        """Objects of every (instruction set, element type).

        They are most of a build (4 of 5 minutes on 2 cores of Zen 3), so one that the same command made from the same
        sources is kept, in a folder whose name is the digest of both: a second install from a checkout takes it. Not in
        build_temp, which is a new folder each time for an editable install.
        """
        source, store = str(Path("src_c") / "kernels.c"), Path("build") / "kernels"
        sources = sorted(path for path in Path("src_c").rglob("*") if path.is_file())
        contents = b"".join(path.read_bytes() for path in sources)
        command = getattr(self.compiler, "compiler_so", [self.compiler.compiler_type])

        def unit(isa: str, dtype: str) -> list[str]:
            options = flags + ISA_FLAGS[isa]
            digest = hashlib.sha256(repr([command, options]).encode() + contents).hexdigest()[:12]
            folder = store / f"{isa}_{dtype}_{digest}"
            kept = [str(path) for path in folder.rglob(f"*{self.compiler.obj_extension}")]
            if kept and not self.force:
                return kept
            # Into another folder first: what an interrupted build leaves is not taken for an object.
            with tempfile.TemporaryDirectory(dir=store) as unfinished:
                (made,) = self.compiler.compile(
                    [source],
                    output_dir=unfinished,
                    macros=[("FA_ISA", isa), ("FA_DTYPE", dtype)],
                    include_dirs=["src_c"],
                    extra_postargs=options,
                )
                folder.mkdir(parents=True, exist_ok=True)
                return [str(Path(made).replace(folder / Path(made).name))]

        store.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.parallel) as pool:
            jobs = [pool.submit(unit, isa, dtype) for isa in reversed(ISA_FLAGS) for dtype in DTYPES]
            return [obj for job in jobs for obj in job.result()]


def extension(name: str, sources: list[str] | None = None) -> Extension:
    return Extension(
        f"fastact._core.{name}",
        [str(CORE / f"{name}.pyx"), *(sources or [])],
        include_dirs=["src_c", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")]
        + [(f"FA_BUILD_{isa}", "1") for isa in ISA_FLAGS],
        depends=[str(p) for p in (ROOT / "src_c").rglob("*.[hcid]*")],
    )


os.chdir(ROOT)
extensions = [
    extension("runtime", [str(Path("src_c") / "dispatch.c"), str(Path("src_c") / "threads.c")]),
    *(extension(path.stem) for path in sorted(CORE.glob("*.pyx")) if path.stem != "runtime"),
]
setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": True,
            "binding": True,
        },
    ),
    cmdclass={"build_ext": BuildCore},
)

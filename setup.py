"""Builds the extension modules; everything else is in pyproject.toml."""

import os
import shutil
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

# For tests: RNNCORE_SANITIZE=1 pip install .   Run with LD_PRELOAD="$(gcc -print-file-name=libasan.so)".
SANITIZE = os.environ.get("RNNCORE_SANITIZE")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]

CFLAGS = [
    "-std=gnu11",
    "-O3",
    # Contract a*b+c where the instruction set has it; std=c11 would turn that off (69 -> 103 GFLOP/s in a tile).
    "-ffp-contract=fast",
    # Both only give up flags and errno, never a value; without them no loop with a clamp is vectorised.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-g0",  # Pythons are built with -g, and pass it on: 5 MB of 6
]

FLAGS = CFLAGS + os.environ.get("RNNCORE_CFLAGS", "").split() + (SANITIZERS if SANITIZE else [])

# In the sdist, and a rebuild when one of them changes.
HEADERS = sorted(glob("src/**/*.p[yx]*", recursive=True) + glob("src/**/*.h", recursive=True))

engine = Extension(
    "rnncore._engine",
    ["src/_engine.pyx", "src/memory.c", "src/threads.c", *sorted(glob("src/kernels/*.c"))],
    include_dirs=["src", "src/kernels", numpy.get_include()],
    define_macros=[
        ("_GNU_SOURCE", "1"),  # the affinity of threads
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        ("BUILD_FLAGS", f'"{" ".join(FLAGS)}"'),  # for show_config
    ],
    extra_compile_args=FLAGS,
    extra_link_args=SANITIZERS if SANITIZE else [],
    depends=HEADERS,
)

# Products by SciPy's BLAS; loaded only when they are chosen.
blas = Extension(
    "rnncore._blas",
    ["src/_blas.pyx"],
    include_dirs=["src", "src/kernels"],
    extra_compile_args=FLAGS,
    extra_link_args=SANITIZERS if SANITIZE else [],
    depends=HEADERS,
)


class BuildExtension(build_ext):
    """Take the compiler that the code is written for, or say what to install."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            self.use_clang_cl()
        compiler = getattr(self.compiler, "compiler_so", None)  # of Unix compilers
        if compiler and shutil.which(compiler[0]) is None:
            raise PlatformError(
                f"rnncore is compiled from C, and there is no compiler {compiler[0]!r}. Install gcc or clang "
                "(Debian, Ubuntu: apt install build-essential; Fedora: dnf install gcc; Alpine: apk add build-base; "
                "macOS: xcode-select --install), or set the environment variable CC to the compiler to use."
            )
        super().build_extensions()

    def use_clang_cl(self):
        """Replace Microsoft's compiler, which lacks GNU C, by the clang that takes its place: clang-cl."""
        clang = shutil.which(os.environ.get("CC", "clang-cl"))
        if clang is None or "clang-cl" not in clang.lower():
            raise PlatformError(
                "rnncore is written in GNU C, which Microsoft's compiler does not read. Install LLVM (winget install "
                "LLVM.LLVM, or the component 'C++ Clang tools' of Visual Studio) and put clang-cl on the PATH, or set "
                "the environment variable CC to it."
            )
        if not self.compiler.initialized:
            self.compiler.initialize(self.plat_name)
        self.compiler.cc = clang
        for extension in self.extensions:
            extension.extra_compile_args = [f"/clang:{flag}" for flag in extension.extra_compile_args]


setup(
    cmdclass={"build_ext": BuildExtension},
    ext_modules=cythonize(
        [engine, blas],
        include_path=["src"],
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
        },
    ),
)

"""The packages whose code `code10` learns: pinned by sha256, with what is read of each.

All of their licences permit it. Left out are tests, generated files, and parts that come from elsewhere.
"""

from dataclasses import dataclass

from experiments.assets import Asset
from experiments.npm_packages import NpmPackage


@dataclass(frozen=True)
class Source:
    """Where the code of a language comes from.

    Attributes:
        language: its name.
        package: a wheel, or a package of npm.
        licence: of the package.
        under: the folders in it that are read.
        endings: of the files that are read.
        without: parts of a path for which a file is left out.
    """

    language: str
    package: Asset | NpmPackage
    licence: str
    under: tuple[str, ...]
    endings: tuple[str, ...]
    without: tuple[str, ...] = ()


_NETWORKX = Asset(
    name="networkx",
    version="3.3",
    wheel="networkx-3.3-py3-none-any.whl",
    size=1_702_396,
    sha256="28575580c6ebdaf4505b22c6256a2b9de86b316dc63ba9e93abde3d78dfdbcf2",
    members=(),
)
_PYBIND11 = Asset(
    name="pybind11",
    version="2.13.6",
    wheel="pybind11-2.13.6-py3-none-any.whl",
    size=243_282,
    sha256="237c41e29157b962835d356b370ededd57594a26d5894a795960f0047cb5caf5",
    members=(),
)
_TREE_SITTER = NpmPackage(
    "tree-sitter", "0.21.1", 966_349, "49d8edf6b34cd719a3e44a0ce154211f996039eee6b6a4b297c3e84f766d6d70"
)
_CAPACITOR = NpmPackage(
    "@capacitor/android", "6.1.2", 87_648, "d436f18152580f7b935bd839e7db3ad6ba2ab48a53cdb3488bd162140e01d736"
)
_EXPO = NpmPackage(
    "expo-modules-core", "1.12.24", 377_675, "c9d6738a54bc0878049cdf3ae42903d4931576ffe50c42b53d49c7043c95e0cf"
)
_MAPS = NpmPackage(
    "react-native-maps", "0.27.1", 8_436_226, "3afe6a6a86b915b90499b73c448cf1a410d46c03607588e72a3188184d4cebeb"
)
_JQUERY = NpmPackage("jquery", "3.7.1", 404_231, "68a9f787516da47c680e09c187bcbac4536b6f85d90eb882844e12919e583f53")
_RXJS = NpmPackage("rxjs", "7.8.1", 752_048, "c532167725ab7d085123209156c93cef22f2479cb9c8527060f1cd903aa9d149")
_OPENZEPPELIN = NpmPackage(
    "@openzeppelin/contracts", "5.0.2", 198_244, "709a5996fd3fdccc1b3b38c4b87dcafa103b9126b63839f248c4172ba21093fa"
)

SOURCES = (
    Source("Python", _NETWORKX, "BSD-3-Clause", ("networkx/",), (".py",), ("/tests/",)),
    Source(
        "C", _TREE_SITTER, "MIT", ("package/vendor/tree-sitter/lib/src/",), (".c", ".h"), ("/unicode/", "wasm-stdlib")
    ),
    Source("Java", _CAPACITOR, "MIT", ("package/capacitor/src/main/java/",), (".java",)),
    Source("TypeScript", _RXJS, "Apache-2.0", ("package/src/",), (".ts",)),
    Source("Solidity", _OPENZEPPELIN, "MIT", ("package/",), (".sol",), ("/mocks/",)),
    Source("Swift", _EXPO, "MIT", ("package/ios/",), (".swift",), ("/Tests/",)),
    Source("C++", _PYBIND11, "BSD-3-Clause", ("pybind11/include/",), (".h",)),
    Source("Kotlin", _EXPO, "MIT", ("package/android/src/main/",), (".kt",)),
    Source("JavaScript", _JQUERY, "MIT", ("package/src/",), (".js",)),
    Source("Objective-C", _MAPS, "MIT", ("package/lib/ios/",), (".m",), ("/Callout/",)),
)
"""The ten languages, in the order in which they are learnt."""

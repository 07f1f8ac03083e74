"""Put solc into `.solcx/`, where py-solc-x, Ape and forge find it (`SOLCX_BINARY_PATH=.solcx`).

The native build is taken where it can be downloaded. Elsewhere the WebAssembly build from
`node_modules/` stands in for it, through `solc.cjs`; both give the same bytecode.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import requests
import solcx
from packaging.version import Version
from solcx.exceptions import DownloadError, SolcInstallationError, UnexpectedVersionError
from solcx.install import BINARY_DOWNLOAD_BASE, SOLCX_BINARY_PATH_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
SOLC_DIRECTORY = ROOT / ".solcx"
SOLC_VERSION = "0.8.37"
SOLC_LONG_VERSION = "0.8.37+commit.f401782d"
SOLC = SOLC_DIRECTORY / f"solc-v{SOLC_VERSION}"
WASM_COMMAND = ROOT / "scripts" / "solc" / "solc.cjs"
PLATFORMS = {"linux": "linux", "darwin": "macosx", "win32": "windows"}
DOWNLOAD_ERRORS = (
    DownloadError,
    OSError,  # requests' own errors among them
    SolcInstallationError,
    UnexpectedVersionError,
)
CONNECT_TIMEOUT_SECONDS = 3
READ_TIMEOUT_SECONDS = 10


def native_build_is_reachable() -> bool:
    """Ask for the list of native builds: py-solc-x itself would wait for it without a limit."""
    address = BINARY_DOWNLOAD_BASE.format(PLATFORMS[sys.platform], "list.json")
    try:
        answer = requests.head(address, timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS))
    except requests.RequestException:
        return False
    return answer.ok


def install_native_build() -> bool:
    """Download the native build; False where there is none or it does not run here."""
    if not native_build_is_reachable():
        return False
    os.environ[SOLCX_BINARY_PATH_VARIABLE] = str(SOLC_DIRECTORY)
    try:
        solcx.install_solc(SOLC_VERSION)
    except DOWNLOAD_ERRORS:
        SOLC.unlink(missing_ok=True)
        return False
    return True


def install_wasm_build() -> None:
    """Link the command over npm's `solc`; relative, so that the checkout can be moved."""
    SOLC.unlink(missing_ok=True)
    SOLC.symlink_to(Path("..") / WASM_COMMAND.relative_to(ROOT))


def installed_version() -> str:
    """What the installed compiler says of itself, without the platform it was built for."""
    return solcx.wrapper.get_version_str_from_solc_binary(SOLC)


def main() -> int:
    """Install, check the version, and say which of the two builds it is."""
    SOLC_DIRECTORY.mkdir(exist_ok=True)
    SOLC.unlink(missing_ok=True)
    native = install_native_build()
    if not native:
        install_wasm_build()
    try:
        version = installed_version()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{SOLC} does not run: {error}. The WebAssembly build needs node and `npm ci`.")
    if Version(version) != Version(SOLC_LONG_VERSION):
        sys.exit(f"{SOLC} is solc {version}, not {SOLC_LONG_VERSION}")
    kind = (
        "native build"
        if native
        else "WebAssembly build from npm; the native one cannot be had here"
    )
    print(f"solc {version} ({kind})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

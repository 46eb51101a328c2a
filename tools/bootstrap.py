"""Creates `.venv` with what the demo and the tests need, exactly as `uv.lock` says.

Needs the standard library of any Python 3 alone. Either way `uv` reads the lock, so the environment is the
same: the one on the PATH, or, where there is none, one that pip puts into a fresh `.venv`. A finished
environment carries a stamp, a digest of what it was made from; with it nothing is done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "seqjax-environment"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
SYNC = ["sync", "--frozen", "--extra", "dev"]


def main() -> int:
    """Makes the environment, unless it is there; returns the exit status."""
    wanted = digest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return 0
    python = os.environ.get("PYTHON") or None
    uv = shutil.which("uv")
    try:
        if uv:
            say(f"installing the packages of uv.lock into {VENV} with {uv}")
            run([uv, *SYNC, *(["--python", python] if python else [])])
        else:
            with_pip(python)
    except subprocess.CalledProcessError as error:
        say(f"failed: {' '.join(error.cmd)} (exit status {error.returncode}); run make again to resume")
        return 1
    STAMP.write_text(wanted)
    say("the environment is complete; from now on it is used as it is, without the network")
    return 0


def digest() -> str:
    """What a finished environment was made from: the lock, and its place (scripts hold their path)."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "uv.lock")]
    return hashlib.sha256(b"\0".join([*parts, str(ROOT).encode()])).hexdigest()


def with_pip(python: str | None) -> None:
    """Creates `.venv` with the `venv` module, and lets a `uv` installed there by pip read the lock."""
    uv = VENV / "bin" / "uv"
    if not uv.is_file():
        python = find_python(python)
        say(f"creating {VENV} with {python}")
        run([python, "-m", "venv", "--clear", str(VENV)])
        say("installing uv into it with pip, to read uv.lock (there is no uv on the PATH)")
        run([str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv>=0.7"])
    say(f"installing the packages of uv.lock into {VENV}")
    run([str(uv), *SYNC, "--inexact"])


def find_python(wanted: str | None) -> str:
    """The first Python that will do: the wanted one alone, or this one, or a versioned one on the PATH."""
    if wanted:
        candidates = [wanted]
    else:
        candidates = [sys.executable, *(f"python{major}.{minor}" for major, minor in SUPPORTED)]
    found = []
    for candidate in candidates:
        version = version_of(candidate)
        if version in SUPPORTED:
            return candidate
        if version:
            found.append(f"{candidate} is {version[0]}.{version[1]}")
    raise SystemExit(
        "seqjax needs Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip "
        f"({'; '.join(found) or 'none found'}).\n"
        "Install one (on Debian python3-venv too) or uv, or name one: make PYTHON=/path/to/python3.12 demo"
    )


def version_of(python: str) -> tuple[int, int] | None:
    """Major and minor version of a Python that can create environments; None where it cannot be run."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    try:
        result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = result.stdout.split()
    return int(major), int(minor)


def run(command: list[str]) -> None:
    """Runs a command in the repository, with `.venv` as its environment whatever else is active."""
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(VENV)}
    certificates = ssl.get_default_verify_paths()
    if certificates.cafile or (certificates.capath and any(Path(certificates.capath).iterdir())):
        environment.setdefault("UV_SYSTEM_CERTS", "true")  # As pip does: a proxy's certificate is only there.
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def say(line: str) -> None:
    """Tells the user what is going on."""
    print(f"seqjax: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

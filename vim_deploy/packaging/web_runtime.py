"""onnxruntime-web: the JavaScript and WebAssembly that run a model in a browser; where they are.

One version is known, by the hash that npm's registry publishes for it and by the hashes of the two
files that are needed of it. They come from the user's cache, from a folder or archive that the user
names, or from the registry; wherever they come from, other bytes are refused. Nothing of the
package is run here.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import logging
import os
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.files import prepare_folder, require_file, write_bytes
from vim_deploy.folders import user_cache
from vim_deploy.packaging.manifest import FileEntry
from vim_deploy.progress import stage_log
from vim_deploy.untrusted import read_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
#: Of the archive, as the registry gives it (``dist.integrity``), and its size in bytes.
_INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ"
    "=="
)
_ARCHIVE_BYTES = 33_106_585
#: What is needed: the smallest build, which computes on the CPU. Its JavaScript holds the part that
#: starts the other file, so that nothing else is loaded.
FILES: Mapping[str, FileEntry] = {
    "ort-wasm-simd-threaded.wasm": FileEntry(
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2", 14_239_897
    ),
    "ort.wasm.bundle.min.mjs": FileEntry(
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90", 73_054
    ),
}
#: Folders of a package that may hold them: one that is unpacked, one in node_modules.
_INSIDE = ("", "dist", "package/dist", f"node_modules/{PACKAGE}/dist", f"{PACKAGE}/dist")
#: Where npm looks when nobody has told it otherwise, and what tells it.
_REGISTRY, REGISTRY_VARIABLES = (
    "https://registry.npmjs.org",
    ("npm_config_registry", "NPM_CONFIG_REGISTRY"),
)
#: Seconds without a byte until the registry counts as unreachable.
_TIMEOUT = 30.0
_GET = f"npm pack {PACKAGE}@{VERSION}"
_log = logging.getLogger(__name__)


def runtime_files(named: Path | None = None) -> dict[str, bytes]:
    """The contents of ``FILES``, each with its own hash.

    Args:
        named: folder of the unpacked package, or its archive; None for the cache, then the
            registry.

    Raises:
        VimDeployError: VIM-401 (what is named is not there), VIM-425 (it holds other files than
            those of this version), VIM-301 (the registry does not answer, or with something else),
            VIM-202 (the registry's address), VIM-304, VIM-305 (the cache).
    """
    if named is not None:
        return _from_folder(named) if named.is_dir() else _from_archive_file(named)
    folder = user_cache() / "web" / f"{PACKAGE}-{VERSION}"
    try:
        return _from_folder(folder)
    except VimDeployError as error:
        _log.debug("nothing to use in the cache: %s", error.message)
    address = _address()
    prepare_folder(folder, "XDG_CACHE_HOME")
    stage_log.info("getting %s %s (%d MB)", PACKAGE, VERSION, _ARCHIVE_BYTES // 1_000_000)
    found = _unpacked(_download(address), f"the answer of {address}")
    for name, data in found.items():
        write_bytes(folder / name, data)
    return found


def check_runtime(folder: Path, files: Mapping[str, FileEntry]) -> str:
    """A sentence about the runtime of a package whose manifest lists ``files``.

    Raises:
        VimDeployError: VIM-425 when the manifest allows another runtime than this version's.
    """
    wrong = [name for name, entry in FILES.items() if files.get(f"runtime/{name}") != entry]
    if wrong:
        raise _other(folder / "runtime", ", ".join(wrong))
    return f"the files of {PACKAGE} {VERSION}, by the hashes that this vim-deploy knows"


def _from_folder(folder: Path) -> dict[str, bytes]:
    places = [folder / inside for inside in _INSIDE]
    first = next(iter(FILES))
    place = next((item for item in places if (item / first).is_file()), None)
    if place is None:
        raise VimDeployError(
            "VIM-401",
            f"no {PACKAGE} in {folder}",
            why=f"neither it nor its folder dist holds {first}",
            fix=f"name the folder of the unpacked package, or its archive: {_GET}",
        )
    return {name: _checked(name, _read(place / name), place) for name in FILES}


def _from_archive_file(path: Path) -> dict[str, bytes]:
    require_file(path, f"archive of {PACKAGE}")
    size = path.stat().st_size
    if size > _ARCHIVE_BYTES:
        raise _other(path, f"its size is {size}")
    return _unpacked(_read(path), str(path))


def _read(path: Path) -> bytes:
    def unreadable(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-401", f"{path} cannot be read", why=why, fix=f"get it again: {_GET}"
        )

    return read_bytes(path, unreadable, max_bytes=_ARCHIVE_BYTES)


def _checked(name: str, data: bytes, place: Path | str) -> bytes:
    entry = FILES[name]
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise _other(place, name)
    return data


def _other(place: Path | str, what: str) -> VimDeployError:
    return VimDeployError(
        "VIM-425",
        f"{place} is not {PACKAGE} {VERSION}",
        why=f"{what}: other bytes than that version's",
        fix=f"take that version and no other: {_GET}, then --web-runtime {PACKAGE}-{VERSION}.tgz",
    )


def _unpacked(archive: bytes, place: str) -> dict[str, bytes]:
    """The files of the registry's archive, whose hash is checked before anything reads it."""
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if f"sha512-{digest}" != _INTEGRITY:
        raise _other(place, f"its SHA-512 is {digest[:16]}..., its size {len(archive)}")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        for name in FILES:
            stream = opened.extractfile(f"package/dist/{name}")
            assert stream is not None  # the archive is the one that was looked into
            found[name] = _checked(name, stream.read(), place)
    return found


def _address() -> str:
    """Of the archive, in the registry that npm would ask."""
    named = next((os.environ[key] for key in REGISTRY_VARIABLES if os.environ.get(key)), _REGISTRY)
    parts = urllib.parse.urlsplit(named)
    if parts.scheme != "https" or not parts.netloc:
        raise VimDeployError(
            "VIM-202",
            f"{named!r} is no registry to get {PACKAGE} from",
            why=f"{REGISTRY_VARIABLES[0]} says so, and only https:// is asked",
            fix=f"set it to an https address, or get the archive: {_GET}, and give --web-runtime",
        )
    return f"{named.rstrip('/')}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"


def _download(address: str) -> bytes:
    """The archive, no byte more than it has; proxies as the environment names them."""
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:  # noqa: S310 - https
            data: bytes = answer.read(_ARCHIVE_BYTES + 1)
    # A name that is not known, a certificate, a status, an end in the middle are OSErrors.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(address, str(error) or type(error).__name__) from error
    if len(data) != _ARCHIVE_BYTES:
        # A page of a proxy, or an end before the end: no archive at all.
        raise _unreachable(address, f"{len(data)} bytes came, {_ARCHIVE_BYTES} were expected")
    return data


def _unreachable(address: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-301",
        f"a page needs {PACKAGE} {VERSION}, which is not here and cannot be fetched",
        why=f"{address}: {why}",
        fix=f"check the network and its proxy (https_proxy), or get it elsewhere: {_GET}, then "
        f"--web-runtime {PACKAGE}-{VERSION}.tgz",
    )

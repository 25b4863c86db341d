"""Small shared libraries that tests write themselves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support import plugins
from vim_deploy.ops import contract

#: What a library of native ops says of itself.
SAID: dict[str, object] = {
    "name": "vim_ort_cpu",
    "provider": "cpu",
    "version": "0.1.0",
    "contract_version": 1,
    "domain": "vim_deploy",
    "domain_version": 1,
    "ops": ["VimSelectiveScan", "VimBiCausalConv", "VimBiSelectiveScan"],
    "ort_api": 17,
    "instruction_sets": ["avx2", "sse2"],
    "instruction_set": "avx2",
    "compiler": "g++ 12.2.0",
    "kernels": "0123456789abcdef",
}

#: What a plugin library for TensorRT says of itself.
PLUGIN_SAID: dict[str, object] = {
    "version": "0.1.0",
    "contract_version": 1,
    "plugin_version": contract.PLUGIN_VERSION,
    "plugin_namespace": "",
    "ops": ["VimSelectiveScan", "VimBiCausalConv", "VimBiSelectiveScan"],
    "interface": "V3",
    "tensorrt": "10.6.1",
    "cuda": "13.0",
    "kernels": "0123456789abcdef",
}


def compile_c(folder: Path, source: str) -> Path:
    """``lib.so`` of C source; skips the test without a compiler."""
    compiler = plugins.need_tool("gcc")
    (folder / "lib.c").write_text(source)
    library = folder / "lib.so"
    command = [compiler, "-shared", "-fPIC", str(folder / "lib.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def saying(folder: Path, text: str, contract: int = 1, register: str = "return 0;") -> Path:
    """A library that describes itself with ``text``, and does this when it is registered."""
    return compile_c(
        folder,
        f"int vim_plugins_contract_version(void) {{ return {contract}; }}\n"
        f"const char *vim_plugins_build_info(void) {{ return {json.dumps(text)}; }}\n"
        f"void *RegisterCustomOps(void *options, void *api) {{ {register} }}\n",
    )


def native_ops(folder: Path, **other: object) -> Path:
    """A library that calls itself one of native ops, has none, and says ``other`` things."""
    return saying(folder, json.dumps({**SAID, **other}))

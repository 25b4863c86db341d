//! \file ort_library.h
//! Shared libraries that are opened when an ONNX file is: ONNX Runtime, and native ops for it.
#pragma once

#include <string>
#include <vector>

#include "ort_calls.h"
#include "vim_deploy/runtime.h"

namespace vim_deploy {

//! Environment variable that names ONNX Runtime's library, or a folder with it.
constexpr char const* kRuntimeVariable = "VIM_DEPLOY_ONNXRUNTIME";
//! Environment variable that names the native ops, as for Python; set to nothing: none.
constexpr char const* kOpsVariable = "VIM_DEPLOY_ORT_OPS";
//! Name under which native ops are looked for beside the program.
constexpr char const* kOpsLibraryName = "libvim_ort_cpu.so";

//! ONNX Runtime as this process has it: opened once, and never closed.
struct OnnxRuntime {
    OrtApi const* api = nullptr;
    OrtEnv* env = nullptr;
    std::string version;
};

//! Opens the library that is named, that the environment names, that lies beside the program, or
//! that the loader finds.
//! \return VIM-401 when one is named and not there, VIM-301 when there is none, or what there is is
//!         no ONNX Runtime, or one before 1.17.
Result<OnnxRuntime const*> load_onnxruntime(std::string const& named);

//! Native ops to be registered.
struct NativeOps {
    std::string path;   //!< empty: the functions in the file compute our ops
    std::string title;  //!< `native ops (avx512)`
    std::string why;    //!< a library is there and is not taken
};

//! The library that is named, which has to fit; else the one that the environment names or that
//! lies beside the program, where it fits.
//! \return VIM-401, VIM-417, VIM-903 for a named one that is not there, no such library, or another
//!         contract's.
Result<NativeOps> find_native_ops(EngineOptions const& options);

//! The folder of the program that runs; empty when it is not known.
std::string program_folder();

}  // namespace vim_deploy

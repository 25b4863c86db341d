//! \file no_tensorrt.cpp
//! In the places of what needs TensorRT, in a library that was built without it. A build has this
//! file or those (CMakeLists.txt, VIM_DEPLOY_WITH_TENSORRT).
#include "engine_impl.h"
#include "file.h"
#include "guard.h"

namespace vim_deploy {
namespace {

Error without_tensorrt(std::string const& what) {
    return {"VIM-301", what + " needs TensorRT, and this program is built without it",
            "TensorRT or the CUDA runtime was not found, or not wanted, when it was built",
            "install both and build it again with -DVIM_DEPLOY_WITH_TENSORRT=ON, or give the ONNX "
            "file that the engine was built from"};
}

}  // namespace

OpenedEngine open_tensorrt(std::string const& path, EngineOptions const&) {
    VIM_DEPLOY_TRY(require_file(path, "engine"));
    return without_tensorrt(path);
}

Status load_plugin(std::string const& path) {
    return without_tensorrt("the plugin library " + path);
}

std::string tensorrt_version() {
    return "";
}

}  // namespace vim_deploy

//! \file no_onnx.cpp
//! In the place of what opens ONNX files, in a program of checks that opens none.
#include "engine_impl.h"

namespace vim_deploy {

OpenedEngine open_onnx(std::string const& path, EngineOptions const&) {
    return Error{"VIM-301", path + " is not opened by this program", "", ""};
}

}  // namespace vim_deploy

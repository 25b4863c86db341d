//! \file ort_engine.h
//! An ONNX file in ONNX Runtime, on the CPU.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine_impl.h"
#include "onnx_file.h"
#include "ort_library.h"

namespace vim_deploy {

struct OrtEngine : Engine::Impl {
    OnnxRuntime const* runtime = nullptr;
    //! Threads of ONNX Runtime's own; it may run in several threads of the program at once.
    OwnedSession session;

    Result<std::unique_ptr<Session::Impl>> make_session(
        std::shared_ptr<Engine::Impl const> self, SessionOptions const& options) const override;

    Status read_tensors(OnnxFile const& file);
    Status load(std::vector<char> const& bytes, OnnxFile const& file, EngineOptions const& options);
    Status make(std::vector<char> const& bytes, bool has_files_beside, std::string const& ops,
                int threads);
};

//! ONNX's number of a type; the numbers of ONNX Runtime are the same.
int element_of(DataType type) noexcept;
//! Nothing for types that this library does not pass on.
std::optional<DataType> type_of_element(std::uint64_t element) noexcept;

}  // namespace vim_deploy

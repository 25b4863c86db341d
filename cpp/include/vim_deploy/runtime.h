//! \file runtime.h
//! Run an engine of vim-deploy: `Engine::open` checks it and loads it, a `Session` runs it.
//!
//! An engine is shared by all threads; a session has a stream, an execution context and buffers of
//! its own and is used by one thread at a time. Nothing throws; errors carry the codes of
//! docs/errors.md.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vim_deploy/image.h"
#include "vim_deploy/record.h"
#include "vim_deploy/result.h"
#include "vim_deploy/tensor.h"

struct CUstream_st;

namespace vim_deploy {

//! What `cudaStream_t` is.
using Stream = CUstream_st*;

//! Of the op contract (vim_deploy/ops/contract.py) that a plugin library must follow.
constexpr std::int32_t kContractVersion = 1;
//! Name under which a plugin library is looked for beside an engine.
constexpr char const* kPluginLibraryName = "libvim_plugins.so";

//! Severities of TensorRT's log, in its order.
enum class Severity { kInternalError, kError, kWarning, kInfo, kVerbose };
using LogFunction = std::function<void(Severity, char const*)>;

//! Where TensorRT's messages go, for the whole process, since TensorRT keeps one logger: standard
//! error until this is called, warnings and worse. `log` may be called from any thread and must not
//! throw; an empty one drops the messages.
void set_log(LogFunction log, Severity least = Severity::kWarning);

//! Opens the plugin library and registers its ops with TensorRT. The library stays loaded, and
//! opening it again is harmless. `Engine::open` calls this; a program that builds or loads engines
//! by other means calls it itself. A library that is only linked may be dropped by the linker;
//! one that is opened here is not.
//! \return VIM-401 when there is no such file, VIM-417 when it is not a plugin library, VIM-903
//!         when it follows another contract or does not fit the TensorRT of this process.
Status load_plugin(std::string const& path);

//! TensorRT's version as this program runs it, such as `10.14.1`.
std::string tensorrt_version();

struct EngineOptions {
    //! The plugin library. Empty: the one beside the engine that its record names, or
    //! `libvim_plugins.so` beside it when there is one.
    std::string plugin_library;
    //! Let an engine run the code that it carries: a plugin library inside it, or the runtime of a
    //! version-compatible engine. Only for engines that are trusted like a program.
    bool allow_embedded_code = false;
    //! CUDA device number.
    int device = 0;
    //! Compare the plan's SHA-256 with the record's. A damaged plan can end the process, so leave
    //! this on where the file was not checked otherwise.
    bool check_hash = true;
    //! Take a plan without a record, such as one made by trtexec. Only its header is checked then.
    bool allow_missing_record = false;
};

struct SessionOptions {
    //! Replay each shape from a CUDA graph after its first call. Not for `infer_on_device`; needs
    //! TensorRT 10, since 8.6 gives a profile to one context only.
    bool cuda_graph = false;
    //! Graphs that are kept; the one not used for longest gives way.
    std::size_t max_graphs = 8;
};

class Session;

//! A deserialised engine. Copies share it.
class Engine {
  public:
    //! Checks and loads `plan_path` with its record `plan_path.json`.
    //! \return VIM-401 (no such file), VIM-413 (plan or record not readable), VIM-902 (plan and
    //!         record, or engine and record, do not belong together), VIM-901 (made for another
    //!         TensorRT or GPU), VIM-302 (no GPU), VIM-903 and VIM-417 (plugin library missing or
    //!         not fitting), VIM-203 (it carries code, which was not allowed), VIM-906 (not enough
    //!         GPU memory), VIM-904 (CUDA or the system refused a call).
    static Result<Engine> open(std::string const& plan_path, EngineOptions const& options = {});

    //! The pictures. A size of -1 is chosen by the caller, within a profile.
    TensorInfo const& input() const noexcept;
    //! A detector's second input, height and width of each picture inside its square: int64
    //! (int32 with TensorRT 8.6), batch x 2. Null for every other engine.
    TensorInfo const* size() const noexcept;
    std::vector<TensorInfo> const& outputs() const noexcept;
    //! The smallest batch the engine takes that holds `count` items; its largest one when none
    //! holds so many.
    std::int64_t batch_for(std::int64_t count) const noexcept;
    //! The record; null for a plan without one.
    EngineRecord const* record() const noexcept;

    //! Buffers for the largest shape are taken here. Any thread may call this.
    //! \return VIM-906 (not enough GPU memory, or TensorRT makes no context), VIM-904 (CUDA refused
    //!         a call), VIM-202 and VIM-309 (options).
    Result<Session> create_session(SessionOptions const& options = {}) const;

    struct Impl;

  private:
    explicit Engine(std::shared_ptr<Impl const> impl);

    std::shared_ptr<Impl const> impl_;
};

//! Runs an engine on a stream of its own; keeps the engine alive. One thread at a time.
class Session {
  public:
    Session(Session&& other) noexcept;
    Session& operator=(Session&& other) noexcept;
    ~Session();

    //! Runs a batch from host memory and waits for its outputs, in the engine's order.
    //! \return VIM-415 when the type does not fit the engine, VIM-905 when the shape does not,
    //!         VIM-904 when CUDA or TensorRT refuses, VIM-906 when memory ran out.
    //! Pictures of a detector fill its input; see the next one.
    Result<std::vector<Tensor>> infer(TensorView const& batch);

    //! The same for a detector's pictures of these sizes inside its input, one for each.
    //! \return as `infer`; VIM-415 also for sizes that are not within the input, or for an engine
    //!         that takes none.
    Result<std::vector<Tensor>> infer(TensorView const& batch,
                                      std::vector<PictureSize> const& sizes);

    //! Enqueues a batch on `stream` and returns at once; input and outputs are device memory, the
    //! outputs dense, in the engine's order, as large as `output_shapes` says. The stream may be
    //! another one each time: calls of one session wait for each other on the device.
    //! `sizes` is a detector's second input, of `Engine::size()`'s type, on the device as well;
    //! null for every other engine. Sizes beyond the input are not noticed here.
    //! \return as `infer`.
    Status infer_on_device(TensorView const& batch, std::vector<void*> const& outputs,
                           Stream stream, void const* sizes = nullptr);

    //! Shapes of the outputs for an input shape.
    //! \return VIM-905 when the engine does not take it.
    Result<std::vector<Shape>> output_shapes(Shape const& input);

    //! The session's stream, on which `infer` runs.
    Stream stream() const noexcept;

    struct Impl;

  private:
    friend class Engine;
    explicit Session(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
};

}  // namespace vim_deploy

//! \file runtime.h
//! Run what vim-deploy made: `Engine::open` checks a file and loads it, a `Session` runs it. The file
//! is an engine of TensorRT (`NAME.plan`) or an exported ONNX file, which ONNX Runtime runs on the CPU.
//!
//! An engine is shared by all threads; a session has what one caller needs (with TensorRT a stream,
//! an execution context and buffers) and is used by one thread at a time. Nothing throws; errors
//! carry the codes of docs/errors.md.
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

//! Where messages of TensorRT and ONNX Runtime go, for the whole process, since TensorRT keeps one
//! logger. Until this is called TensorRT's warnings and worse go to standard error, and of ONNX
//! Runtime there is nothing besides its errors, which calls give; afterwards its messages come for
//! the files that are opened then. `log` may be called from any thread and must not throw; an empty
//! one drops the messages.
void set_log(LogFunction log, Severity least = Severity::kWarning);

//! Opens the plugin library and registers its ops with TensorRT. The library stays loaded, and
//! opening it again is harmless. `Engine::open` calls this; a program that builds or loads engines
//! by other means calls it itself. A library that is only linked may be dropped by the linker;
//! one that is opened here is not.
//! \return VIM-401 when there is no such file, VIM-417 when it is not a plugin library, VIM-903
//!         when it follows another contract or does not fit the TensorRT of this process, VIM-301
//!         in a program that was built without TensorRT.
Status load_plugin(std::string const& path);

//! TensorRT's version as this program runs it, such as `10.14.1`; empty in a program that was built
//! without TensorRT.
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
    //! Take a plan without a record, such as one made by trtexec, of which only the header is checked
    //! then; or an ONNX file that does not say what it is. Neither tells how pictures are prepared.
    bool allow_missing_record = false;
    //! For ONNX files: ONNX Runtime's library, 1.17 or later, or a folder with it: an unpacked
    //! archive of Microsoft's, a Python wheel that was unpacked or installed there. Empty: what the
    //! variable VIM_DEPLOY_ONNXRUNTIME names, the one beside the program, what the loader finds. It
    //! is opened once in a process, and stays.
    std::string onnxruntime;
    //! For ONNX files: library of native ops, which are several times as fast as the functions in
    //! the file. Empty: what the variable VIM_DEPLOY_ORT_OPS names (set to nothing: none), or
    //! `libvim_ort_cpu.so` beside the program; where such a one does not fit, the functions run and
    //! `Engine::notes` says why. It is native code: never one that came with a model.
    std::string ops_library;
    //! For ONNX files: false computes our ops by the functions in the file, whatever is there.
    bool native_ops = true;
    //! For ONNX files: threads inside one operator; 0 leaves it to ONNX Runtime. Sessions of an
    //! engine share them.
    int threads = 0;
};

struct SessionOptions {
    //! Replay each shape from a CUDA graph after its first call. Not for `infer_on_device`; needs
    //! TensorRT 10, since 8.6 gives a profile to one context only.
    bool cuda_graph = false;
    //! Graphs that are kept; the one not used for longest gives way.
    std::size_t max_graphs = 8;
};

class Session;

//! A loaded file. Copies share it.
class Engine {
  public:
    //! Checks and loads a file. One whose name ends in `.plan` or `.engine`, or that begins with the
    //! mark of one, is an engine, and its record `PATH.json` stands beside it; every other one is an
    //! ONNX file.
    //! \return of any file VIM-401 (no such file), VIM-203 (an option for the other kind), VIM-417
    //!         and VIM-903 (plugin library or native ops missing or not fitting), VIM-904 (CUDA or
    //!         the system refused a call). Of an engine VIM-413 (plan or record not readable),
    //!         VIM-902 (plan and record, or engine and record, do not belong together), VIM-901 (made
    //!         for another TensorRT or GPU), VIM-302 (no GPU), VIM-203 (it carries code, which was
    //!         not allowed), VIM-906 (not enough GPU memory), VIM-301 (this program is built without
    //!         TensorRT). Of an ONNX file VIM-409 (not readable, or ONNX Runtime does not load it),
    //!         VIM-410 (it does not say how pictures are prepared), VIM-415 (other inputs), VIM-301
    //!         (ONNX Runtime is missing, too old or something else).
    static Result<Engine> open(std::string const& path, EngineOptions const& options = {});

    //! The pictures. A size of -1 is chosen by the caller, within a profile.
    TensorInfo const& input() const noexcept;
    //! A detector's second input, height and width of each picture inside its square: int64
    //! (int32 with TensorRT 8.6), batch x 2. Null for every other engine.
    TensorInfo const* size() const noexcept;
    std::vector<TensorInfo> const& outputs() const noexcept;
    //! The smallest batch the engine takes that holds `count` items; its largest one when none
    //! holds so many. An ONNX file with a free batch takes any: limit `count` to what memory has room
    //! for.
    std::int64_t batch_for(std::int64_t count) const noexcept;
    //! The record of an engine; null for a plan without one, and for an ONNX file.
    EngineRecord const* record() const noexcept;
    //! How pictures are prepared, what outputs mean, and what classes are called; null where neither
    //! the ONNX file nor the record says it, which is opened on demand alone.
    ExportInfo const* exported() const noexcept;
    //! What runs it: `TensorRT 10.14.1`, or `ONNX Runtime 1.32.0 CPU, native ops (avx512)`.
    std::string const& runs_with() const noexcept;
    //! Sentences about that, such as why native ops that are there are not used; usually none.
    std::vector<std::string> const& notes() const noexcept;

    //! With TensorRT, buffers for the largest shape are taken here. Any thread may call this.
    //! \return VIM-906 (not enough GPU memory, or TensorRT makes no context), VIM-904 (CUDA refused
    //!         a call), VIM-202, VIM-203 and VIM-309 (options).
    Result<Session> create_session(SessionOptions const& options = {}) const;

    struct Impl;

  private:
    explicit Engine(std::shared_ptr<Impl const> impl);

    std::shared_ptr<Impl const> impl_;
};

//! Runs an engine, with TensorRT on a stream of its own; keeps the engine alive. One thread at a
//! time.
class Session {
  public:
    Session(Session&& other) noexcept;
    Session& operator=(Session&& other) noexcept;
    ~Session();

    //! Runs a batch from host memory and waits for its outputs, in the engine's order. A batch of
    //! float32 for an input of float16 is rounded to it.
    //! \return VIM-415 when the type does not fit the engine, VIM-905 when the shape does not (VIM-415
    //!         of an ONNX file), VIM-904 when CUDA or TensorRT refuses or memory ran out on the host,
    //!         VIM-906 when it did on the GPU, VIM-409 when ONNX Runtime fails.
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
    //! \return as `infer`; VIM-203 for an ONNX file, which runs on the CPU.
    Status infer_on_device(TensorView const& batch, std::vector<void*> const& outputs,
                           Stream stream, void const* sizes = nullptr);

    //! Shapes of the outputs for an input shape.
    //! \return VIM-905 when the engine does not take it; of an ONNX file VIM-415, also where it does
    //!         not say them.
    Result<std::vector<Shape>> output_shapes(Shape const& input);

    //! The session's stream, on which `infer` runs; null for an ONNX file.
    Stream stream() const noexcept;

    struct Impl;

  private:
    friend class Engine;
    explicit Session(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
};

}  // namespace vim_deploy

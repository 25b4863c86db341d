//! \file device.h
//! What the two libraries differ in: on which execution provider the ops run, and how. Each library
//! links one implementation, cpu_device.cpp or cuda_device.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ort_api.h"
#include "vim_plugins/params.h"

//! The ops that this library has. Those of detectors have kernels for CPUs alone.
#if defined(VIM_ORT_PROVIDER_CUDA)
#define VIM_ORT_REGION_OPS(X)
#else
#define VIM_ORT_REGION_OPS(X) VIM_PLUGINS_REGION_OPS(X)
#endif
#define VIM_ORT_OPS(X) VIM_PLUGINS_OPS(X) VIM_ORT_REGION_OPS(X)

namespace vim_plugins::ort {

//! Runs the ops of one node. Nodes of concurrent runs share it, so run() changes nothing in it.
class Device {
  public:
    virtual ~Device() = default;

#define VIM_PLUGINS_DECLARE_RUN(Name, c_name)                                             \
    /*! Runs the op, or enqueues it on the session's stream. `params` are validated, with \
        buffers. \throws std::exception with the reason when it cannot. */                \
    virtual void run(Name##Params const& params, OrtKernelContext* context) const = 0;
    VIM_ORT_OPS(VIM_PLUGINS_DECLARE_RUN)
#undef VIM_PLUGINS_DECLARE_RUN
};

//! For a node of a session whose ops have this many threads (see threads.h).
//! \throws std::exception when ONNX Runtime does not give what it needs.
std::unique_ptr<Device> make_device(OrtApi const* api, OrtKernelInfo const* info,
                                    std::int32_t threads);

//! "cpu" or "cuda"; the library is called vim_ort_ and this.
char const* provider_name() noexcept;

//! ONNX Runtime's name of the execution provider.
char const* execution_provider() noexcept;

//! Version of the C API without which the library registers nothing.
std::uint32_t needed_api() noexcept;

//! Members of the library's JSON description that only this provider has, each after a comma.
std::string provider_facts();

}  // namespace vim_plugins::ort

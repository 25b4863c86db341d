//! \file threads.h
//! How many threads an op may expect. ONNX Runtime lends its pool (KernelContext_ParallelFor), so a
//! session's intra_op_num_threads is kept to in any case, but does not tell how large the pool is.
#pragma once

#include <cstdint>
#include <string>

namespace vim_plugins::ort {

//! The session option with which a host says it: the value of intra_op_num_threads.
inline constexpr char const* kThreadsKey = "vim_deploy.intra_op_num_threads";

//! CPUs that this process may use: of its affinity, and of a cgroup's quota where one is set.
std::int32_t available_cpus();

//! The value of kThreadsKey as a number; 0, with which ONNX Runtime takes what it finds, is
//! available_cpus(). \throws std::invalid_argument for anything else.
std::int32_t parse_threads(std::string const& text);

}  // namespace vim_plugins::ort

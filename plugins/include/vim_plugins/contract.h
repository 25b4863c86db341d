//! The contract of the custom ops, for C++. vim_deploy/ops/ states the same facts for Python and
//! gives the meaning of each op; tests/unit/ops/test_contract.py compares the two.
#pragma once

#include <array>
#include <cstdint>

namespace vim_plugins {

//! Grows whenever the meaning, the inputs or the attributes of an op change.
inline constexpr std::int32_t kContractVersion = 1;

//! ONNX domain of the nodes and its opset version.
inline constexpr const char* kDomain = "vim_deploy";
inline constexpr std::int32_t kDomainVersion = 1;

//! Version and namespace under which TensorRT finds the plugins.
inline constexpr const char* kPluginVersion = "1";
inline constexpr const char* kPluginNamespace = "";

//! Largest state size N the kernels support.
inline constexpr std::int32_t kMaxState = 64;

//! Largest number of convolution taps W the kernels support.
inline constexpr std::int32_t kMaxConvWidth = 16;

//! u T[B,L,D], dt T[B,L,D], A f[N,D], bc T[B,L,K], Dskip f[D], dt_bias f[D], z T[B,L,Zc].
inline constexpr const char* kSelectiveScan = "VimSelectiveScan";
inline constexpr std::array<const char*, 7> kSelectiveScanInputs = {"u",     "dt",      "A", "bc",
                                                                    "Dskip", "dt_bias", "z"};
inline constexpr std::array<const char*, 1> kSelectiveScanOutputs = {"y"};
inline constexpr std::array<const char*, 6> kSelectiveScanAttributes = {
    "reverse", "delta_softplus", "b_off", "c_off", "z_off", "has_z"};

//! xz T[B,L,Xc], w f[2,W,D], b f[2,D] -> u2 T[2,B,L,D].
inline constexpr const char* kBiCausalConv = "VimBiCausalConv";
inline constexpr std::array<const char*, 3> kBiCausalConvInputs = {"xz", "w", "b"};
inline constexpr std::array<const char*, 1> kBiCausalConvOutputs = {"u2"};
inline constexpr std::array<const char*, 1> kBiCausalConvAttributes = {"x_off"};

//! u2 T[2,B,L,D], dt T[2,B,L,D] or T[2,D,r], xdbl T[2,B,L,K], A f[2,N,D], Dskip f[2,D],
//! dt_bias f[2,D], xz T[B,L,Zc] -> y T[B,L,D].
inline constexpr const char* kBiSelectiveScan = "VimBiSelectiveScan";
inline constexpr std::array<const char*, 7> kBiSelectiveScanInputs = {
    "u2", "dt", "xdbl", "A", "Dskip", "dt_bias", "xz"};
inline constexpr std::array<const char*, 1> kBiSelectiveScanOutputs = {"y"};
inline constexpr std::array<const char*, 6> kBiSelectiveScanAttributes = {
    "delta_softplus", "b_off", "c_off", "dt_off", "z_off", "low_rank"};
inline constexpr std::array<const char*, 1> kBiSelectiveScanFloatAttributes = {"scale"};

}  // namespace vim_plugins

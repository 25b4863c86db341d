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

//! Largest side o of pooled boxes, and of a pyramid's maps, that the kernels support.
inline constexpr std::int32_t kMaxRoiOutput = 64;
inline constexpr std::int32_t kMaxMapSide = 65536;

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

//! boxes f[B,N,4] by falling score, group int64[B,N], valid f[B,N] -> keep f[B,N].
inline constexpr const char* kSortedNms = "VimSortedNms";
inline constexpr std::array<const char*, 3> kSortedNmsInputs = {"boxes", "group", "valid"};
inline constexpr std::array<const char*, 1> kSortedNmsOutputs = {"keep"};
inline constexpr std::array<const char*, 1> kSortedNmsAttributes = {"groups"};
inline constexpr std::array<const char*, 1> kSortedNmsFloatAttributes = {"iou_threshold"};

//! p2, p3, p4, p5 f[B,C,H,W], boxes f[B,N,4] -> pooled f[B*N,C,o,o].
inline constexpr const char* kPyramidRoiAlign = "VimPyramidRoiAlign";
inline constexpr std::array<const char*, 5> kPyramidRoiAlignInputs = {"p2", "p3", "p4", "p5",
                                                                      "boxes"};
inline constexpr std::array<const char*, 1> kPyramidRoiAlignOutputs = {"pooled"};
inline constexpr std::array<const char*, 1> kPyramidRoiAlignAttributes = {"output_size"};
inline constexpr std::array<const char*, 2> kPyramidRoiAlignFloatAttributes = {"canonical_size",
                                                                               "spatial_scale"};

}  // namespace vim_plugins

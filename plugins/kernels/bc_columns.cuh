//! How the fast scans read two columns of a B/C row: side by side where B and C begin at even
//! offsets of even rows (paired_columns), else one by one, from any offset of any row.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "kernel_args.h"
#include "numeric_types.cuh"

namespace vim_plugins {

//! Two elements, each by itself.
template <typename T>
struct Apart {
    T x, y;
};

//! Two columns on their way from memory.
template <typename T, int kStates>
using ColumnPair =
    std::conditional_t<kStates == kPairedStates, typename Numeric<T>::Pair, Apart<T>>;

//! The pair at `at`; `gap` is from B to C, which only the pair of a single state has between it.
template <typename T, int kStates>
__device__ __forceinline__ ColumnPair<T, kStates> load_columns(const T* at, int gap) {
    if constexpr (kStates == kPairedStates) {
        return load_pair(at);
    } else {
        return {at[0], at[kStates == 1 ? gap : 1]};
    }
}

template <typename T, int kStates>
__device__ __forceinline__ float2 to_floats(ColumnPair<T, kStates> columns) {
    if constexpr (kStates == kPairedStates) {
        return Numeric<T>::to_float(columns);
    } else {
        return make_float2(Numeric<T>::to_float(columns.x), Numeric<T>::to_float(columns.y));
    }
}

//! First of the two columns with this number, where a row's pairs are counted through B and then C;
//! the pair of a single state is its B and its C.
template <int kStates>
__device__ __forceinline__ int first_column(const ScanArgs& args, int pair) {
    constexpr int kOfB = kStates == 1 ? 1 : kStates / 2;
    return pair < kOfB ? args.b_off + 2 * pair : args.c_off + 2 * (pair - kOfB);
}

}  // namespace vim_plugins

//! Conversion between the element type T of the activations and fp32, one value or two at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace vim_plugins {

template <typename T>
struct Numeric;

template <>
struct Numeric<float> {
    using Pair = float2;
    static __device__ __forceinline__ float to_float(float value) { return value; }
    static __device__ __forceinline__ float from_float(float value) { return value; }
    static __device__ __forceinline__ float2 to_float(float2 value) { return value; }
    static __device__ __forceinline__ float2 from_float(float2 value) { return value; }
};

template <>
struct Numeric<__half> {
    using Pair = __half2;
    static __device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
    static __device__ __forceinline__ __half from_float(float value) {
        return __float2half_rn(value);
    }
    static __device__ __forceinline__ float2 to_float(__half2 value) {
        return __half22float2(value);
    }
    static __device__ __forceinline__ __half2 from_float(float2 value) {
        return __float22half2_rn(value);
    }
};

template <>
struct Numeric<__nv_bfloat16> {
    using Pair = __nv_bfloat162;
    static __device__ __forceinline__ float to_float(__nv_bfloat16 value) {
        return __bfloat162float(value);
    }
    static __device__ __forceinline__ __nv_bfloat16 from_float(float value) {
        return __float2bfloat16_rn(value);
    }
    //! bf16 is the upper half of a float: one shift and one mask, where the library takes three.
    static __device__ __forceinline__ float2 to_float(__nv_bfloat162 value) {
        const unsigned bits = *reinterpret_cast<const unsigned*>(&value);
        return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xFFFF0000U));
    }
    static __device__ __forceinline__ __nv_bfloat162 from_float(float2 value) {
        return __float22bfloat162_rn(value);
    }
};

//! Two adjacent elements; `at` must be even in elements.
template <typename T>
__device__ __forceinline__ typename Numeric<T>::Pair load_pair(const T* at) {
    return *reinterpret_cast<const typename Numeric<T>::Pair*>(at);
}

template <typename T>
__device__ __forceinline__ void store_pair(T* at, float2 value) {
    *reinterpret_cast<typename Numeric<T>::Pair*>(at) = Numeric<T>::from_float(value);
}

}  // namespace vim_plugins

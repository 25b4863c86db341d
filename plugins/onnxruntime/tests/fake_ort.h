//! \file fake_ort.h
//! An ONNX Runtime for tests: the entries of its C API that ort_api.h declares, over plain structs.
//! It runs no models; a test makes a node's attributes and tensors, and drives the op's callbacks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ort_api.h"

struct OrtStatus {
    int code;
    std::string message;
};

struct OrtTensorTypeAndShapeInfo {
    int element = 0;
    std::vector<std::int64_t> sizes;
    std::vector<std::string> names;
};

struct OrtValue {
    OrtTensorTypeAndShapeInfo info;
    std::vector<unsigned char> bytes;
};

struct OrtKernelInfo {
    std::map<std::string, std::int64_t> integers;
    std::map<std::string, float> floats;
};

struct OrtKernelContext {
    std::vector<OrtValue const*> inputs;
    OrtValue* output = nullptr;
    std::size_t threads = 1;  //!< of the pool
    void* stream = nullptr;
};

struct OrtShapeInferContext {
    std::vector<OrtTensorTypeAndShapeInfo> inputs;
    OrtTensorTypeAndShapeInfo output;
    bool answered = false;
};

struct OrtSessionOptions {
    std::map<std::string, std::string> entries;
    std::vector<OrtCustomOpDomain*> domains;
};

struct OrtCustomOpDomain {
    std::string name;
    std::vector<OrtCustomOp const*> ops;
};

//! What the fake saw, and what it is told to do.
struct FakeOrt {
    std::uint32_t newest_api = 32;              //!< GetApi() answers nothing above it
    std::atomic<int> calls{0};                  //!< of entries that may fail
    std::atomic<int> fail_at{0};                //!< the call that fails, counted from 1; 0: none
    std::atomic<int> live{0};                   //!< handles and buffers that were not given back
    std::atomic<int> domains{0};                //!< that are there
    std::atomic<int> pieces{0};                 //!< run by KernelContext_ParallelFor
    std::atomic<int> scratches{0};              //!< buffers given out
    std::atomic<std::size_t> scratch_bytes{0};  //!< of the last of them
    std::atomic<void*> scratch{nullptr};        //!< the last of them
    std::atomic<bool> no_memory{false};         //!< buffers are null pointers
};

FakeOrt& fake_ort();
OrtApiBase const* fake_base();

//! Bytes of one element.
std::size_t element_size(int element);

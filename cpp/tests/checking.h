//! \file checking.h
//! What checks of sessions share: a condition that must hold, batches of the fake engine's size and
//! the answers to them.
#pragma once

#include <atomic>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "fakes.h"
#include "vim_deploy/runtime.h"

namespace checking {

using namespace vim_deploy;

inline std::atomic<int> failures{0};

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition); \
            ++failures;                                                          \
        }                                                                        \
    } while (false)

constexpr std::size_t kElements = 32 * 32;
constexpr std::size_t kClasses = 10;

// The value of a call that must go well; the program ends where it does not.
template <typename T>
T good(Result<T> result) {
    return std::move(result).value();
}

template <typename T>
std::string code_of(Result<T> const& result) {
    return result ? "no error" : result.error().code;
}

inline Shape shape_for(std::int64_t batch) {
    return {batch, 1, 32, 32};
}

// Whole numbers, so that sums are exact in any order.
inline std::vector<float> batch_values(std::int64_t batch, int seed) {
    std::vector<float> values(static_cast<std::size_t>(batch) * kElements);
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>((static_cast<int>(i) * 31 + seed * 17) % 23 - 11);
    }
    return values;
}

inline std::vector<float> expected_logits(std::vector<float> const& values) {
    std::vector<float> logits;
    for (std::size_t b = 0; b < values.size() / kElements; ++b) {
        for (std::size_t k = 0; k < kClasses; ++k) {
            float sum = 0;
            for (std::size_t i = 0; i < kElements; ++i) {
                sum += values[b * kElements + i] * fake_weight(i, k);
            }
            logits.push_back(sum);
        }
    }
    return logits;
}

inline bool answers(Session& session, std::int64_t batch, int seed) {
    auto const values = batch_values(batch, seed);
    auto const outputs = session.infer(good(TensorView::of(values, shape_for(batch))));
    if (!outputs) {
        std::fprintf(stderr, "%s\n", outputs.error().text().c_str());
        return false;
    }
    Tensor const& logits = outputs->front();
    return outputs->size() == 1 && logits.name == "logits" &&
           logits.shape == Shape{batch, static_cast<std::int64_t>(kClasses)} &&
           good(logits.values<float>()) == expected_logits(values);
}

}  // namespace checking

//! What the drivers share: the workspace, pieces that workers take, and small numbers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace vim_plugins::cpu {
namespace {

constexpr std::size_t kLine = kWorkspaceAlignment;

inline std::int64_t divide_up(std::int64_t value, std::int64_t by) {
    return (value + by - 1) / by;
}

inline std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

//! Hands out parts of the workspace; with a null base it only counts.
class Arena {
  public:
    explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

    void* take(std::size_t bytes) {
        void* const out = base_ == nullptr ? nullptr : base_ + used_;
        used_ += (bytes + kLine - 1) / kLine * kLine;
        return out;
    }
    template <typename T>
    T* array(std::int64_t count) {
        return static_cast<T*>(take(static_cast<std::size_t>(count) * sizeof(T)));
    }
    float* floats(std::int64_t count) { return array<float>(count); }
    std::size_t used() const { return used_; }

  private:
    char* base_;
    std::size_t used_ = 0;
};

}  // namespace
}  // namespace vim_plugins::cpu

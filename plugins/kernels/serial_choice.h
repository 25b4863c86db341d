//! Whether the serial scan of both directions has two channels a thread or one.
//!
//! Two share what is read of B and C, and so need fewer instructions: 110.3 of fp16 a token,
//! channel and direction against 120.4, counted for sm_90 over both halves. But their blocks are
//! few: with 384 of two warps on 132 multiprocessors, as Vim-Ti has of 64 pictures, some have three
//! blocks, and two of their four schedulers two warps, where one and a half would be an even share.
//! 768 blocks of one channel a thread are at most six a multiprocessor, three warps a scheduler of
//! half as much work: three quarters of the time.
#pragma once

#include <cstdint>

#include "kernel_args.h"

namespace vim_plugins {

//! Time of one channel a thread in hundredths of half that of two: nine more for the instructions,
//! the rest for what counts do not show, so that a small gain changes nothing. To be calibrated on
//! a GPU.
inline constexpr std::int64_t kOneChannelCost = 125;

//! Channels that the threads of the busiest scheduler walk, one warp after the other:
//! multiprocessors with four schedulers run `resident` blocks of two warps at a time.
inline std::int64_t busiest_scheduler(std::int64_t blocks, std::int64_t sm_count,
                                      std::int64_t resident, std::int64_t channels) {
    const auto warps = [](std::int64_t blocks_of_one) { return (blocks_of_one + 1) / 2; };
    const std::int64_t wave = resident * sm_count;
    const std::int64_t last = (blocks % wave + sm_count - 1) / sm_count;
    return channels * (blocks / wave * warps(resident) + warps(last));
}

inline bool one_channel_pays(std::int64_t batch, std::int64_t channels, std::int64_t sm_count) {
    const auto busiest = [&](std::int64_t width, std::int64_t resident, std::int64_t of_thread) {
        const std::int64_t blocks = batch * ((channels + width - 1) / width);
        return busiest_scheduler(blocks, sm_count < 1 ? 1 : sm_count, resident, of_thread);
    };
    const std::int64_t two = busiest(kSerialBlockChannels, kSerialBlocksOfTwo, 2);
    const std::int64_t one = busiest(kSerialBlockChannels / 2, kSerialBlocksOfOne, 1);
    return kOneChannelCost * one < 100 * two;
}

}  // namespace vim_plugins

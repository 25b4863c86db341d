//! \file sha256.cpp
#include "sha256.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace vim_deploy {
namespace {

using Word = std::uint32_t;
constexpr std::size_t kBlock = 64;
constexpr std::size_t kRounds = 64;

// The first 64 primes' square and cube roots, of which FIPS 180-4 (4.2.2, 5.3.3) takes the first 32
// bits of the fractional part. A double's 53 bits hold them exactly: at most 9 whole bits precede.
struct Constants {
    std::array<Word, 8> start{};
    std::array<Word, kRounds> round{};

    Constants() {
        std::size_t count = 0;
        for (unsigned number = 2; count < kRounds; ++number) {
            bool prime = true;
            for (unsigned divisor = 2; divisor * divisor <= number; ++divisor) {
                prime = prime && number % divisor != 0;
            }
            if (!prime) {
                continue;
            }
            if (count < start.size()) {
                start[count] = fraction(std::sqrt(static_cast<double>(number)));
            }
            round[count++] = fraction(std::cbrt(static_cast<double>(number)));
        }
    }

    static Word fraction(double value) {
        return static_cast<Word>(std::ldexp(value - std::floor(value), 32));
    }
};

Word rotate(Word x, unsigned bits) noexcept {
    return x >> bits | x << (32U - bits);
}

void compress(std::array<Word, 8>& state, unsigned char const* block, Constants const& constants) {
    std::array<Word, kRounds> w{};
    for (std::size_t i = 0; i < 16; ++i) {
        unsigned char const* four = block + 4 * i;
        w[i] = Word{four[0]} << 24U | Word{four[1]} << 16U | Word{four[2]} << 8U | Word{four[3]};
    }
    for (std::size_t i = 16; i < kRounds; ++i) {
        Word const s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3U;
        Word const s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10U;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (std::size_t i = 0; i < kRounds; ++i) {
        Word const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        Word const choice = (e & f) ^ (~e & g);
        Word const t1 = h + s1 + choice + constants.round[i] + w[i];
        Word const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        Word const majority = (a & b) ^ (a & c) ^ (b & c);
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + s0 + majority;
    }
    std::array<Word, 8> const mixed{a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < state.size(); ++i) {
        state[i] += mixed[i];
    }
}

}  // namespace

std::string sha256_hex(void const* data, std::size_t size) {
    static Constants const constants;
    auto const* bytes = static_cast<unsigned char const*>(data);
    std::array<Word, 8> state = constants.start;
    std::size_t const whole = size / kBlock;
    for (std::size_t i = 0; i < whole; ++i) {
        compress(state, bytes + i * kBlock, constants);
    }
    // What remains, a one bit, zeros, and the length in bits as a big-endian 64-bit number.
    std::array<unsigned char, 2 * kBlock> tail{};
    std::size_t const rest = size % kBlock;
    if (rest != 0) {
        std::memcpy(tail.data(), bytes + whole * kBlock, rest);
    }
    tail[rest] = 0x80;
    std::size_t const blocks = rest + 9 > kBlock ? 2 : 1;
    std::uint64_t const bits = static_cast<std::uint64_t>(size) * 8;
    for (std::size_t i = 0; i < 8; ++i) {
        tail[blocks * kBlock - 1 - i] = static_cast<unsigned char>(bits >> (8 * i));
    }
    for (std::size_t i = 0; i < blocks; ++i) {
        compress(state, tail.data() + i * kBlock, constants);
    }
    std::string hex;
    for (Word const word : state) {
        for (unsigned shift = 32; shift > 0; shift -= 4) {
            hex.push_back("0123456789abcdef"[word >> (shift - 4) & 0xFU]);
        }
    }
    return hex;
}

}  // namespace vim_deploy

//! \file sha256.h
//! SHA-256 (FIPS 180-4), so that a damaged plan is noticed before TensorRT runs its code, without a
//! dependency on a library of cryptography.
#pragma once

#include <cstddef>
#include <string>

namespace vim_deploy {

//! Hex SHA-256 of `size` bytes.
std::string sha256_hex(void const* data, std::size_t size);

}  // namespace vim_deploy

//! \file v2_fields.h
//! Plugin fields as bytes: TensorRT 8.6 stores bytes, where 10 stores fields.
//!
//! Layout, little-endian: "VIMF", uint32 number of fields; per field uint32 length of the name,
//! the name, uint32 type (PluginFieldType), 4 bytes of value.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstddef>
#include <string>
#include <vector>

namespace vim_plugins::adapters {

//! Writes fields of type int32 and float32 with one value each.
//! \throws std::invalid_argument for another field.
std::vector<unsigned char> pack_fields(std::vector<nvinfer1::PluginField> const& fields);

//! Fields read back, with the storage they point into.
class UnpackedFields {
  public:
    //! \throws std::invalid_argument when the bytes are cut short or not what pack_fields() writes.
    UnpackedFields(void const* data, std::size_t size);
    UnpackedFields(UnpackedFields const&) = delete;
    UnpackedFields& operator=(UnpackedFields const&) = delete;

    nvinfer1::PluginFieldCollection const* collection() const noexcept { return &collection_; }

  private:
    struct Entry {
        std::string name;
        std::array<unsigned char, 4> value{};
        nvinfer1::PluginFieldType type{};
    };

    std::vector<Entry> entries_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace vim_plugins::adapters

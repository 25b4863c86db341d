//! \file v2_fields.cpp
#include "v2_fields.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace vim_plugins::adapters {
namespace {

constexpr char kMagic[4] = {'V', 'I', 'M', 'F'};
constexpr std::uint32_t kMostFields = 64;
constexpr std::uint32_t kLongestName = 256;

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

bool has_four_bytes(PluginFieldType type) noexcept {
    return type == PluginFieldType::kINT32 || type == PluginFieldType::kFLOAT32;
}

void append(std::vector<unsigned char>& bytes, void const* data, std::size_t size) {
    auto const* from = static_cast<unsigned char const*>(data);
    bytes.insert(bytes.end(), from, from + size);
}

void append_number(std::vector<unsigned char>& bytes, std::size_t number) {
    auto const value = static_cast<std::uint32_t>(number);
    append(bytes, &value, sizeof(value));
}

class Reader {
  public:
    Reader(void const* data, std::size_t size)
        : at_(static_cast<unsigned char const*>(data)), left_(data == nullptr ? 0 : size) {}

    void read(void* to, std::size_t size) {
        if (size > left_) {
            throw std::invalid_argument("the serialised plugin is cut short");
        }
        std::memcpy(to, at_, size);
        at_ += size;
        left_ -= size;
    }

    std::uint32_t number(std::uint32_t most) {
        std::uint32_t value = 0;
        read(&value, sizeof(value));
        if (value > most) {
            throw std::invalid_argument("the serialised plugin is damaged");
        }
        return value;
    }

    bool at_end() const noexcept { return left_ == 0; }

  private:
    unsigned char const* at_;
    std::size_t left_;
};

}  // namespace

std::vector<unsigned char> pack_fields(std::vector<PluginField> const& fields) {
    std::vector<unsigned char> bytes;
    append(bytes, kMagic, sizeof(kMagic));
    append_number(bytes, fields.size());
    for (PluginField const& field : fields) {
        if (!has_four_bytes(field.type) || field.length != 1) {
            throw std::invalid_argument(std::string("field ") + field.name +
                                        " cannot be serialised");
        }
        std::size_t const length = std::strlen(field.name);
        append_number(bytes, length);
        append(bytes, field.name, length);
        append_number(bytes, static_cast<std::size_t>(field.type));
        append(bytes, field.data, 4);
    }
    return bytes;
}

UnpackedFields::UnpackedFields(void const* data, std::size_t size) {
    Reader reader(data, size);
    char magic[sizeof(kMagic)];
    reader.read(magic, sizeof(magic));
    if (std::memcmp(magic, kMagic, sizeof(kMagic)) != 0) {
        throw std::invalid_argument("these bytes are not a plugin of this library");
    }
    entries_.resize(reader.number(kMostFields));
    for (Entry& entry : entries_) {
        entry.name.resize(reader.number(kLongestName));
        reader.read(entry.name.data(), entry.name.size());
        entry.type = static_cast<PluginFieldType>(
            reader.number(static_cast<std::uint32_t>(PluginFieldType::kINT32)));
        if (!has_four_bytes(entry.type)) {
            throw std::invalid_argument("the serialised plugin is damaged");
        }
        reader.read(entry.value.data(), entry.value.size());
    }
    if (!reader.at_end()) {
        throw std::invalid_argument("the serialised plugin is too long");
    }
    for (Entry const& entry : entries_) {
        fields_.emplace_back(entry.name.c_str(), entry.value.data(), entry.type, 1);
    }
    collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
}

}  // namespace vim_plugins::adapters

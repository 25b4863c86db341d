//! \file attributes.cpp
#include "attributes.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>

namespace vim_plugins::adapters {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

[[noreturn]] void refuse(OpDescription const& op, std::string const& field,
                         std::string const& what) {
    throw std::invalid_argument(std::string(op.name) + ": attribute " + field + " " + what);
}

template <typename Value>
Value read(PluginField const& field) noexcept {
    Value value;
    std::memcpy(&value, field.data, sizeof(value));  // a field's data need not be aligned
    return value;
}

void require_one_value(OpDescription const& op, PluginField const& field) {
    if (field.data == nullptr || field.length != 1) {
        refuse(op, field.name, "must have exactly one value");
    }
}

// The ONNX parser sends kINT32; kINT64 is what Python users get from a NumPy default integer.
std::int32_t read_integer(OpDescription const& op, PluginField const& field) {
    require_one_value(op, field);
    if (field.type == PluginFieldType::kINT32) {
        return read<std::int32_t>(field);
    }
#if NV_TENSORRT_MAJOR >= 10
    if (field.type == PluginFieldType::kINT64) {
        auto const value = read<std::int64_t>(field);
        if (value < std::numeric_limits<std::int32_t>::min() ||
            value > std::numeric_limits<std::int32_t>::max()) {
            refuse(op, field.name, "does not fit 32 bits");
        }
        return static_cast<std::int32_t>(value);
    }
#endif
    refuse(op, field.name, "must be an integer");
}

float read_float(OpDescription const& op, PluginField const& field) {
    require_one_value(op, field);
    if (field.type == PluginFieldType::kFLOAT32) {
        return read<float>(field);
    }
    if (field.type == PluginFieldType::kFLOAT64) {
        return static_cast<float>(read<double>(field));
    }
    refuse(op, field.name, "must be a float");
}

char* slot_of(Attribute const& attribute, void* params) noexcept {
    return static_cast<char*>(params) + attribute.offset;
}

char const* slot_of(Attribute const& attribute, void const* params) noexcept {
    return static_cast<char const*>(params) + attribute.offset;
}

void store(OpDescription const& op, Attribute const& attribute, PluginField const& field,
           void* params) {
    if (attribute.kind == AttributeKind::kScale) {
        float const value = read_float(op, field);
        if (!std::isfinite(value)) {
            refuse(op, field.name, "must be finite");
        }
        std::memcpy(slot_of(attribute, params), &value, sizeof(value));
        return;
    }
    std::int32_t const value = read_integer(op, field);
    bool const is_flag = attribute.kind == AttributeKind::kFlag;
    if (value < 0 || (is_flag && value > 1)) {
        refuse(op, field.name,
               "is " + std::to_string(value) + ", must be " + (is_flag ? "0 or 1" : "0 or more"));
    }
    std::memcpy(slot_of(attribute, params), &value, sizeof(value));
}

void check_contract(OpDescription const& op, PluginField const& field) {
    std::int32_t const version = read_integer(op, field);
    if (version != kContractVersion) {
        refuse(op, field.name,
               "is " + std::to_string(version) + ", this library has " +
                   std::to_string(kContractVersion) +
                   ": the engine was built with another version of the plugin library");
    }
}

// Index of the attribute called `name`, or the number of attributes.
std::size_t find_attribute(OpDescription const& op, char const* name) noexcept {
    std::size_t i = 0;
    while (i < op.attributes.size() && std::strcmp(op.attributes[i].name, name) != 0) {
        ++i;
    }
    return i;
}

PluginFieldType field_type(Attribute const& attribute) noexcept {
    return attribute.kind == AttributeKind::kScale ? PluginFieldType::kFLOAT32
                                                   : PluginFieldType::kINT32;
}

}  // namespace

void parse_attributes(OpDescription const& op, PluginFieldCollection const* fields, void* params) {
    if (fields == nullptr || fields->nbFields < 0 ||
        (fields->nbFields > 0 && fields->fields == nullptr)) {
        throw std::invalid_argument(std::string(op.name) + ": no attributes were given");
    }
    std::vector<bool> seen(op.attributes.size(), false);
    for (std::int32_t i = 0; i < fields->nbFields; ++i) {
        PluginField const& field = fields->fields[i];
        if (field.name == nullptr) {
            throw std::invalid_argument(std::string(op.name) + ": an attribute has no name");
        }
        if (std::strcmp(field.name, kContractField) == 0) {
            check_contract(op, field);
            continue;
        }
        std::size_t const index = find_attribute(op, field.name);
        if (index == op.attributes.size()) {
            refuse(op, field.name, "is not known");
        }
        if (seen[index]) {
            refuse(op, field.name, "is given twice");
        }
        seen[index] = true;
        store(op, op.attributes[index], field, params);
    }
    for (std::size_t i = 0; i < seen.size(); ++i) {
        if (!seen[i]) {
            refuse(op, op.attributes[i].name, "is missing");
        }
    }
}

std::vector<PluginField> serialize_attributes(OpDescription const& op, void const* params) {
    static std::int32_t const contract = kContractVersion;
    std::vector<PluginField> fields;
    for (Attribute const& attribute : op.attributes) {
        fields.emplace_back(attribute.name, slot_of(attribute, params), field_type(attribute), 1);
    }
    fields.emplace_back(kContractField, &contract, PluginFieldType::kINT32, 1);
    return fields;
}

std::vector<PluginField> announce_attributes(OpDescription const& op) {
    std::vector<PluginField> fields;
    for (Attribute const& attribute : op.attributes) {
        fields.emplace_back(attribute.name, nullptr, field_type(attribute), 1);
    }
    return fields;
}

std::string attribute_text(OpDescription const& op, void const* params) {
    std::ostringstream text;
    text.precision(std::numeric_limits<float>::max_digits10);
    text << "op=" << op.name << ";contract=" << kContractVersion;
    for (Attribute const& attribute : op.attributes) {
        text << ';' << attribute.name << '=';
        if (attribute.kind == AttributeKind::kScale) {
            float value;
            std::memcpy(&value, slot_of(attribute, params), sizeof(value));
            text << value;
        } else {
            std::int32_t value;
            std::memcpy(&value, slot_of(attribute, params), sizeof(value));
            text << value;
        }
    }
    return text.str();
}

}  // namespace vim_plugins::adapters

//! \file attributes.h
//! The one parser of plugin fields, and its inverse, for both plugin interfaces.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

#include "op_model.h"

namespace vim_plugins::adapters {

//! Field beside the attributes in a serialised plugin: the contract the engine was built with.
inline constexpr char const* kContractField = "contract_version";

//! Fills the attributes of `params` (the op's parameter struct) from fields by name.
//!
//! Every attribute must be there once; a field that is no attribute is refused, except
//! kContractField, whose value must be this library's.
//! \throws std::invalid_argument naming the field.
void parse_attributes(OpDescription const& op, nvinfer1::PluginFieldCollection const* fields,
                      void* params);

//! The attributes of `params` and the contract version as fields.
//!
//! The fields point into `params` and into static storage: they live as long as `params` does.
std::vector<nvinfer1::PluginField> serialize_attributes(OpDescription const& op,
                                                        void const* params);

//! The attributes' names and types without values, for a creator to announce.
std::vector<nvinfer1::PluginField> announce_attributes(OpDescription const& op);

//! "op=VimBiCausalConv;contract=1;x_off=0": equal for plugins that behave equally.
std::string attribute_text(OpDescription const& op, void const* params);

}  // namespace vim_plugins::adapters

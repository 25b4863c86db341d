//! \file onnx_file.cpp
//! One pass over a model that jumps over its weights.
#include "onnx_file.h"

#include <algorithm>
#include <set>

#include "onnx_rules.h"
#include "onnx_walk.h"

namespace vim_deploy {
namespace {

constexpr std::uint64_t kMaxOpset = 1000;
constexpr std::int64_t kMaxSize = 2'147'483'647;
constexpr std::size_t kMaxAxes = 64;

class Reader : public Walk {
  public:
    using Walk::Walk;

    OnnxFile file;

    void read(std::string_view bytes) {
        if (!walk(Kind::kModel, bytes, 0)) {
            return;
        }
        if (nodes_ == 0 || file.outputs.empty()) {
            fail("it parses, but holds no nodes or no outputs");
        } else if (opsets_.size() != 1 || opsets_[0] < 1 || opsets_[0] > kMaxOpset) {
            fail("it does not say which version of ONNX's operators it means");
        }
        auto const weight = [this](OnnxValue const& value) {
            return weights_.count(value.name) != 0;
        };
        file.inputs.erase(std::remove_if(file.inputs.begin(), file.inputs.end(), weight),
                          file.inputs.end());
        for (std::string const& found :
             {flaw_of_values("input", file.inputs), flaw_of_values("output", file.outputs),
              flaw_of_functions(file)}) {
            if (!found.empty()) {
                fail(found);
            }
        }
    }

  private:
    bool walk(Kind kind, std::string_view bytes, unsigned depth) override {
        switch (kind) {
            case Kind::kModel:
                return model(bytes, depth);
            case Kind::kGraph:
                return graph(bytes, depth);
            case Kind::kNode:
                return node(bytes, depth);
            case Kind::kTensor:
                return tensor(bytes, depth, nullptr);
            case Kind::kFunction:
                return function(bytes, depth);
            default:
                return each(kind, bytes, depth, [](Field const&) { return false; });
        }
    }

    bool model(std::string_view bytes, unsigned depth) {
        std::string name;
        std::string version;
        bool const good = each(Kind::kModel, bytes, depth, [&](Field const& field) {
            bool const inside = field.wire == Wire::kLength;
            if (inside && field.number == 2) {
                return text(field, name);
            }
            if (inside && field.number == 3) {
                return text(field, version);
            }
            if (inside && field.number == 8) {
                return opset(field.bytes, depth + 1);
            }
            if (inside && field.number == 14) {
                std::string key;
                std::string value;
                if (entry(field.bytes, depth + 1, key, value) && key == kOpsDomain &&
                    !file.description) {
                    file.description = value;
                }
                return true;
            }
            return false;
        });
        file.producer = name + (name.empty() || version.empty() ? "" : " ") + version;
        return good;
    }

    bool opset(std::string_view bytes, unsigned depth) {
        std::string domain;
        std::uint64_t version = 0;
        each(Kind::kOpset, bytes, depth, [&](Field const& field) {
            if (field.number == 1 && field.wire == Wire::kLength) {
                return text(field, domain);
            }
            if (field.number == 2 && field.wire == Wire::kVarint) {
                version = field.value;
            }
            return false;
        });
        if (domain.empty() || domain == "ai.onnx") {
            opsets_.push_back(version);
        }
        file.announces_ops = file.announces_ops || domain == kOpsDomain;
        return true;
    }

    bool entry(std::string_view bytes, unsigned depth, std::string& key, std::string& value) {
        return each(Kind::kEntry, bytes, depth, [&](Field const& field) {
            bool const inside = field.wire == Wire::kLength;
            return inside && field.number == 1   ? text(field, key)
                   : inside && field.number == 2 ? text(field, value)
                                                 : false;
        });
    }

    bool graph(std::string_view bytes, unsigned depth) {
        // Weights, inputs and texts of graphs within nodes are those graphs' own.
        bool const main = depth == 1;
        return each(Kind::kGraph, bytes, depth, [&](Field const& field) {
            if (!main || field.wire != Wire::kLength) {
                return false;
            }
            switch (field.number) {
                case 5: {
                    std::string name;
                    if (tensor(field.bytes, depth + 1, &name) && !weights_.insert(name).second) {
                        fail("its weights have no names of their own");
                    }
                    return true;
                }
                case 10:
                    return text(field, file.graph_text);
                case 11:
                case 12:
                    return value(field.bytes, depth + 1,
                                 field.number == 11 ? file.inputs : file.outputs);
                default:
                    return false;
            }
        });
    }

    bool value(std::string_view bytes, unsigned depth, std::vector<OnnxValue>& to) {
        OnnxValue found;
        each(Kind::kValue, bytes, depth, [&](Field const& field) {
            if (field.number == 1 && field.wire == Wire::kLength) {
                return text(field, found.name);
            }
            if (field.number == 2 && field.wire == Wire::kLength) {
                return each(Kind::kType, field.bytes, depth + 1, [&](Field const& kind) {
                    return kind.number == 1 && kind.wire == Wire::kLength &&
                           tensor_type(kind.bytes, depth + 2, found);
                });
            }
            return false;
        });
        to.push_back(std::move(found));
        return true;
    }

    bool tensor_type(std::string_view bytes, unsigned depth, OnnxValue& to) {
        return each(Kind::kTensorType, bytes, depth, [&](Field const& field) {
            if (field.number == 1 && field.wire == Wire::kVarint) {
                to.element = field.value;
            }
            return field.number == 2 && field.wire == Wire::kLength &&
                   each(Kind::kShape, field.bytes, depth + 1, [&](Field const& axis) {
                       return axis.number == 1 && axis.wire == Wire::kLength &&
                              size(axis.bytes, depth + 2, to.shape);
                   });
        });
    }

    bool size(std::string_view bytes, unsigned depth, Shape& to) {
        std::int64_t fixed = -1;
        each(Kind::kSize, bytes, depth, [&](Field const& field) {
            if (field.number == 1 && field.wire == Wire::kVarint) {
                fixed = static_cast<std::int64_t>(field.value);
                if (fixed < 1 || fixed > kMaxSize) {
                    return fail("a size of its inputs or outputs is " + std::to_string(fixed));
                }
            } else if (field.number == 2 && field.wire == Wire::kLength) {
                fixed = -1;  // a name; of the two the last one counts
            }
            return false;
        });
        to.push_back(fixed);
        return to.size() <= kMaxAxes || fail("an input or output has more axes than there can be");
    }

    bool node(std::string_view bytes, unsigned depth) {
        Operator called;
        ++nodes_;
        if (!each(Kind::kNode, bytes, depth, [&](Field const& field) {
                bool const inside = field.wire == Wire::kLength;
                return inside && field.number == 4   ? text(field, called.second)
                       : inside && field.number == 7 ? text(field, called.first)
                                                     : false;
            })) {
            return false;
        }
        ++(*body_)[called];
        return true;
    }

    bool function(std::string_view bytes, unsigned depth) {
        Operator own;
        Calls calls;
        Calls* const outer = std::exchange(body_, &calls);
        bool const good = each(Kind::kFunction, bytes, depth, [&](Field const& field) {
            bool const inside = field.wire == Wire::kLength;
            return inside && field.number == 1    ? text(field, own.second)
                   : inside && field.number == 10 ? text(field, own.first)
                                                  : false;
        });
        body_ = outer;
        return good && (file.functions.emplace(std::move(own), std::move(calls)).second ||
                        fail("two of its functions have one name"));
    }

    bool tensor(std::string_view bytes, unsigned depth, std::string* name) {
        StoredTensor found;
        bool const good = each(Kind::kTensor, bytes, depth, [&](Field const& field) {
            if (field.wire == Wire::kVarint) {
                found.type = field.number == 2 ? field.value : found.type;
                found.outside = field.number == 14 ? field.value == 1 : found.outside;
                if (field.number == 1) {
                    found.sizes.push_back(static_cast<std::int64_t>(field.value));
                }
                return false;
            }
            if (field.wire != Wire::kLength) {
                return false;
            }
            if (field.number == 1) {  // the sizes as one list
                return packed(field.bytes, found.sizes);
            }
            if (field.number == 8) {
                return text(field, found.name);
            }
            if (field.number == 13) {
                std::string key;
                std::string value;
                if (entry(field.bytes, depth + 1, key, value)) {
                    found.entries[key] = value;
                }
                return true;
            }
            return false;
        });
        if (name != nullptr) {
            *name = found.name;
        }
        if (!good) {
            return false;
        }
        auto outside = std::optional<OutsideTensor>();
        std::string const wrong = flaw_of_tensor(found, outside);
        if (outside) {
            file.outside.push_back(std::move(*outside));
        }
        return wrong.empty() || fail(wrong);
    }

    bool packed(std::string_view bytes, std::vector<std::int64_t>& to) {
        while (!bytes.empty()) {
            std::uint64_t value = 0;
            if (!protobuf::read_varint(bytes, value)) {
                return fail("it is cut off, or a number in it has no end");
            }
            to.push_back(static_cast<std::int64_t>(value));
        }
        return true;
    }

    std::size_t nodes_ = 0;
    std::vector<std::uint64_t> opsets_;
    std::set<std::string> weights_;
    Calls* body_ = &file.calls;
};

}  // namespace

Error unreadable_onnx(std::string const& path, std::string const& why) {
    return {"VIM-409", path + " is not a readable ONNX model", why,
            "export it again: vim-deploy export CHECKPOINT -o MODEL.onnx"};
}

Result<OnnxFile> parse_onnx(std::string_view bytes, std::string const& path) {
    Reader reader(bytes.size());
    reader.read(bytes);
    if (!reader.flaw.empty()) {
        return unreadable_onnx(path, reader.flaw);
    }
    return std::move(reader.file);
}

}  // namespace vim_deploy
